"""A storage in a bucket of an S3-compatible service: AWS, MinIO, SeaweedFS and the like.

Calls are tried again here and not in the client library, which repeats a conditional put and
then reports our own stored object as somebody else's. Whatever stays unclear after a lost
reply is settled by reading the name back. What comes back is believed by nobody: the engine
compares every object with its name or seal.
"""

from __future__ import annotations

import time
from functools import partial
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError

from backup_admin.core.clock import SystemClock
from backup_admin.core.errors import StorageError, UsageError
from backup_admin.storage import s3_facts
from backup_admin.storage.base import Buffer, Leftover, ObjectInfo, PutResult, check_name
from backup_admin.storage.endpoints import check_endpoint
from backup_admin.storage.retrying import Retries
from backup_admin.storage.s3_client import ViewBody, make_client, read_body
from backup_admin.storage.s3_errors import code_of, explain, is_missing, status_of
from backup_admin.storage.s3_facts import Upload
from backup_admin.storage.s3_lock import bucket_options, extend_lock, lock_end, put_options, read_lock
from backup_admin.storage.s3_parts import PARTS_FROM, Target, crc32, put_parts
from backup_admin.storage.s3_place import parse_s3_address
from backup_admin.storage.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from backup_admin.core.clock import Clock
    from backup_admin.storage.base import BucketFacts, Hurdle
    from backup_admin.storage.s3_place import S3Credentials, S3Place

T = TypeVar("T")

_PIECE = 1 << 20
_BATCH = 1000
_IF_ABSENT = {"IfNoneMatch": "*"}
_BUCKET_SEEN_SECONDS = 10.0


def open_s3(
    address: str, *, allow_private: bool, quick: bool = False, credentials: S3Credentials | None = None
) -> S3Storage:
    """Open the storage an `s3://` address names.

    The keys are those of the profile it names, else the given ones, else those of the environment or
    role. Nothing is sent. `quick` gives up soon. Raises `UsageError` for an address that makes no sense or
    an endpoint that is refused.
    """
    place = parse_s3_address(address)
    if place.ca_file and not Path(place.ca_file).is_file():
        raise UsageError(f"ca_file={place.ca_file}: there is no such file. Nothing was sent.")
    if place.host:
        check_endpoint(place.host, allow_private=allow_private)
    keys = None
    if credentials is not None and not place.profile:
        keys = (credentials.access_key, credentials.secret_key.reveal())
    return S3Storage(place, credentials=keys, retries=Retries.quick() if quick else None)


