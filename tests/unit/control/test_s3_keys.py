"""Keys of a bucket are sealed, shown by their end alone, and leave no trace when they are removed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from backup_admin.control import engine, onboarding, s3_keys
from backup_admin.control.key_change import take_new_key
from backup_admin.control.s3_keys import KeySource
from backup_admin.core.errors import BadSecret, ConfigurationError, UsageError
from backup_admin.core.secret import Secret
from backup_admin.records import StoredSetting
from backup_admin.repository.secrets import generate_application_key
from backup_admin.storage.s3 import open_s3
from backup_admin.storage.s3_place import S3Credentials
from tests.installations import ADMIN, Host, make_host

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.orm import Session

ACCESS, SECRET = "team:AKIAEXAMPLE1234", "the/secret+of a bucket"
BUCKET = "s3://backups/app?region=eu-central-1"


def keep(session: Session, host: Host, secret: str = SECRET) -> None:
    given = s3_keys.parse_keys(ACCESS, secret)
    assert given is not None
    s3_keys.write_keys(session, host.installation, given, by="Ada")
    session.commit()


def found(session: Session, host: Host) -> tuple[str, str] | None:
    keys = s3_keys.find_credentials(session, host.installation)
    return None if keys is None else (keys.access_key, keys.secret_key.reveal())


def test_what_was_given_comes_back(session: Session, bare_host: Host) -> None:
    assert found(session, bare_host) is None

    keep(session, bare_host)

    assert found(session, bare_host) == (ACCESS, SECRET)


def test_neither_key_is_in_the_database_in_clear(session: Session, bare_host: Host) -> None:
    keep(session, bare_host)

    with closing(sqlite3.connect(bare_host.installation.settings.state_dir / "state.db")) as database:
        dump = "\n".join(database.iterdump())
    assert "backup_s3_secret_key" in dump
    assert SECRET not in dump
    assert ACCESS not in dump


def test_only_the_end_of_the_access_key_is_shown(session: Session, bare_host: Host) -> None:
    settings = bare_host.installation.settings
    assert s3_keys.look_at_keys(session, settings).source is KeySource.CHAIN

    keep(session, bare_host)

    shown = s3_keys.look_at_keys(session, settings)
    assert (shown.source, shown.ends, shown.changed_by) == (KeySource.PAGE, "1234", "Ada")
    assert shown.changed_at == bare_host.clock.now()


def test_of_a_short_access_key_nothing_is_shown() -> None:
    assert s3_keys.end_of(S3Credentials("minioadmin", Secret("x"))) == ""


def test_the_shown_form_of_keys_holds_no_secret() -> None:
    assert SECRET not in repr(s3_keys.parse_keys(ACCESS, SECRET))


@pytest.mark.parametrize(
    ("access", "secret"), [("", SECRET), (ACCESS, ""), (ACCESS, "a\x00b"), ("a" * 1001, "b")]
)
def test_half_of_the_keys_or_none_that_can_be_is_refused(access: str, secret: str) -> None:
    with pytest.raises(UsageError):
        s3_keys.parse_keys(access, secret)


def test_a_sealed_key_opens_in_its_own_row_only(session: Session, bare_host: Host) -> None:
    keep(session, bare_host)
    access, secret = (
        session.get_one(StoredSetting, name) for name in (s3_keys.ACCESS_KEY, s3_keys.SECRET_KEY)
    )
    access.sealed, secret.sealed = secret.sealed, access.sealed
    session.commit()

    with pytest.raises(BadSecret):
        found(session, bare_host)


def test_the_keys_of_the_deployment_win_and_cannot_be_changed(tmp_path: Path) -> None:
    host = make_host(
        tmp_path, BACKUP_ADMIN_S3_ACCESS_KEY="pinned:key-5678", BACKUP_ADMIN_S3_SECRET_KEY="pinned"
    )
    with host.installation.database.new_session() as session:
        keep(session, host)

        assert found(session, host) == ("pinned:key-5678", "pinned")
        assert s3_keys.look_at_keys(session, host.installation.settings).source is KeySource.DEPLOYMENT
        with pytest.raises(ConfigurationError, match="S3_ACCESS_KEY sets the keys"):
            s3_keys.require_changeable(host.installation.settings, BUCKET)


@pytest.mark.parametrize("key", ["ACCESS", "SECRET"])
def test_half_of_the_deployments_keys_is_refused_at_start(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigurationError, match="belong together"):
        make_host(tmp_path, **{f"BACKUP_ADMIN_S3_{key}_KEY": "x"})


@pytest.mark.parametrize("address", ["/srv/backups", "ssh://nas/srv/backups", "s3://backups?profile=other"])
def test_keys_belong_to_a_bucket_without_a_profile(session: Session, bare_host: Host, address: str) -> None:
    keys = S3Credentials(ACCESS, Secret(SECRET))

    with pytest.raises(UsageError):
        onboarding.choose_storage(session, bare_host.installation, address, ADMIN, credentials=keys)
    assert found(session, bare_host) is None


def test_the_storage_in_use_is_opened_with_them(session: Session, bare_host: Host) -> None:
    engine.keep_address(session, bare_host.installation, BUCKET, by="Ada")
    keep(session, bare_host)

    storage = engine.open_storage(session, bare_host.installation)

    assert ACCESS.replace(":", "%3A") in storage.signed_address("x", 60)  # type: ignore[attr-defined]  # a bucket's


def test_a_profile_in_the_address_has_keys_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "credentials").write_text("[other]\naws_access_key_id = OTHER\naws_secret_access_key = x\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    keys = S3Credentials(ACCESS, Secret(SECRET))

    storage = open_s3("s3://backups?profile=other", allow_private=False, credentials=keys)

    assert "OTHER" in storage.signed_address("x", 60)


def test_a_folder_in_place_of_the_bucket_removes_its_keys(session: Session, bare_host: Host) -> None:
    engine.keep_address(session, bare_host.installation, BUCKET, by="Ada")
    keep(session, bare_host)

    onboarding.choose_storage(session, bare_host.installation, str(bare_host.folder / "storage"), ADMIN)

    assert found(session, bare_host) is None
    assert session.get(StoredSetting, s3_keys.SECRET_KEY) is None


def test_they_are_removed_without_asking_the_storage(session: Session, bare_host: Host) -> None:
    engine.keep_address(
        session, bare_host.installation, "s3://backups?endpoint=https://127.0.0.1:9", by="Ada"
    )
    keep(session, bare_host)
    installation = replace(
        bare_host.installation, settings=replace(bare_host.installation.settings, private_storage=True)
    )

    onboarding.change_keys(session, installation, None, ADMIN)

    assert found(session, bare_host) is None
    assert installation.audit().read_page()[0].action == "storage.keys"


def test_a_new_application_key_seals_them_anew(session: Session, bare_host: Host) -> None:
    keep(session, bare_host)
    old = bare_host.installation.key()
    settings = replace(bare_host.installation.settings, key=generate_application_key())
    changed = replace(bare_host.installation, settings=settings)

    assert take_new_key(session, changed, old, ADMIN).secrets == 2

    keys = s3_keys.find_credentials(session, changed)
    assert keys is not None
    assert keys.secret_key.reveal() == SECRET
    with pytest.raises(BadSecret):
        found(session, bare_host)
