"""An app whose backups go to a folder, a bucket and a host at once, on real servers."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from backup_admin.control import onboarding
from backup_admin.control.destinations import Role, read_states
from backup_admin.core.progress import QuietReporter
from backup_admin.core.secret import Secret
from backup_admin.core.state import StateFolder
from backup_admin.operations.check import check_repository
from backup_admin.operations.extract import extract
from backup_admin.records import RunStatus
from backup_admin.repository.repository import open_repository
from backup_admin.repository.secrets import parse_application_key
from backup_admin.storage.open import open_storage
from backup_admin.storage.s3_place import S3Credentials
from examples.gallery.compare import describe_tree, differences
from tests.installations import ADMIN, back_up, make_host, set_up
from tests.services.relay import relay_before
from tests.services.ssh import SshServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.installations import Host
    from tests.services.s3 import S3Server

pytestmark = pytest.mark.integration


@pytest.fixture
def bucket(seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret)
    return seaweedfs.address(uuid4().hex, create_bucket="true")


def restored_from(host: Host, address: str, out: Path) -> Path:
    secret = parse_application_key(host.installation.key().reveal())
    state = StateFolder(out.with_name(f"{out.name}-state"))
    storage = open_storage(address, state=state.root)
    repository = open_repository(storage, secret, state=state, clock=host.clock)
    assert check_repository(repository, read_data=True, reporter=QuietReporter()).problems == ()
    newest = repository.snapshot_ids()[-1]
    assert extract(repository, newest, out, reporter=QuietReporter()).ok
    return out / "files" / "uploads"


def test_one_backup_reaches_a_folder_a_bucket_and_a_host(
    tmp_path: Path, bucket: str, sshd: SshServer
) -> None:
    far = sshd.address(tmp_path / "far")
    host = make_host(tmp_path, BACKUP_ADMIN_MIRRORS=[bucket, far])
    set_up(host)
    first = back_up(host)
    (host.uploads / "later.txt").write_text("later")
    host.clock.advance(hours=1)
    second = back_up(host)

    assert (first.status, second.status) == (RunStatus.COMPLETED, RunStatus.COMPLETED), second.error_message
    for number, address in enumerate((bucket, far)):
        found = restored_from(host, address, tmp_path / f"out-{number}")
        assert differences(describe_tree(host.uploads), describe_tree(found)) == []


@pytest.mark.long(minutes=1)
def test_the_storage_goes_away_the_bucket_takes_over_and_gives_back(
    tmp_path: Path, bucket: str, sshd: SshServer
) -> None:
    with relay_before(sshd.port) as relay:
        main = SshServer(relay.port, sshd.folder, sshd.host_key).address(tmp_path / "far")
        host = make_host(tmp_path, BACKUP_ADMIN_STORAGE=main, BACKUP_ADMIN_MIRRORS=[bucket])
        set_up(host)
        assert back_up(host).status is RunStatus.COMPLETED
        port = relay.port
    (host.uploads / "while-away.txt").write_text("new")
    host.clock.advance(hours=1)
    away = back_up(host)

    assert away.status is RunStatus.DEGRADED
    assert "nothing listens" in away.error_message
    assert (
        differences(describe_tree(host.uploads), describe_tree(restored_from(host, bucket, tmp_path / "out")))
        == []
    )
    with relay_before(sshd.port, at=port):
        host.clock.advance(hours=1)
        back = back_up(host)
        assert back.status is RunStatus.COMPLETED, back.error_message
    there = sshd.address(tmp_path / "far")
    assert (
        differences(describe_tree(host.uploads), describe_tree(restored_from(host, there, tmp_path / "back")))
        == []
    )
    with host.installation.database.new_session() as session:
        states = read_states(session)
    assert [(state.role, state.problem) for state in states] == [(Role.STORAGE, ""), (Role.MIRROR, "")]


def test_keys_given_on_the_page_open_the_storage_of_an_app_with_mirrors(
    tmp_path: Path, seaweedfs: S3Server
) -> None:
    host = make_host(
        tmp_path, BACKUP_ADMIN_MIRRORS=[str(tmp_path / "mirror")], BACKUP_ADMIN_PRIVATE_STORAGE=True
    )
    keys = S3Credentials(seaweedfs.key, Secret(seaweedfs.secret))
    address = seaweedfs.address(uuid4().hex, create_bucket="true")
    with host.installation.database.new_session() as session:
        onboarding.choose_storage(session, host.installation, address, ADMIN, credentials=keys)
        made = onboarding.make_repository(session, host.installation, ADMIN)
        typed = tuple(made.groups[number - 1].reveal() for number in made.asked)
        onboarding.confirm_recovery_key(session, host.installation, typed, ADMIN)

    run = back_up(host)

    assert run.status is RunStatus.COMPLETED, run.error_message
    assert (tmp_path / "mirror" / "config").is_file()
