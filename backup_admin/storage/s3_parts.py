"""Large objects go up in parts, some at a time; they become an object only when all of them are there."""

from __future__ import annotations

import base64
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from backup_admin.core.errors import StorageError
from backup_admin.storage.s3_client import ViewBody

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backup_admin.storage.throttle import Throttle

PARTS_FROM = 32 << 20
_PART_BYTES = 16 << 20
_THREADS = 4


class Target(NamedTuple):
    """The object that parts become. `attempt` tries one call again as long as that makes sense."""

    client: Any
    bucket: str
    key: str
    attempt: Callable[[Callable[[int], Any]], Any]
    throttle: Throttle


def put_parts(
    target: Target, view: memoryview, *, options: Mapping[str, Any], condition: Mapping[str, str]
) -> None:
    """Store an object in parts; what goes wrong ends the upload, so that nothing of it is kept.

    `options` go with its beginning and `condition` with its end.
    """
    where = {"Bucket": target.bucket, "Key": target.key}
    begun = target.client.create_multipart_upload(**where, ChecksumAlgorithm="CRC32", **options)
    where["UploadId"] = begun["UploadId"]
    try:
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="s3-part") as pool:
            spans = range(0, len(view), _PART_BYTES)
            parts = list(pool.map(partial(_put_part, target, where, view), spans))
        target.client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts}, **condition)
    except BaseException:
        with suppress(BotoCoreError, ClientError, StorageError):
            target.client.abort_multipart_upload(**where)
        raise


def crc32(view: memoryview) -> str:
    """Return the sum a server compares a body with; some keep what came of one that was cut short."""
    return base64.b64encode(zlib.crc32(view).to_bytes(4, "big")).decode("ascii")


def _put_part(target: Target, where: dict[str, str], view: memoryview, at: int) -> dict[str, Any]:
    part, number = view[at : at + _PART_BYTES], at // _PART_BYTES + 1
    checksum = crc32(part)

    def attempt(_: int) -> Any:
        return target.client.upload_part(
            **where,
            PartNumber=number,
            Body=ViewBody(part, target.throttle),
            ContentLength=len(part),
            ChecksumCRC32=checksum,
        )

    return {"PartNumber": number, "ETag": target.attempt(attempt)["ETag"], "ChecksumCRC32": checksum}
