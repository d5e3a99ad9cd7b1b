"""Locks of objects in a bucket (S3 Object Lock), and what else goes with every put when it is asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

    from backup_admin.storage.s3_place import S3Place


def put_options(place: S3Place, now: datetime) -> dict[str, Any]:
    """Return what goes with a put, of one piece or in parts; nothing that the address does not ask for."""
    options: dict[str, Any] = {}
    if place.lock_days:
        options["ObjectLockMode"] = _mode(place)
        options["ObjectLockRetainUntilDate"] = lock_end(place, now)
    if place.storage_class:
        options["StorageClass"] = place.storage_class
    if place.sse is not None:
        options["ServerSideEncryption"] = place.sse.value
    if place.sse_kms_key:
        options["SSEKMSKeyId"] = place.sse_kms_key
    return options


def bucket_options(place: S3Place) -> dict[str, Any]:
    """Return what goes with making a bucket: locks can be had from its beginning only."""
    return {"ObjectLockEnabledForBucket": True} if place.lock_days else {}


def lock_end(place: S3Place, now: datetime) -> datetime:
    """Return until when something is locked that is locked now; services keep whole seconds."""
    return now.replace(microsecond=0) + timedelta(days=place.lock_days)


def read_lock(client: Any, place: S3Place, key: str) -> datetime | None:
    """Return until when an object is locked, as far as our key may see it.

    A bucket with locks keeps versions; a server without gives back what was sent and locks nothing.
    """
    answer = client.head_object(Bucket=place.bucket, Key=key)
    until: datetime | None = answer.get("ObjectLockRetainUntilDate")
    return None if until is None or "VersionId" not in answer else until.astimezone(UTC)


def extend_lock(client: Any, place: S3Place, key: str, until: datetime) -> datetime:
    """Lock an object until a time, unless it is locked for longer; return until when it is then.

    Looked up first: a key that may take locks away would shorten one.
    """
    found = read_lock(client, place, key)
    if found is not None and found >= until:
        return found
    retention = {"Mode": _mode(place), "RetainUntilDate": until}
    client.put_object_retention(Bucket=place.bucket, Key=key, Retention=retention)
    return until


def is_without_locks(error: ClientError) -> bool:
    """Say whether an answer may mean: this bucket keeps no locks."""
    details = error.response.get("Error", {})
    message = str(details.get("Message", "")).lower()
    return details.get("Code") in ("InvalidRequest", "ObjectLockConfigurationNotFoundError") and (
        "lock" in message or message in ("", "invalid request")
    )


def _mode(place: S3Place) -> str:
    return place.lock_mode.value.upper()
