"""Object Lock on a real server: what is put is locked when that is asked for."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from backup_admin.core.errors import ObjectMissing, StorageDenied, StorageError
from backup_admin.storage.base import KeepsLocked, PutResult, locking
from backup_admin.storage.memory import MemoryStorage
from backup_admin.storage.probe import probe_storage
from backup_admin.storage.retrying import Retries
from backup_admin.storage.s3 import S3Storage
from backup_admin.storage.s3_place import parse_s3_address
from tests.services.s3 import BUCKET, WRITER, S3Server, make_locking_bucket, plain_client

SMALL, LARGE = b"small", os.urandom(33 << 20)

pytestmark = pytest.mark.integration


class MovedClock:
    """The machine's clock, some days off."""

    def __init__(self, days: float) -> None:
        self._shift = timedelta(days=days)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._shift

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise NotImplementedError


@pytest.fixture(scope="module")
def bucket(seaweedfs: S3Server) -> str:
    return make_locking_bucket(seaweedfs)


def open_locking(
    server: S3Server, bucket: str, *, prefix: str = "", days: int = 3, late_days: float = 0, **options: str
) -> S3Storage:
    address = server.address(prefix or uuid4().hex, bucket=bucket, lock_days=str(days), **options)
    retries = Retries(attempts=2, sleep=lambda _: None)
    clock = MovedClock(late_days)
    return S3Storage(parse_s3_address(address), credentials=WRITER, retries=retries, clock=clock)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["whole", "in parts"])
@pytest.mark.parametrize("mode", ["governance", "compliance"])
def test_what_is_put_is_locked_and_no_version_of_it_can_be_deleted(
    seaweedfs: S3Server, bucket: str, data: bytes, mode: str
) -> None:
    storage = open_locking(seaweedfs, bucket, lock_mode=mode)

    assert storage.put("packs/ab/cd", data) is PutResult.STORED

    until = storage.locked_until("packs/ab/cd")
    assert until is not None
    assert abs(until - datetime.now(UTC) - timedelta(days=3)) < timedelta(minutes=2)
    client, key = plain_client(seaweedfs), storage.place.key("packs/ab/cd")
    head = client.head_object(Bucket=bucket, Key=key)
    assert head["ObjectLockMode"] == mode.upper()
    with pytest.raises(ClientError, match="AccessDenied"):
        client.delete_object(Bucket=bucket, Key=key, VersionId=head["VersionId"])
    assert storage.get("packs/ab/cd") == data


def test_a_lock_is_extended_and_never_shortened(seaweedfs: S3Server, bucket: str) -> None:
    prefix = uuid4().hex
    storage = open_locking(seaweedfs, bucket, prefix=prefix)
    storage.put("a", SMALL)
    first = storage.locked_until("a")
    later = open_locking(seaweedfs, bucket, prefix=prefix, late_days=2)

    extended = later.extend_lock("a")
    kept = storage.extend_lock("a")

    assert first is not None
    assert extended == kept == storage.locked_until("a")
    assert timedelta(days=1, hours=23) < extended - first < timedelta(days=2, hours=1)


def test_a_key_that_could_shorten_a_lock_does_not(seaweedfs: S3Server, bucket: str) -> None:
    long = open_locking(seaweedfs, bucket, days=9)
    long.put("a", SMALL)
    place = parse_s3_address(seaweedfs.address(long.place.prefix, bucket=bucket, lock_days="1"))
    short = S3Storage(place, credentials=(seaweedfs.key, seaweedfs.secret))
    before = long.locked_until("a")

    short.extend_lock("a")

    assert short.locked_until("a") == before


def test_what_is_not_there_is_told_apart(seaweedfs: S3Server, bucket: str) -> None:
    storage = open_locking(seaweedfs, bucket)

    for act in (storage.extend_lock, storage.locked_until):
        with pytest.raises(ObjectMissing):
            act("a")


def test_a_bucket_without_locks_is_refused_with_advice(seaweedfs: S3Server) -> None:
    bucket = f"plain-{uuid4().hex[:8]}"
    plain_client(seaweedfs).create_bucket(Bucket=bucket)
    storage = open_locking(seaweedfs, bucket)

    for data in (SMALL, LARGE):
        with pytest.raises(StorageDenied, match="keeps no locks"):
            storage.put("a", data)
    assert list(storage.list_objects("")) == []


def test_a_server_that_takes_no_notice_of_locks_is_refused_when_it_is_tried(rclone_s3: S3Server) -> None:
    class Conditional(S3Storage):
        """As if the server kept the condition, which it does not either."""

        def overwrites(self, name: str, data: object) -> bool:
            return False

    place = parse_s3_address(rclone_s3.address(uuid4().hex, lock_days="3"))
    storage = Conditional(place, credentials=(rclone_s3.key, rclone_s3.secret))

    with pytest.raises(StorageError, match="does not say that what was put is locked"):
        probe_storage(storage, "1")


def test_a_bucket_made_on_demand_keeps_locks_when_they_are_asked_for(seaweedfs: S3Server) -> None:
    bucket = f"made-{uuid4().hex[:8]}"
    address = seaweedfs.address("app", bucket=bucket, create_bucket="true", lock_days="2")
    storage = S3Storage(parse_s3_address(address), credentials=(seaweedfs.key, seaweedfs.secret))

    storage.make()
    storage.put("a", SMALL)

    assert storage.locked_until("a") is not None


def test_a_key_that_may_not_delete_is_told_so_by_the_probe(seaweedfs: S3Server, bucket: str) -> None:
    storage = open_locking(seaweedfs, bucket)
    place = parse_s3_address(seaweedfs.address(uuid4().hex, bucket=bucket))
    free = S3Storage(place, credentials=(seaweedfs.key, seaweedfs.secret))

    assert not probe_storage(storage, "1").may_delete
    assert probe_storage(free, "1").may_delete

    assert [info.name for info in storage.list_objects("")] == ["probe-1"]
    assert list(free.list_objects("")) == []


def test_a_storage_that_was_not_told_to_lock_locks_nothing(seaweedfs: S3Server) -> None:
    place = parse_s3_address(seaweedfs.address(bucket=BUCKET))
    storage = S3Storage(place, credentials=(seaweedfs.key, seaweedfs.secret))

    assert isinstance(storage, KeepsLocked)
    assert locking(storage) is None
    assert locking(MemoryStorage()) is None
