"""S3 over TLS: who is trusted is said, nobody else is, and each mistake has its own advice."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from backup_admin.core.errors import StorageUnavailable, UsageError
from backup_admin.storage.base import PutResult
from backup_admin.storage.open import open_storage
from backup_admin.storage.retrying import Retries
from backup_admin.storage.s3 import S3Storage
from backup_admin.storage.s3_place import parse_s3_address
from tests.services.s3 import S3Server, write_certificate

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


def open_at(endpoint: str, **options: str) -> S3Storage:
    server = S3Server(endpoint)
    place = parse_s3_address(server.address(uuid4().hex, **options))
    retries = Retries(attempts=2, sleep=lambda _: None)
    return S3Storage(place, credentials=(server.key, server.secret), retries=retries)


def test_an_authority_of_ones_own_is_trusted_when_it_is_named(rclone_https: S3Server) -> None:
    storage = open_at(rclone_https.endpoint, ca_file=rclone_https.ca_file)

    assert storage.put("packs/ab/cd", b"content") is PutResult.STORED
    assert storage.get("packs/ab/cd", 3, 2) == b"te"


def test_nobody_else_is_trusted(rclone_https: S3Server, tmp_path: Path) -> None:
    write_certificate(tmp_path / "other.pem", tmp_path / "key.pem", "localhost")

    for options in ({}, {"ca_file": str(tmp_path / "other.pem")}):
        with pytest.raises(StorageUnavailable, match="not one this machine trusts"):
            open_at(rclone_https.endpoint, **options).stat("a")


def test_a_certificate_counts_for_its_own_host_alone(rclone_https: S3Server) -> None:
    address = rclone_https.endpoint.replace("localhost", "127.0.0.1")

    with pytest.raises(StorageUnavailable, match="check the host name"):
        open_at(address, ca_file=rclone_https.ca_file).stat("a")


def test_a_file_of_authorities_that_is_missing_is_named(tmp_path: Path) -> None:
    address = S3Server("https://localhost:9").address(ca_file="/no-such.pem")

    with pytest.raises(UsageError, match=r"no-such\.pem"):
        open_storage(address, state=tmp_path)


def test_https_to_a_server_that_speaks_http_is_told(rclone_s3: S3Server) -> None:
    with pytest.raises(StorageUnavailable, match="speaks http, not https"):
        open_at(rclone_s3.endpoint.replace("http:", "https:")).stat("a")


def test_http_to_a_server_that_speaks_https_is_told(rclone_https: S3Server) -> None:
    with pytest.raises(StorageUnavailable, match="speaks https"):
        open_at(rclone_https.endpoint.replace("https:", "http:")).stat("a")


def test_nobody_there_is_told() -> None:
    with pytest.raises(StorageUnavailable, match="nothing listens"):
        open_at("http://127.0.0.1:9").stat("a")
