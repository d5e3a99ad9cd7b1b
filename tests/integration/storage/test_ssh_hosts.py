"""A storage over ssh on hosts that are set up oddly, and in processes that live long, fork or hang."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import (
    ObjectMissing,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from backup_admin.storage import ssh, ssh_keys
from backup_admin.storage.base import ObjectInfo, PutResult
from backup_admin.storage.retrying import Retries
from backup_admin.storage.ssh import SshStorage
from backup_admin.storage.ssh_keys import shown_keys
from backup_admin.storage.ssh_link import SshLink
from backup_admin.storage.ssh_place import parse_ssh_address
from tests.proof.mounts import mounted, skip_unless_mounts_work
from tests.services.s3 import kill
from tests.services.ssh import SshServer, start_sshd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backup_admin.storage.ssh_keys import HostKey
    from backup_admin.storage.ssh_place import SshPlace

pytestmark = pytest.mark.integration

LARGE = os.urandom(2 << 20)
_NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "objects"
    folder.mkdir()
    return folder


@pytest.fixture
def storage(sshd: SshServer, folder: Path, tmp_path: Path) -> Iterator[SshStorage]:
    opened = open_at(sshd.address(folder), tmp_path)
    yield opened
    opened.close()


def open_at(address: str, tmp_path: Path) -> SshStorage:
    link = SshLink(parse_ssh_address(address), tmp_path / "own", allow_private=True)
    return SshStorage(link, retries=Retries(attempts=3, sleep=lambda _: None))


@contextmanager
def a_host(config: pytest.Config, tmp_path: Path, folder: Path, more: str) -> Iterator[SshStorage]:
    process, server = start_sshd(config, tmp_path, more=more)
    opened = open_at(server.address(folder), tmp_path)
    try:
        yield opened
    finally:
        opened.close()
        kill(process)


def wrapper(tmp_path: Path, line: str) -> str:
    """Return the setting that has every command run through a script."""
    script = tmp_path / "wrapper"
    script.write_text(f"#!/bin/sh\n{line}\n")
    script.chmod(0o755)
    return f"ForceCommand {script}\n"


def connections() -> list[int]:
    """Return the processes of ssh that this process started."""
    shown = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "pid=,comm="], capture_output=True, text=True, check=False
    )
    return [int(row.split()[0]) for row in shown.stdout.splitlines() if row.split()[1] == "ssh"]


@pytest.mark.parametrize(
    "setting", ["TIME_STYLE=long-iso", "BLOCK_SIZE=1M", "QUOTING_STYLE=shell-always", "LS_BLOCK_SIZE=K"]
)
def test_what_the_far_user_set_for_ls_hides_no_object(
    pytestconfig: pytest.Config, tmp_path: Path, folder: Path, setting: str
) -> None:
    with a_host(pytestconfig, tmp_path, folder, f"SetEnv {setting}\n") as storage:
        storage.put("a/b", b"12345")
        storage.put("packs/1", LARGE)

        assert list(storage.list_objects("")) == [ObjectInfo("a/b", 5), ObjectInfo("packs/1", len(LARGE))]
        assert storage.get("packs/1") == LARGE


def test_a_list_that_nobody_can_read_is_no_empty_list(
    pytestconfig: pytest.Config, tmp_path: Path, folder: Path
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    real = shutil.which("ls")
    (programs / "ls").write_text(f'#!/bin/sh\n{real} --time-style=long-iso "$@"\n')
    (programs / "ls").chmod(0o755)
    more = wrapper(tmp_path, f'PATH={programs}:$PATH exec sh -c "$SSH_ORIGINAL_COMMAND"')
    with a_host(pytestconfig, tmp_path, folder, more) as storage:
        storage.put("a", b"x")

        with pytest.raises(StorageError, match="lists in a way that nobody can read"):
            list(storage.list_objects(""))


def test_a_login_shell_that_talks_is_told_and_the_folder_not_called_missing(
    pytestconfig: pytest.Config, tmp_path: Path, folder: Path
) -> None:
    more = wrapper(tmp_path, 'echo Welcome; exec sh -c "$SSH_ORIGINAL_COMMAND"')
    with a_host(pytestconfig, tmp_path, folder, more) as storage:
        for act in (storage.is_made, storage.make, lambda: storage.stat("a")):
            with pytest.raises(StorageError, match=r"Welcome.* unasked"):
                act()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else on the host")
class TestOfAnotherUser:
    """The far user may not do everything in the folder."""

    @pytest.fixture
    def theirs(self, pytestconfig: pytest.Config, tmp_path: Path, folder: Path) -> Iterator[SshStorage]:
        for path in (folder, *folder.parents):
            if path.owner() == "root" and path != Path("/tmp"):
                path.chmod(path.stat().st_mode | 0o055)
        become = f"exec setpriv --reuid={_NOBODY} --regid={_NOBODY} --clear-groups"
        more = wrapper(tmp_path, f'{become} sh -c "$SSH_ORIGINAL_COMMAND"')
        with a_host(pytestconfig, tmp_path, folder, more) as storage:
            yield storage

    def test_a_folder_of_another_user_is_no_key_that_is_not_let_in(self, theirs: SshStorage) -> None:
        for data in (b"x", LARGE):
            with pytest.raises(StorageDenied, match="far user may not do that"):
                theirs.put("a", data)

    def test_an_object_of_another_user_is_there_and_cannot_be_read(
        self, theirs: SshStorage, folder: Path
    ) -> None:
        (folder / "a").write_bytes(b"x")
        (folder / "a").chmod(0o600)

        assert theirs.stat("a") == ObjectInfo("a", 1)
        with pytest.raises(StorageError, match="cannot be read: look at its owner") as raised:
            theirs.get("a")
        assert not isinstance(raised.value, StorageUnavailable | ObjectMissing)

    def test_what_a_closed_folder_holds_is_not_called_missing(self, theirs: SshStorage, folder: Path) -> None:
        (folder / "chain").mkdir()
        (folder / "chain" / "1").write_bytes(b"x")
        (folder / "chain").chmod(0o700)

        for act in (lambda: theirs.stat("chain/1"), lambda: theirs.get("chain/1")):
            with pytest.raises(StorageDenied, match="far user may not do that"):
                act()
        assert theirs.stat("packs/1") is None

    def test_an_object_that_may_not_be_deleted_says_nothing_of_links(
        self, theirs: SshStorage, folder: Path
    ) -> None:
        (folder / "a").write_bytes(b"x")
        folder.chmod(0o1777)

        with pytest.raises(StorageDenied, match="far user may not do that"):
            theirs.delete("a")


def _lock_with_passphrase(key: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(key)], check=True)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda key: key.chmod(0o644), "bad permissions"),
        (lambda key: key.write_bytes(key.read_bytes()[:100]), "cannot be used"),
        (_lock_with_passphrase, "incorrect passphrase"),
    ],
)
def test_a_key_file_that_cannot_be_used_is_not_called_one_that_is_not_let_in(
    sshd: SshServer, folder: Path, tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    key = tmp_path / "key"
    shutil.copy(sshd.identity, key)
    spoil(key)
    opened = open_at(sshd.address(folder, identity=str(key)), tmp_path)

    with pytest.raises(StorageDenied, match=said) as raised:
        opened.stat("a")

    assert f"The key file {key} cannot be used" in str(raised.value)
    opened.close()


def test_a_transfer_that_found_no_room_leaves_the_room_there_was(sshd: SshServer, tmp_path: Path) -> None:
    skip_unless_mounts_work(tmp_path / "probe", "tmpfs")
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=3m", "tmpfs") as disk:
        opened = open_at(sshd.address(disk / "objects"), tmp_path)
        opened.make()
        with pytest.raises(StorageFull):
            opened.put("packs/1", os.urandom(5 << 20))

        assert opened.put("chain/1", os.urandom(300_000)) is PutResult.STORED
        assert list(opened.leftovers()) == []
        opened.close()


def test_a_storage_that_nobody_uses_any_more_ends_its_connection_at_once(
    sshd: SshServer, folder: Path, tmp_path: Path
) -> None:
    before = connections()
    opened = open_at(sshd.address(folder), tmp_path)
    opened.put("packs/1", LARGE)
    assert len(connections()) > len(before)

    del opened

    assert connections() == before


def test_a_process_that_is_forked_off_leaves_the_connection_alone(storage: SshStorage, folder: Path) -> None:
    storage.put("a", b"x")
    mine = connections()
    child = os.fork()
    if child == 0:
        try:
            storage.put("of-the-child", b"x")
            storage.close()
        finally:
            os._exit(0)
    for _ in range(200):
        assert storage.stat("a") == ObjectInfo("a", 1)
    os.waitpid(child, 0)

    assert connections() == mine
    assert storage.put("packs/1", LARGE) is PutResult.STORED
    assert (folder / "of-the-child").read_bytes() == b"x"


def test_settings_that_were_swept_from_the_temporary_folder_are_written_anew(storage: SshStorage) -> None:
    storage.put("a", b"x")
    settings = storage._link._settings()
    shutil.rmtree(settings.parent)

    assert storage.put("b", b"x") is PutResult.STORED
    assert storage.put("packs/1", LARGE) is PutResult.STORED


def test_an_object_that_is_missing_costs_no_connection(storage: SshStorage) -> None:
    storage.put("a", b"x")
    mine = connections()

    with pytest.raises(ObjectMissing):
        storage.get("b")

    assert connections() == mine


def test_a_connection_that_hangs_is_given_up(
    storage: SshStorage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.put("a", b"x")
    monkeypatch.setattr(ssh, "_STORING_SECONDS", 2.0)
    for process in connections():
        os.kill(process, signal.SIGSTOP)
    began = time.monotonic()

    assert storage.put("b", b"x") is PutResult.STORED

    assert time.monotonic() - began < 10
    assert (folder / "b").read_bytes() == b"x"


def test_who_holds_the_connection_for_others_does_not_wait_for_what_nobody_takes(
    storage: SshStorage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "_STORING_SECONDS", 10.0)
    with storage._link.shell(), storage._link.shell():
        pass  # the one that was first is used next
    folder.rename(folder.with_name("elsewhere"))
    began = time.monotonic()

    with pytest.raises(StorageUnavailable, match="folder is not there"):
        storage.put("a", LARGE * 8, if_absent=False)

    assert time.monotonic() - began < 8


def test_a_host_that_lets_in_one_at_a_time_is_asked_one_thing_at_a_time(
    pytestconfig: pytest.Config, tmp_path: Path, folder: Path
) -> None:
    process, server = start_sshd(pytestconfig, tmp_path, more="MaxStartups 1\n")
    link = SshLink(parse_ssh_address(server.address(folder)), tmp_path / "own", allow_private=True)
    storage = SshStorage(link, retries=Retries(first_seconds=0.1, attempts=6))
    try:
        assert storage.put("a", b"x") is PutResult.STORED
    finally:
        storage.close()
        kill(process)


def test_a_host_that_shows_no_key_at_first_is_asked_again(
    storage: SshStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def shown_later(place: SshPlace) -> Iterator[HostKey]:
        looks.append(1)
        return shown_keys(place) if len(looks) > 1 else iter(())

    monkeypatch.setattr(ssh_keys, "shown_keys", shown_later)

    assert storage.put("a", b"x") is PutResult.STORED
    assert len(looks) == 2


def test_a_host_too_busy_to_show_the_key_in_the_address_is_not_called_another(
    sshd: SshServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, real = tmp_path / "programs", shutil.which("ssh-keyscan")
    programs.mkdir()
    # Shows another key first, and twice not the one that is wanted.
    (programs / "ssh-keyscan").write_text(f"""#!/bin/sh
case " $* " in
*" ed25519 "*) echo "host ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAA" ;;
*) echo >>{tmp_path}/asked
   [ $(wc -l <{tmp_path}/asked) -gt 2 ] || exit 1
   {real} -p {sshd.port} -t ed25519 127.0.0.1 ;;
esac
""")
    (programs / "ssh-keyscan").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    storage = open_at(sshd.address(folder), tmp_path)

    assert storage.put("a", b"x") is PutResult.STORED
    storage.close()
