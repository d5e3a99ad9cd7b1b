"""A tree is written exactly, and nothing is written outside its root."""

from __future__ import annotations

import errno
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import RestoreRefused, SourceError
from backup_admin.sources import beneath
from backup_admin.sources import tree as tree_module
from backup_admin.sources.base import EntryKind, FoundEntry
from backup_admin.sources.files import FileSource
from backup_admin.sources.tree import TreeWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TIME = 1_234_567_890_123_456_789


@pytest.fixture(params=["openat2", "component by component"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run every test with and without the kernel's help."""
    if request.param == "openat2":
        if not beneath._has_openat2():
            pytest.skip("the kernel has no openat2")
    else:
        monkeypatch.setattr(beneath, "_has_openat2", lambda: False)
    return str(request.param)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "deep/er/root"


@pytest.fixture
def tree(root: Path) -> Iterator[TreeWriter]:
    with TreeWriter(root) as writer:
        yield writer


def put(tree: TreeWriter, path: bytes, data: bytes = b"data", mode: int = 0o644) -> None:
    with tree.file(path, mode, TIME, len(data)) as file:
        file.write(data)


def everything(root: Path) -> dict[bytes, tuple[EntryKind, int, int, int, bytes]]:
    return {
        item.path: (item.kind, item.size, item.mode, item.mtime_ns, item.link_target)
        for item in FileSource("x", root).walk()
        if isinstance(item, FoundEntry)
    }


def test_a_tree_is_written_exactly(tree: TreeWriter, root: Path) -> None:
    tree.folder(b"a", 0o750, TIME + 1)
    tree.folder(b"a/b", 0o500, TIME + 2)
    put(tree, b"a/b/file", b"hello", 0o640)
    tree.symlink(b"a/link", b"../../outside \xff", TIME + 3)
    tree.hardlink(b"a/other", b"a/b/file")
    tree.finish(0o755, TIME + 4)

    file = (EntryKind.FILE, 5, 0o640, TIME, b"")
    link = (EntryKind.SYMLINK, 15, 0o777, TIME + 3, b"../../outside \xff")
    assert everything(root) == {
        b"a": (EntryKind.FOLDER, 0, 0o750, TIME + 1, b""),
        b"a/b": (EntryKind.FOLDER, 0, 0o500, TIME + 2, b""),
        b"a/b/file": file,
        b"a/link": link,
        b"a/other": file,
    }
    assert (root / "a/b/file").samefile(root / "a/other")
    assert (root.stat().st_mode & 0o7777, root.stat().st_mtime_ns) == (0o755, TIME + 4)


def test_nothing_is_open_to_others_before_it_is_finished(tree: TreeWriter, root: Path) -> None:
    tree.folder(b"a", 0o755, TIME)
    with tree.file(b"a/file", 0o644, TIME, 1) as file:
        assert (root / "a/file").stat().st_mode & 0o777 == 0o600
        assert (root / "a").stat().st_mode & 0o777 == 0o700
        assert root.stat().st_mode & 0o777 == 0o700
        os.pwrite(file.fd, b"x", 0)


def test_special_bits_are_not_given_back(tree: TreeWriter, root: Path) -> None:
    tree.folder(b"a", 0o7777, TIME)
    put(tree, b"a/file", mode=0o7755)
    tree.finish(0o7777, TIME)

    modes = [stat.S_IMODE(path.stat().st_mode) for path in (root, root / "a", root / "a/file")]
    assert modes == [0o777, 0o777, 0o755]


HOSTILE = [b"", b"/", b"/etc/x", b"..", b"../x", b"a/../../x", b"a//b", b"a/", b"./a", b"a\0b", b"x" * 256]


@pytest.mark.parametrize("path", [*HOSTILE, b"/".join([b"d"] * 257)])
def test_hostile_paths_are_refused(tree: TreeWriter, tmp_path: Path, path: bytes) -> None:
    put(tree, b"good")
    with pytest.raises(RestoreRefused):
        put(tree, path)
    with pytest.raises(RestoreRefused):
        tree.folder(path, 0o755, TIME)
    with pytest.raises(RestoreRefused):
        tree.symlink(path, b"x", TIME)
    with pytest.raises(RestoreRefused):
        tree.hardlink(path, b"good")
    with pytest.raises(RestoreRefused):
        tree.hardlink(b"link", path)

    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["good"]


@pytest.mark.parametrize(
    "name", [b"\xff\xfe", b"line\nbreak", b"\x1b[31m", "\u202egpj.exe".encode(), b"-rf", b"\\", b"..\\x"]
)
def test_odd_names_come_back_exactly(tree: TreeWriter, root: Path, name: bytes) -> None:
    tree.folder(name, 0o755, TIME)
    put(tree, name + b"/" + name)
    tree.finish(0o755, TIME)

    assert list(everything(root)) == [name, name + b"/" + name]


def test_case_and_unicode_twins_are_both_written_or_refused(tree: TreeWriter, root: Path) -> None:
    put(tree, b"A", b"1")
    put(tree, b"a", b"2")
    put(tree, "é".encode(), b"3")
    put(tree, "e\u0301".encode(), b"4")

    assert sorted(path.read_bytes() for path in root.iterdir()) == [b"1", b"2", b"3", b"4"]


def test_the_same_path_twice_is_refused(tree: TreeWriter, root: Path) -> None:
    put(tree, b"file", b"first")
    tree.folder(b"folder", 0o755, TIME)
    tree.symlink(b"link", b"x", TIME)

    with pytest.raises(RestoreRefused):
        put(tree, b"file", b"second")
    with pytest.raises(RestoreRefused):
        tree.folder(b"folder", 0o755, TIME)
    with pytest.raises(RestoreRefused):
        tree.symlink(b"link", b"y", TIME)
    with pytest.raises(RestoreRefused):
        put(tree, b"folder")
    with pytest.raises(RestoreRefused):
        tree.folder(b"file", 0o755, TIME)
    with pytest.raises(RestoreRefused):
        tree.hardlink(b"folder", b"file")

    assert (root / "file").read_bytes() == b"first"


def test_a_path_under_a_file_is_refused(tree: TreeWriter) -> None:
    put(tree, b"file")

    with pytest.raises(RestoreRefused):
        put(tree, b"file/inner")
    with pytest.raises(RestoreRefused):
        tree.folder(b"file/inner", 0o755, TIME)
    with pytest.raises(RestoreRefused):
        tree.symlink(b"file/inner", b"x", TIME)


def test_a_path_under_a_symlink_never_goes_through_it(tree: TreeWriter, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    tree.symlink(b"link", os.fsencode(outside), TIME)
    put(tree, b"link/inner")

    with pytest.raises(RestoreRefused, match="there already"):
        tree.finish(0o755, TIME)

    assert list(outside.iterdir()) == []


def test_symlinks_in_a_used_folder_are_not_followed(tmp_path: Path, root: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(b"victim")
    root.mkdir(parents=True)
    (root / "way").symlink_to(outside)
    (root / "file").symlink_to(outside / "victim")
    with TreeWriter(root) as tree:
        acts: list[Callable[[], None]] = [
            lambda: put(tree, b"way/new"),
            lambda: tree.folder(b"way", 0o755, TIME),
            lambda: tree.folder(b"way/new", 0o755, TIME),
            lambda: put(tree, b"file"),
            lambda: tree.hardlink(b"link", b"way/victim"),
            lambda: tree.hardlink(b"link", b"file"),
            lambda: tree.symlink(b"way/link", b"x", TIME),
        ]
        for act in acts:
            with pytest.raises((RestoreRefused, SourceError)):
                act()

    assert [path.name for path in outside.iterdir()] == ["victim"]
    assert (outside / "victim").read_bytes() == b"victim"
    assert (outside / "victim").stat().st_nlink == 1


def test_a_symlink_that_stays_inside_is_not_followed_either(root: Path) -> None:
    (root / "real").mkdir(parents=True)
    (root / "way").symlink_to("real")
    with TreeWriter(root) as tree, pytest.raises(RestoreRefused):
        put(tree, b"way/file")

    assert list((root / "real").iterdir()) == []


@pytest.mark.usefixtures("ordinary_user")
def test_folders_nobody_may_enter_are_finished_all_the_same(tree: TreeWriter, root: Path) -> None:
    tree.folder(b"closed", 0, TIME)
    tree.folder(b"closed/inner", 0o500, TIME)
    put(tree, b"closed/inner/file", mode=0)
    tree.finish(0o755, TIME)

    assert (root / "closed").stat().st_mode & 0o777 == 0
    (root / "closed").chmod(0o700)
    assert (root / "closed/inner").stat().st_mode & 0o777 == 0o500


def test_a_file_that_was_there_is_neither_overwritten_nor_linked(root: Path) -> None:
    root.mkdir(parents=True)
    (root / "mine").write_bytes(b"mine")
    with TreeWriter(root) as tree:
        put(tree, b"new")
        tree.hardlink(b"fine", b"new")

        with pytest.raises(RestoreRefused):
            put(tree, b"mine")
        with pytest.raises(RestoreRefused):
            tree.hardlink(b"link", b"mine")

    assert (root / "mine").read_bytes() == b"mine"
    assert (root / "mine").stat().st_nlink == 1


def test_only_files_are_linked(tree: TreeWriter, root: Path) -> None:
    tree.folder(b"folder", 0o755, TIME)
    os.mkfifo(root / "pipe")

    for existing in (b"folder", b"pipe", b"gone"):
        with pytest.raises((RestoreRefused, SourceError)):
            tree.hardlink(b"link", existing)


def test_a_root_that_is_a_symlink_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")

    for create in (True, False):
        with pytest.raises((RestoreRefused, SourceError)):
            TreeWriter(tmp_path / "link", create=create)


def test_a_missing_root_is_only_made_when_asked(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        TreeWriter(tmp_path / "gone", create=False)

    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("data", [b"", b"shor", b"longer"])
def test_a_file_of_another_size_is_refused_and_removed(tree: TreeWriter, root: Path, data: bytes) -> None:
    def write() -> None:
        with tree.file(b"file", 0o644, TIME, 5) as file:
            file.write(data)

    with pytest.raises(RestoreRefused):
        write()

    assert list(root.iterdir()) == []


def test_a_file_longer_than_declared_is_never_written_so_far(tree: TreeWriter, root: Path) -> None:
    sizes = []

    def write() -> None:
        with tree.file(b"file", 0o644, TIME, 5) as file:
            file.write(b"12345")
            try:
                file.write(b"6")
            finally:
                sizes.append((root / "file").stat().st_size)

    with pytest.raises(RestoreRefused, match="longer"):
        write()

    assert sizes == [5]


def test_a_block_that_fails_leaves_no_file(tree: TreeWriter, root: Path) -> None:
    def write() -> None:
        with tree.file(b"file", 0o644, TIME, 5):
            raise KeyError

    with pytest.raises(KeyError):
        write()

    assert list(root.iterdir()) == []


def test_folders_on_the_way_are_made_and_can_be_named_later(tree: TreeWriter, root: Path) -> None:
    put(tree, b"a/b/file")
    tree.folder(b"a", 0o711, TIME)
    tree.finish(0o755, TIME)

    assert everything(root)[b"a"][2:4] == (0o711, TIME)
    assert (root / "a/b/file").read_bytes() == b"data"


def test_many_threads_write_one_tree(tree: TreeWriter, root: Path) -> None:
    start = threading.Barrier(8)

    def work(worker: int) -> None:
        start.wait()
        for number in range(50):
            put(tree, b"shared/%d/deep/%d" % (number % 7, worker * 50 + number), b"%d" % number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    tree.finish(0o755, TIME)

    assert sum(1 for entry in everything(root).values() if entry[0] is EntryKind.FILE) == 400


def test_a_full_disk_is_an_error_with_the_name(tree: TreeWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, **_times: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "utime", full)
    with pytest.raises(SourceError, match="file could not be finished: No space left"):
        put(tree, b"file")


def test_a_folder_exchanged_for_a_symlink_meanwhile_leads_nowhere(
    tree: TreeWriter, root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    stop = threading.Event()

    def attack() -> None:
        while not stop.is_set():
            (root / "way").rename(root / "kept")
            (root / "way").symlink_to(outside)
            (root / "way").unlink()
            (root / "kept").rename(root / "way")

    tree.folder(b"way", 0o755, TIME)
    attacker = threading.Thread(target=attack)
    attacker.start()
    refused = 0
    for number in range(2000):
        try:
            put(tree, b"way/%d" % number, b"x")
        except (RestoreRefused, SourceError):
            refused += 1
        put(tree, b"other/%d" % number, b"x")  # so that the way is opened anew each time
    stop.set()
    attacker.join()

    assert list(outside.iterdir()) == []
    assert refused > 0


def test_no_folder_stays_open_when_a_tree_is_finished(tree: TreeWriter, root: Path) -> None:
    def work(worker: int) -> None:
        for number in range(30):
            put(tree, b"%d/%d/file" % (worker, number % 3) + b"%d" % number)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tree.finish(0o755, 0)

    held = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]  # noqa: PTH208
    assert [place for place in held if place.startswith(f"{root}/")] == []
    assert len([path for path in root.rglob("file*") if path.read_bytes() == b"data"]) == 90


def test_few_files_are_synced_by_themselves_and_everything_on_the_way(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    fsync = os.fsync

    def noting(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr(tree_module, "sync_file_system", lambda _handle: pytest.fail("all was synced"))
    with TreeWriter(root, few_files=True) as tree:
        tree.folder(b"a", 0o500, TIME)
        put(tree, b"a/b/c/file")
        tree.hardlink(b"d/other name", b"a/b/c/file")
        tree.symlink(b"e/link", b"x", TIME)
        tree.finish(0o755, TIME)

    made = [path for path in root.rglob("*") if not path.is_symlink()]
    assert {path.stat().st_ino for path in (root, root.parent, *made)} <= synced
    assert (root / "a").stat().st_mode & 0o777 == 0o500
