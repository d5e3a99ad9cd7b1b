"""What only an S3 service can tell: how its bucket is set, its time, and what it means by a refusal."""

from __future__ import annotations

import base64
import zlib
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore import exceptions as boto

from backup_admin.core.errors import StorageUnavailable
from backup_admin.storage.base import BucketFacts, Hurdle, Known
from backup_admin.storage.s3_errors import NETWORK, NO_KEY, code_of, is_missing, status_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from backup_admin.core.errors import StorageError
    from backup_admin.storage.s3_place import S3Place

_BODY = b"an object that says of itself that it is another"
_HURDLES = {
    "AuthorizationHeaderMalformed": Hurdle.PLACE,
    "ExpiredToken": Hurdle.CREDENTIALS,
    "ExpiredTokenException": Hurdle.CREDENTIALS,
    "IllegalLocationConstraint": Hurdle.PLACE,
    "IllegalLocationConstraintException": Hurdle.PLACE,
    "InvalidAccessKeyId": Hurdle.CREDENTIALS,
    "InvalidToken": Hurdle.CREDENTIALS,
    "NoSuchBucket": Hurdle.PLACE,
    "PermanentRedirect": Hurdle.PLACE,
    "RequestExpired": Hurdle.CLOCK,
    "RequestTimeTooSkewed": Hurdle.CLOCK,
    "SignatureDoesNotMatch": Hurdle.CREDENTIALS,
    "TokenRefreshRequired": Hurdle.CREDENTIALS,
    "301": Hurdle.PLACE,
    "307": Hurdle.PLACE,
    "401": Hurdle.CREDENTIALS,
    "AccessDenied": Hurdle.RIGHTS,
    "403": Hurdle.RIGHTS,
}


class Upload(NamedTuple):
    """An upload in parts that was begun and neither completed nor aborted."""

    key: str
    id: str
    begun: datetime


def hurdle_of(error: StorageError) -> Hurdle | None:
    """Say what an error means for a first contact; the service's own answer is its cause."""
    cause = error.__cause__
    if isinstance(cause, NO_KEY):
        return Hurdle.NO_CREDENTIALS
    if isinstance(cause, boto.ClientError):
        known = _HURDLES.get(code_of(cause)) or _HURDLES.get(str(status_of(cause)))
        if known is None and is_missing(cause):
            return Hurdle.PLACE
        if known is None and isinstance(error, StorageUnavailable):
            return Hurdle.REACH  # it is overloaded, or speaks something else
        return known
    return Hurdle.REACH if isinstance(error, StorageUnavailable) else None


def date_of(client: Any, place: S3Place, key: str) -> datetime:
    """Return the time a service wrote on its answer; raise `StorageUnavailable` when it wrote none."""
    answer = client.head_object(Bucket=place.bucket, Key=key)
    text = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        return parsedate_to_datetime(text)
    except ValueError as error:
        raise StorageUnavailable(f"{place.label} does not date its answers.") from error


def find_facts(client: Any, place: S3Place, key: str) -> BucketFacts:
    """Ask for the settings of the bucket, and send an object with a wrong sum."""
    return BucketFacts(
        versioning=_asked(lambda: _has_versioning(client, place)),
        object_lock=_asked(lambda: _has_lock(client, place)),
        compares_sums=_compares_sums(client, place, key),
    )


def purge(client: Any, place: S3Place, key: str) -> bool:
    """Remove all versions of one key and say whether none is left; a bucket may lock them."""
    try:
        for version in _versions(client, place, key):
            client.delete_object(Bucket=place.bucket, Key=key, VersionId=version)
        return not _versions(client, place, key)
    except (boto.ClientError, *NETWORK):
        return False


def _versions(client: Any, place: S3Place, key: str) -> list[str]:
    page = client.list_object_versions(Bucket=place.bucket, Prefix=key)
    rows = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
    return [row["VersionId"] for row in rows if row["Key"] == key]


def size_of_parts(client: Any, place: S3Place, upload: Upload, _number: int) -> int:
    """Return how many bytes an upload holds; none when it ended meanwhile."""
    total = 0
    more: dict[str, Any] = {}
    try:
        while True:
            page = client.list_parts(Bucket=place.bucket, Key=upload.key, UploadId=upload.id, **more)
            total += sum(int(row["Size"]) for row in page.get("Parts", ()))
            marker = page.get("NextPartNumberMarker")
            if not page.get("IsTruncated") or not marker or more.get("PartNumberMarker") == marker:
                return total
            more = {"PartNumberMarker": marker}
    except boto.ClientError as error:
        if code_of(error) == "NoSuchUpload":
            return 0
        raise


def end_upload(client: Any, place: S3Place, upload: Upload, _number: int) -> None:
    """Abort an upload; one that ended meanwhile is no error."""
    try:
        client.abort_multipart_upload(Bucket=place.bucket, Key=upload.key, UploadId=upload.id)
    except boto.ClientError as error:
        if code_of(error) != "NoSuchUpload":
            raise


def _asked(ask: Callable[[], bool]) -> Known:
    try:
        return Known.YES if ask() else Known.NO
    except boto.ClientError as error:
        status = status_of(error)
        # A service that does not know the question has nothing of the kind.
        is_certain = status == 501 or (400 <= status < 500 and status not in (401, 403, 408, 429))
        return Known.NO if is_certain else Known.UNKNOWN
    except NETWORK:
        return Known.UNKNOWN


def _has_versioning(client: Any, place: S3Place) -> bool:
    return bool(client.get_bucket_versioning(Bucket=place.bucket).get("Status") == "Enabled")


def _has_lock(client: Any, place: S3Place) -> bool:
    answer = client.get_object_lock_configuration(Bucket=place.bucket)
    return bool(answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled")


def _compares_sums(client: Any, place: S3Place, key: str) -> Known:
    wrong = base64.b64encode((zlib.crc32(_BODY) ^ 1).to_bytes(4, "big")).decode("ascii")
    try:
        client.put_object(Bucket=place.bucket, Key=key, Body=_BODY, ChecksumCRC32=wrong)
    except boto.ClientError as error:
        return Known.YES if status_of(error) == 400 else Known.UNKNOWN
    except NETWORK:
        return Known.UNKNOWN
    return Known.NO
