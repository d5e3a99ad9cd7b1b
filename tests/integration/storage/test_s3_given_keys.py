"""Keys that are given to the app open a real bucket, or are not kept."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from backup_admin.control import engine, onboarding, s3_keys, storage_tests
from backup_admin.core.errors import StorageDenied, StorageError
from backup_admin.core.secret import Secret
from backup_admin.storage.base import Hurdle
from backup_admin.storage.s3_place import S3Credentials
from backup_admin.storage.storage_report import Step, StepOutcome
from tests.installations import ADMIN, Host, make_host
from tests.services.s3 import KEY, SECRET, WRITER, S3Server, plain_client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.orm import Session

pytestmark = pytest.mark.integration

_KEYS = (Hurdle.CREDENTIALS, Hurdle.RIGHTS)
RIGHT = S3Credentials(KEY, Secret(SECRET))
WRONG = S3Credentials(KEY, Secret("another secret"))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host where nothing else gives keys of a bucket."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return make_host(tmp_path, BACKUP_ADMIN_PRIVATE_STORAGE=True)


@pytest.fixture
def session(host: Host) -> Iterator[Session]:
    with host.installation.database.new_session() as session:
        yield session


@pytest.fixture
def address(seaweedfs: S3Server) -> str:
    bucket = f"given-{uuid4().hex[:12]}"
    plain_client(seaweedfs).create_bucket(Bucket=bucket)
    return seaweedfs.address("app", bucket=bucket)


def kept(session: Session, host: Host) -> str:
    session.expire_all()
    found = s3_keys.find_credentials(session, host.installation)
    return "" if found is None else found.access_key


def test_keys_that_open_nothing_are_not_kept_and_the_right_ones_are(
    session: Session, host: Host, address: str
) -> None:
    with pytest.raises(StorageDenied) as raised:
        onboarding.choose_storage(session, host.installation, address, ADMIN, credentials=WRONG)
    assert engine.hurdle_of(address, host.installation.settings, raised.value) in _KEYS
    assert (kept(session, host), engine.storage_address(session, host.installation.settings)) == ("", "")

    onboarding.choose_storage(session, host.installation, address, ADMIN, credentials=RIGHT)

    assert kept(session, host) == KEY
    report = storage_tests.newest_test(session, host.installation.settings)
    assert report is not None
    assert report.finding(Step.READ).outcome is StepOutcome.OK


def test_keys_are_replaced_only_by_ones_that_open_the_bucket(
    session: Session, host: Host, address: str
) -> None:
    onboarding.choose_storage(session, host.installation, address, ADMIN, credentials=RIGHT)

    with pytest.raises(StorageDenied):
        onboarding.change_keys(session, host.installation, WRONG, ADMIN)
    session.rollback()
    assert kept(session, host) == KEY

    onboarding.change_keys(session, host.installation, S3Credentials(WRITER[0], Secret(WRITER[1])), ADMIN)
    assert kept(session, host) == WRITER[0]


def test_without_its_keys_the_bucket_is_closed_and_the_test_says_so(
    session: Session, host: Host, address: str
) -> None:
    onboarding.choose_storage(session, host.installation, address, ADMIN, credentials=RIGHT)

    onboarding.change_keys(session, host.installation, None, ADMIN)

    report = storage_tests.newest_test(session, host.installation.settings)
    assert report is not None
    assert report.finding(Step.CREDENTIALS).outcome is StepOutcome.FAILED


def test_a_bucket_that_is_missing_is_a_hurdle_of_its_own(
    session: Session, host: Host, seaweedfs: S3Server
) -> None:
    absent = seaweedfs.address(bucket="absent-bucket")

    with pytest.raises(StorageError, match="absent-bucket") as raised:
        onboarding.choose_storage(session, host.installation, absent, ADMIN, credentials=RIGHT)

    assert engine.hurdle_of(absent, host.installation.settings, raised.value) is Hurdle.PLACE
