"""What a local folder promises beyond the contract: durable, whole, and honest when it cannot."""

from __future__ import annotations

import errno
import os
import signal
import stat
from pathlib import Path

import pytest

from backup_admin.core.errors import StorageDenied, StorageError, StorageFull, StorageUnavailable
from backup_admin.storage.base import PutResult
from backup_admin.storage.local import LocalStorage


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    made = LocalStorage(tmp_path / "objects")
    made.make()
    return made


def files(storage: LocalStorage) -> list[str]:
    return sorted(path.name for path in storage.folder.rglob("*") if path.is_file())


def test_a_folder_that_is_not_there_is_never_taken_for_an_empty_one(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "not mounted")

    for act in (
        lambda: storage.put("a", b"x"),
        lambda: storage.put("a", b"x", if_absent=False),
        lambda: storage.get("a"),
        lambda: storage.stat("a"),
        lambda: list(storage.list_objects("")),
        lambda: storage.delete("a"),
    ):
        with pytest.raises(StorageUnavailable, match="is not there"):
            act()
    assert not storage.folder.exists()


def test_making_it_twice_leaves_what_is_inside(storage: LocalStorage) -> None:
    storage.put("a", b"x")

    storage.make()

    assert storage.get("a") == b"x"
    assert stat.S_IMODE(storage.folder.stat().st_mode) == 0o700


def test_objects_and_folders_are_for_the_owner_alone(storage: LocalStorage) -> None:
    storage.put("packs/ab/cd", b"x")

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in storage.folder.rglob("*")}

    assert modes == {"packs": 0o700, "ab": 0o700, "cd": 0o600}


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EACCES, StorageDenied),
        (errno.EROFS, StorageDenied),
        (errno.EIO, StorageError),
        (errno.EMFILE, StorageError),
    ],
)
@pytest.mark.parametrize("call", ["open", "write", "fsync", "link"])
def test_a_put_that_fails_leaves_nothing_and_works_again_later(
    storage: LocalStorage,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[StorageError],
    call: str,
) -> None:
    storage.put("packs/one", b"first")

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(StorageError) as caught:
            storage.put("packs/two", b"second")

    assert type(caught.value) is kind
    assert files(storage) == ["one"]
    assert storage.put("packs/two", b"second") is PutResult.STORED


def test_a_put_syncs_the_file_then_links_it_then_syncs_each_folder(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, link = os.fsync, os.link

    def seen_fsync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        events.append(f"sync {'file' if path.is_file() else path.name}")
        fsync(handle)

    def seen_link(source: Path, target: Path) -> None:
        events.append("link")
        link(source, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "link", seen_link)

    storage.put("packs/ab/cd", b"x")

    assert events == ["sync objects", "sync packs", "sync file", "link", "sync ab"]


def test_what_a_killed_put_leaves_is_no_object(storage: LocalStorage) -> None:
    child = os.fork()
    if child == 0:
        os.link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        storage.put("packs/one", b"x")
        os._exit(1)
    _, status = os.waitpid(child, 0)

    assert os.WTERMSIG(status) == signal.SIGKILL
    assert [name[:5] for name in files(storage)] == [".tmp-"]
    assert list(storage.list_objects("")) == []
    assert storage.stat("packs/one") is None
    assert storage.put("packs/one", b"x") is PutResult.STORED


def test_free_space_is_known(storage: LocalStorage) -> None:
    assert (storage.free_bytes() or 0) > 0


def test_a_path_that_is_a_file_is_no_storage(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StorageUnavailable):
        LocalStorage(tmp_path / "file").put("a", b"x")
