"""What goes with a put to S3: nothing that was not asked for, all that was, in one piece and in parts."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from botocore.awsrequest import AWSResponse

from backup_admin.storage.s3 import S3Storage
from backup_admin.storage.s3_lock import bucket_options, put_options
from backup_admin.storage.s3_place import S3Place, parse_s3_address

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime(2026, 3, 1, 12, 30, 15, 999, tzinfo=UTC)
SMALL, LARGE = b"small", bytes(33 << 20)
NOT_ASKED_FOR = re.compile("lock|retain|storage-class|encryption|server-side")
UPLOAD = b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"


class _Raw(io.BytesIO):
    """The body of an answer."""

    def stream(self) -> Iterator[bytes]:
        yield self.read()


def sent_by_a_put(query: str, data: bytes) -> dict[str, dict[str, str]]:
    """Return what would go over the wire, headers by operation; every answer is yes."""
    storage = S3Storage(parse_s3_address(f"s3://backups?{query}"), credentials=("key", "secret"))
    seen: dict[str, dict[str, str]] = {}

    def answer(request: Any, event_name: str, **_: Any) -> AWSResponse:
        operation = event_name.rpartition(".")[2]
        headers = {
            name.lower(): value.decode() if isinstance(value, bytes) else str(value)
            for name, value in request.headers.items()
        }
        seen.setdefault(operation, {}).update(headers)
        body = UPLOAD if operation == "CreateMultipartUpload" else b""
        return AWSResponse(request.url, 200, {"ETag": '"1"', "Content-Length": "0"}, _Raw(body))

    storage._client.meta.events.register("before-send.s3", answer)
    storage.put("a", data, if_absent=False)
    return seen


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["whole", "in parts"])
def test_nothing_is_sent_that_was_not_asked_for(data: bytes) -> None:
    sent = sent_by_a_put("region=eu-central-1", data)

    names = {name for headers in sent.values() for name in headers}
    assert names
    assert [name for name in sorted(names) if NOT_ASKED_FOR.search(name)] == []


@pytest.mark.parametrize(
    ("data", "first", "body"),
    [(SMALL, "PutObject", "PutObject"), (LARGE, "CreateMultipartUpload", "UploadPart")],
    ids=["whole", "in parts"],
)
def test_what_was_asked_for_is_sent_and_bodies_have_sums(data: bytes, first: str, body: str) -> None:
    sent = sent_by_a_put(
        "lock_days=30&lock_mode=compliance&storage_class=STANDARD_IA&sse=aws:kms&sse_kms_key=alias/backups",
        data,
    )

    headers = sent[first]
    assert headers["x-amz-object-lock-mode"] == "COMPLIANCE"
    assert datetime.fromisoformat(headers["x-amz-object-lock-retain-until-date"]).tzinfo is not None
    assert headers["x-amz-storage-class"] == "STANDARD_IA"
    assert headers["x-amz-server-side-encryption"] == "aws:kms"
    assert headers["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/backups"
    assert sent[body]["x-amz-checksum-crc32"]
    if first != body:
        assert headers["x-amz-checksum-algorithm"] == "CRC32"
        assert not any(map(NOT_ASKED_FOR.search, sent[body]))


def test_a_lock_ends_so_many_days_from_now() -> None:
    options = put_options(S3Place("backups", lock_days=30), NOW)

    assert options == {
        "ObjectLockMode": "GOVERNANCE",
        "ObjectLockRetainUntilDate": datetime(2026, 3, 31, 12, 30, 15, tzinfo=UTC),
    }


def test_a_bucket_is_made_with_locks_only_when_they_are_asked_for() -> None:
    assert bucket_options(S3Place("backups")) == {}
    assert bucket_options(S3Place("backups", lock_days=1)) == {"ObjectLockEnabledForBucket": True}
