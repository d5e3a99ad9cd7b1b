"""A storage over ssh whose wire, host or keys fail: told apart, nothing lost, nothing half there."""

from __future__ import annotations

import os
import shutil
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import (
    ObjectMissing,
    StorageDenied,
    StorageError,
    StorageUnavailable,
    UsageError,
)
from backup_admin.storage.base import ObjectInfo, PutResult
from backup_admin.storage.retrying import Retries
from backup_admin.storage.ssh import SshStorage, open_ssh
from backup_admin.storage.ssh_errors import HostUnknown, NotLetIn
from backup_admin.storage.ssh_link import SshLink
from backup_admin.storage.ssh_place import parse_ssh_address
from tests.proof.mounts import mounted, skip_unless_mounts_work
from tests.services.relay import Relay, relay_before
from tests.services.s3 import kill
from tests.services.ssh import SshServer, start_sshd

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

LARGE = os.urandom(12 << 20)
SMALL = os.urandom(400_000)


@pytest.fixture
def relay(sshd: SshServer) -> Iterator[Relay]:
    with relay_before(sshd.port) as relay:
        yield relay


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "objects"
    folder.mkdir()
    return folder


@pytest.fixture
def storage(sshd: SshServer, relay: Relay, folder: Path, tmp_path: Path) -> Iterator[SshStorage]:
    through = SshServer(relay.port, sshd.folder, sshd.host_key)
    opened = open_at(through.address(folder), tmp_path)
    assert opened.stat("a") is None
    yield opened
    opened.close()


def open_at(address: str, tmp_path: Path, *, attempts: int = 5) -> SshStorage:
    link = SshLink(parse_ssh_address(address), tmp_path / "own", allow_private=True)
    return SshStorage(link, retries=Retries(attempts=attempts, sleep=lambda _: None))