class S3Storage:
    """Keeps each object under one key of a bucket. May be used from several threads."""

    parallel_calls = 8

    def __init__(
        self,
        place: S3Place,
        *,
        credentials: tuple[str, ...] | None = None,
        retries: Retries | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Make a client; nothing is sent.

        `credentials` are access key, secret key and perhaps a session token, else the usual chain.

        Raises `StorageDenied` for a profile that is not there.
        """
        self.place = place
        self.label = place.label
        self.lock_days = place.lock_days
        self._clock = clock or SystemClock()
        self._retries = retries or Retries()
        self._client: Any = self._call(
            "", "opened", lambda _: make_client(place, credentials, self._retries.connect_seconds)
        )
        self._throttle = Throttle(place.bandwidth)
        self._bucket_seen = 0.0

    def make(self) -> None:
        """Create the bucket when it is not there and the address asks for that; else it must be there."""
        if not self.is_made():
            self._call("", "created", lambda _: self._create_bucket())

    def is_made(self) -> bool:
        """Say whether the bucket is there; one that is missing is an error unless the address asks for it."""
        return self._call("", "reached", lambda _: self._has_bucket())

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        """Store an object; one that is there is found first, since some services ignore the condition."""
        key = self._key(name)
        if if_absent and self.stat(name) is not None:
            return PutResult.EXISTS
        view = memoryview(data).cast("B")
        return self._call(name, "written", partial(self._put, key, view, _IF_ABSENT if if_absent else {}))

    def overwrites(self, name: str, data: Buffer) -> bool:
        """Put a taken name without looking first; say whether the service ignores the condition."""
        put = partial(self._put, self._key(name), memoryview(data).cast("B"), _IF_ABSENT)
        return self._call(name, "written", put) is PutResult.STORED

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Read an object or a part of it."""
        key = self._key(name)
        if length == 0:
            length, end = 1, 0
        else:
            end = None
        return self._call(name, "read", lambda _: self._read(key, offset, length))[:end]

    def get_into(self, name: str, offset: int, buffer: bytearray | memoryview) -> int:
        """Fill a buffer from an object."""
        view = memoryview(buffer)
        if not view:
            return len(self.get(name, offset, 0))
        return self._call(name, "read", partial(self._read_into, self._key(name), offset, view))

    def stat(self, name: str) -> ObjectInfo | None:
        """Return name and size, or None; an absent bucket is an error."""
        size = self._call(name, "looked up", partial(self._size, self._key(name)))
        if size is None:
            self._need_bucket()
            return None
        return ObjectInfo(name, size)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """List objects in order of name, whatever order the service has; raise `StorageError` for doubles."""
        found = [info for info in self._listed(prefix) if info.name.startswith(prefix)]
        found.sort(key=attrgetter("name"))
        if any(first.name == second.name for first, second in pairwise(found)):
            raise StorageError(f"{self.label} lists objects twice: nothing follows from its lists.")
        yield from found

    def delete(self, name: str) -> None:
        """Remove an object."""
        key = self._key(name)
        self._call(name, "deleted", lambda _: self._client.delete_object(Bucket=self.place.bucket, Key=key))

    def delete_all(self, names: Sequence[str]) -> None:
        """Remove objects, a thousand in a call; raise `StorageError` naming the first that stays."""
        for at in range(0, len(names), _BATCH):
            keys = [{"Key": self._key(name)} for name in names[at : at + _BATCH]]
            answer = self._call("", "emptied", partial(self._delete_keys, keys))
            for row in answer.get("Errors", ()):
                reason = row.get("Message") or row.get("Code")
                raise StorageError(f"{row.get('Key')} in {self.label} could not be deleted: {reason}.")

    def extend_lock(self, name: str) -> datetime:
        """Lock an object for `lock_days` from now; return until when it is locked then."""
        key, until = self._key(name), lock_end(self.place, self._clock.now())
        return self._call(name, "locked", lambda _: extend_lock(self._client, self.place, key, until))

    def locked_until(self, name: str) -> datetime | None:
        """Return until when an object is locked."""
        key = self._key(name)
        return self._call(name, "looked up", lambda _: read_lock(self._client, self.place, key))

    def signed_address(self, name: str, seconds: int) -> str:
        """Return an address that anybody may read this object at for so long."""
        wanted = {"Bucket": self.place.bucket, "Key": self._key(name)}
        address: str = self._client.generate_presigned_url("get_object", Params=wanted, ExpiresIn=seconds)
        return address

    def uploads(self) -> Iterator[Upload]:
        """List uploads in parts that nobody completed: they cost money and are seen nowhere else."""
        prefix = self.place.key("")
        marker: dict[str, str] = {}
        while True:
            page = self._call("", "listed", partial(self._upload_page, prefix, marker))
            for row in page.get("Uploads", ()):
                yield Upload(row["Key"], row["UploadId"], row["Initiated"])
            following = {
                "KeyMarker": page.get("NextKeyMarker", ""),
                "UploadIdMarker": page.get("NextUploadIdMarker", ""),
            }
            if not page.get("IsTruncated") or following == marker:
                return
            marker = following

    def abort_upload(self, upload: Upload) -> None:
        """Give up an upload in parts and free what it holds."""
        self._call("", "tidied", partial(s3_facts.end_upload, self._client, self.place, upload))

    def leftovers(self) -> Iterator[Leftover]:
        """List the uploads in parts that nobody completed."""
        for upload in self.uploads():
            size = self._call("", "listed", partial(s3_facts.size_of_parts, self._client, self.place, upload))
            yield Leftover(self.place.name_of(upload.key), size, upload.begun, upload.id)

    def remove_leftover(self, leftover: Leftover) -> None:
        """Abort an upload; one that ended meanwhile is no error."""
        self.abort_upload(Upload(self.place.key(leftover.name), leftover.id, leftover.since))

    def hurdle_of(self, error: StorageError) -> Hurdle | None:
        """Say what an error means for a first contact."""
        return s3_facts.hurdle_of(error)

    def tell_time(self, name: str) -> datetime:
        """Return the time of the service, as it dates its answers."""
        key = self._key(name)
        return self._call(name, "looked up", lambda _: s3_facts.date_of(self._client, self.place, key))

    def bucket_facts(self, name: str) -> BucketFacts:
        """Ask for the settings of the bucket, and whether bodies are compared with their sums."""
        return s3_facts.find_facts(self._client, self.place, self._key(name))

    def purge(self, name: str) -> bool:
        """Remove all versions of an object, as far as the bucket lets us."""
        return s3_facts.purge(self._client, self.place, self._key(name))

    def _key(self, name: str) -> str:
        return self.place.key(check_name(name))

    def _call(self, name: str, act: str, attempt: Callable[[int], T]) -> T:
        return self._retries.run(attempt, lambda error: explain(error, self.place, name, act))

    def _create_bucket(self) -> None:
        where = bucket_options(self.place)
        if self.place.region and self.place.is_aws and self.place.region != "us-east-1":
            where["CreateBucketConfiguration"] = {"LocationConstraint": self.place.region}
        try:
            self._client.create_bucket(Bucket=self.place.bucket, **where)
        except ClientError as error:
            if code_of(error) != "BucketAlreadyOwnedByYou":
                raise

    def _has_bucket(self) -> bool:
        try:
            self._client.head_bucket(Bucket=self.place.bucket)
        except ClientError as error:
            if not self.place.create_bucket or not is_missing(error):
                raise
            return False
        return True

    def _need_bucket(self) -> None:
        """Raise when there is no bucket: a look-up of an object does not tell."""
        if time.monotonic() - self._bucket_seen > _BUCKET_SEEN_SECONDS:
            self._call("", "reached", lambda _: self._client.head_bucket(Bucket=self.place.bucket))
            self._bucket_seen = time.monotonic()

    def _put(self, key: str, view: memoryview, condition: dict[str, str], number: int) -> PutResult:
        try:
            options = put_options(self.place, self._clock.now())
            if len(view) < PARTS_FROM:
                self._client.put_object(
                    Bucket=self.place.bucket,
                    Key=key,
                    Body=ViewBody(view, self._throttle),
                    ContentLength=len(view),
                    ChecksumCRC32=crc32(view),
                    **options,
                    **condition,
                )
            else:
                call = partial(self._call, key, "written")
                target = Target(self._client, self.place.bucket, key, call, self._throttle)
                put_parts(target, view, options=options, condition=condition)
        except ClientError as error:
            if status_of(error) != 412:
                raise
            # An attempt of ours may have been stored although its answer was lost.
            return PutResult.STORED if number and self._holds(key, view) else PutResult.EXISTS
        return PutResult.STORED

    def _holds(self, key: str, view: memoryview) -> bool:
        """Say whether an object has exactly these bytes."""
        if self._size(key, 0) != len(view):
            return False
        buffer = memoryview(bytearray(min(len(view), _PIECE)))
        for at in range(0, len(view), _PIECE):
            wanted = view[at : at + _PIECE]
            if (
                self._read_into(key, at, buffer[: len(wanted)], 0) != len(wanted)
                or buffer[: len(wanted)] != wanted
            ):
                return False
        return True

    def _read(self, key: str, offset: int, length: int | None) -> bytes:
        answer = self._open(key, offset, length)
        if answer is None:
            return b""
        data = bytearray(answer["ContentLength"])
        read_body(answer, memoryview(data))
        return bytes(data if length is None else data[:length])

    def _read_into(self, key: str, offset: int, view: memoryview, _number: int) -> int:
        answer = self._open(key, offset, len(view))
        if answer is None:
            return 0
        size = min(len(view), int(answer["ContentLength"]))
        read_body(answer, view[:size])
        return size

    def _open(self, key: str, offset: int, length: int | None) -> dict[str, Any] | None:
        """Ask for a part of an object; None when it lies behind its end."""
        wanted = {}
        if offset or length is not None:
            wanted = {"Range": f"bytes={offset}-{'' if length is None else offset + length - 1}"}
        try:
            answer: dict[str, Any] = self._client.get_object(Bucket=self.place.bucket, Key=key, **wanted)
        except ClientError as error:
            if status_of(error) == 416:
                return None
            raise
        if offset and "ContentRange" not in answer:
            answer["Body"].close()
            raise StorageError(f"{self.label} gives whole objects when it is asked for a part.")
        return answer

    def _size(self, key: str, _number: int) -> int | None:
        try:
            return int(self._client.head_object(Bucket=self.place.bucket, Key=key)["ContentLength"])
        except ClientError as error:
            if is_missing(error):
                return None
            raise

    def _listed(self, prefix: str) -> Iterator[ObjectInfo]:
        start = len(self.place.key(""))
        token = ""
        seen = set()
        while True:
            page = self._call("", "listed", partial(self._page, self.place.key(prefix), token))
            for row in page.get("Contents", ()):
                yield ObjectInfo(row["Key"][start:], row["Size"])
            if not page.get("IsTruncated"):
                return
            token = page.get("NextContinuationToken", "")
            if not token or token in seen:
                raise StorageError(
                    f"{self.label} lists objects without an end: nothing follows from its lists."
                )
            seen.add(token)

    def _page(self, prefix: str, token: str, _number: int) -> dict[str, Any]:
        more = {"ContinuationToken": token} if token else {}
        page: dict[str, Any] = self._client.list_objects_v2(Bucket=self.place.bucket, Prefix=prefix, **more)
        return page

    def _upload_page(self, prefix: str, marker: dict[str, str], _number: int) -> dict[str, Any]:
        page: dict[str, Any] = self._client.list_multipart_uploads(
            Bucket=self.place.bucket, Prefix=prefix, **marker
        )
        return page

    def _delete_keys(self, keys: list[dict[str, str]], _number: int) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.delete_objects(
            Bucket=self.place.bucket, Delete={"Objects": keys, "Quiet": True}
        )
        return answer