def left_behind(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("at", [1, 70_000, 200_000])
def test_a_small_object_that_is_cut_is_sent_again_and_whole(
    storage: SshStorage, relay: Relay, folder: Path, at: int
) -> None:
    relay.cut(at + 4_000)

    assert storage.put("chain/1", SMALL) is PutResult.STORED

    assert relay.ended == 1
    assert (folder / "chain" / "1").read_bytes() == SMALL
    assert storage.stat("chain/1") == ObjectInfo("chain/1", len(SMALL))


@pytest.mark.parametrize("cuts", [(2_000_000,), (5_000_000, 5_000_000), (12_590_000,)])
def test_a_large_object_that_is_cut_goes_on_and_is_whole(
    storage: SshStorage, relay: Relay, folder: Path, cuts: tuple[int, ...]
) -> None:
    relay.cut(*cuts)

    assert storage.put("packs/ab/1", LARGE) is PutResult.STORED

    assert relay.ended == len(cuts)
    assert left_behind(folder) == ["packs/ab/1"]
    assert (folder / "packs/ab/1").read_bytes() == LARGE


def test_what_was_sent_before_a_cut_is_not_sent_again(storage: SshStorage, relay: Relay) -> None:
    relay.cut(9_000_000, 9_000_000, 9_000_000)  # the third would be reached only by sending all anew

    storage.put("packs/ab/1", LARGE)

    assert relay.ended == 1


def test_a_host_that_stays_away_is_told_and_nothing_is_there(
    storage: SshStorage, relay: Relay, folder: Path
) -> None:
    relay.close()

    with pytest.raises(StorageUnavailable, match="connection failed"):
        storage.put("chain/1", SMALL)
    with pytest.raises(StorageUnavailable, match="connection failed"):
        storage.put("packs/ab/1", LARGE)

    assert left_behind(folder) == []


def test_reading_goes_on_after_the_connection_broke(storage: SshStorage, relay: Relay) -> None:
    storage.put("packs/ab/1", LARGE)
    relay.cut_all()

    assert storage.get("packs/ab/1", 5, 3_000_000) == LARGE[5:3_000_005]
    relay.cut_all()
    assert [info.name for info in storage.list_objects("")] == ["packs/ab/1"]
    relay.cut_all()
    storage.delete("packs/ab/1")
    assert storage.stat("packs/ab/1") is None


def test_many_threads_share_a_connection_that_breaks_under_them(
    storage: SshStorage, relay: Relay, folder: Path
) -> None:
    contents = {f"packs/{number}": os.urandom(1_200_000 + number) for number in range(8)}
    contents |= {f"small/{number}": os.urandom(1_000 + number) for number in range(8)}
    results: list[PutResult] = []
    threads = [
        threading.Thread(target=lambda item=item: results.append(storage.put(*item)))
        for item in contents.items()
    ]
    for thread in threads:
        thread.start()
    for _ in range(3):
        time.sleep(0.3)
        relay.cut_all()
    for thread in threads:
        thread.join()

    assert results == [PutResult.STORED] * len(contents)
    assert {name: (folder / name).read_bytes() for name in contents} == contents


def test_the_server_may_be_started_anew_in_between(
    pytestconfig: pytest.Config, tmp_path: Path, folder: Path
) -> None:
    process, server = start_sshd(pytestconfig, tmp_path)
    opened = open_at(server.address(folder), tmp_path)
    opened.put("a", b"before")
    kill(process)
    opened.close()  # sessions outlive the server that took them in
    with pytest.raises(StorageUnavailable, match="nothing listens"):
        opened.put("b", b"while it was away")
    process, _ = start_sshd(pytestconfig, tmp_path, port=server.port)
    try:
        assert opened.put("c", b"after") is PutResult.STORED
    finally:
        opened.close()
        kill(process)

    assert left_behind(folder) == ["a", "c"]


def test_without_a_fingerprint_the_host_is_shown_and_not_used(
    sshd: SshServer, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(HostUnknown) as raised:
        open_at(sshd.address(folder, host_key=""), tmp_path).stat("a")

    assert f"shows {sshd.host_key} (ssh-ed25519)" in str(raised.value)
    assert f"then use '{raised.value.address}'" in str(raised.value)
    assert raised.value.fingerprint == sshd.host_key
    confirmed = open_at(raised.value.address, tmp_path)
    assert confirmed.put("a", b"x") is PutResult.STORED
    confirmed.close()


def test_a_host_with_another_key_is_refused(
    pytestconfig: pytest.Config, sshd: SshServer, folder: Path, tmp_path: Path
) -> None:
    process, other = start_sshd(pytestconfig, tmp_path)
    try:
        with pytest.raises(StorageDenied, match="another key") as raised:
            open_at(other.address(folder, host_key=sshd.host_key), tmp_path).put("a", b"x")
    finally:
        kill(process)

    assert other.host_key in str(raised.value)
    assert left_behind(folder) == []


def test_a_host_that_changes_its_key_while_it_is_used_is_refused(
    pytestconfig: pytest.Config, tmp_path: Path, folder: Path
) -> None:
    process, server = start_sshd(pytestconfig, tmp_path)
    with relay_before(server.port) as relay:
        through = SshServer(relay.port, server.folder, server.host_key)
        opened = open_at(through.address(folder), tmp_path)
        opened.put("a", b"before")
        kill(process)
        for name in ("host_key", "host_key.pub"):
            (tmp_path / name).unlink()
        process, _ = start_sshd(pytestconfig, tmp_path, port=server.port)
        relay.cut_all()
        try:
            with pytest.raises(StorageDenied, match="another key"):
                opened.put("b", b"after")
        finally:
            opened.close()
            kill(process)

    assert left_behind(folder) == ["a"]


def test_a_key_of_our_own_is_made_and_shown_to_be_let_in(
    pytestconfig: pytest.Config, tmp_path: Path, folder: Path
) -> None:
    process, server = start_sshd(pytestconfig, tmp_path)
    opened = open_at(server.address(folder, identity=""), tmp_path)
    try:
        with pytest.raises(NotLetIn, match="does not let us in") as raised:
            opened.stat("a")
        line = raised.value.line
        assert str(raised.value).endswith(f"of that user there: {line}")
        assert line.startswith("restrict ssh-ed25519 ")
        server.authorized_keys.write_text(f"{line}\n")

        assert opened.put("a", b"x") is PutResult.STORED
    finally:
        opened.close()
        kill(process)

    private = tmp_path / "own" / "id_ed25519"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert private.with_name("id_ed25519.pub").read_text().strip() in line
    assert sorted(path.name for path in private.parent.iterdir()) == ["id_ed25519", "id_ed25519.pub"]


def test_a_key_file_that_is_missing_is_named(sshd: SshServer, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no key file /no/such"):
        open_at(sshd.address(folder, identity="/no/such"), tmp_path).stat("a")


def test_a_port_where_nothing_listens_and_a_name_that_leads_nowhere_are_told(
    sshd: SshServer, folder: Path, tmp_path: Path
) -> None:
    closed = SshServer(1, sshd.folder, sshd.host_key)

    with pytest.raises(StorageUnavailable, match="nothing listens at port 1"):
        open_at(closed.address(folder), tmp_path).stat("a")
    with pytest.raises(StorageUnavailable, match="cannot be resolved"):
        open_at("ssh://no-such-host.invalid/srv/b", tmp_path).stat("a")


def test_a_server_that_is_no_sshd_is_told(folder: Path, tmp_path: Path, sshd: SshServer) -> None:
    with relay_before(1) as relay:  # it takes connections and ends them
        mute = SshServer(relay.port, sshd.folder, sshd.host_key)

        with pytest.raises(StorageUnavailable, match="no ssh server"):
            open_at(mute.address(folder), tmp_path).stat("a")


@pytest.mark.parametrize("host", ["169.254.169.254", "metadata.google.internal"])
def test_hosts_that_hand_out_secrets_are_refused(host: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="refused"):
        open_ssh(f"ssh://{host}/srv/b", own_folder=tmp_path, allow_private=True).stat("a")


def test_a_private_host_is_refused_where_the_deployment_says_so(sshd: SshServer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="private address"):
        open_ssh(sshd.address("/srv/b"), own_folder=tmp_path, allow_private=False).stat("a")


def test_a_folder_that_is_gone_is_no_empty_storage(storage: SshStorage, folder: Path) -> None:
    storage.put("a", b"x")
    shutil.rmtree(folder)

    for act in (
        lambda: storage.stat("a"),
        lambda: storage.get("a"),
        lambda: list(storage.list_objects("")),
        lambda: storage.put("b", SMALL),
        lambda: storage.put("b", LARGE),
        lambda: storage.delete("a"),
    ):
        with pytest.raises(StorageUnavailable, match="folder is not there"):
            act()
    assert not folder.exists()
    assert not storage.is_made()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    skip_unless_mounts_work(tmp_path / "probe", "tmpfs")
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=3m", "tmpfs") as disk:
        yield disk


def test_a_folder_without_room_is_told(sshd: SshServer, tmp_path: Path, small_disk: Path) -> None:
    opened = open_at(sshd.address(small_disk / "objects"), tmp_path)
    opened.make()
    kept = os.urandom(1_500_000)
    opened.put("packs/1", kept)

    for name, data in (("packs/2", LARGE), ("chain/1", os.urandom(900_000) * 4)):
        with pytest.raises(StorageError, match="no space is left") as raised:
            opened.put(name, data)
        assert raised.value.code == "storage_full"
        assert opened.stat(name) is None
    assert opened.get("packs/1") == kept
    assert [info.name for info in opened.list_objects("")] == ["packs/1"]
    opened.close()


def test_a_folder_that_may_not_be_written_is_told(sshd: SshServer, tmp_path: Path) -> None:
    opened = open_at(sshd.address("/proc/objects"), tmp_path)

    with pytest.raises(StorageError, match="could not be created"):
        opened.make()


def test_a_folder_of_the_home_is_found(sshd: SshServer, tmp_path: Path) -> None:
    name = f"bk-test-{os.urandom(6).hex()}"
    opened = open_at(sshd.address(f"/~/{name}"), tmp_path)
    try:
        opened.make()
        opened.put("a/b", SMALL)
        opened.put("packs/1", LARGE)
        assert opened.get("packs/1") == LARGE
        assert [info.name for info in opened.list_objects("")] == ["a/b", "packs/1"]
        with pytest.raises(ObjectMissing):
            opened.get("c")
    finally:
        opened.close()
        shutil.rmtree(Path.home() / name)


def test_a_bandwidth_is_kept(sshd: SshServer, folder: Path, tmp_path: Path) -> None:
    opened = open_at(sshd.address(folder, bandwidth="4"), tmp_path)
    opened.put("a", b"x")
    began = time.monotonic()

    opened.put("packs/1", LARGE)

    assert time.monotonic() - began > 2  # 12 MiB
    opened.close()
