"""A walk gives every entry once, in order, and touches nothing it should not."""

from __future__ import annotations

import os
import socket
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import ConfigurationError, SourceError, SourceMissing
from backup_admin.core.paths import sort_key
from backup_admin.sources import beneath
from backup_admin.sources.base import EntryKind, FoundEntry, Problem, Skipped, SkipReason
from backup_admin.sources.files import FileSource, KeptFolder

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def walk(root: Path, *exclude: str, pinned: tuple[Path, ...] = ()) -> list[FoundEntry | Skipped | Problem]:
    return list(FileSource("files", root, exclude, pinned).walk())


def found(root: Path, *exclude: str, pinned: tuple[Path, ...] = ()) -> dict[bytes, FoundEntry]:
    return {i.path: i for i in walk(root, *exclude, pinned=pinned) if isinstance(i, FoundEntry)}


def skipped(root: Path, *exclude: str, pinned: tuple[Path, ...] = ()) -> dict[bytes, SkipReason]:
    return {i.path: i.reason for i in walk(root, *exclude, pinned=pinned) if isinstance(i, Skipped)}


def database(path: Path) -> Path:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t(a)")
    connection.commit()
    connection.close()
    return path


def test_entries_come_in_the_order_of_the_sort_key(root: Path) -> None:
    for name in (b"b", b"a", b"a!", b"a-b", b"a.b", b"\xff\xfe", b"\xc3\xa9", b"B", b"a\x01"):
        (root / os.fsdecode(name)).mkdir()
        for inner in (b"z", b"\x01", b"~", b"b"):
            path = b"/".join((os.fsencode(root), name, inner))
            Path(os.fsdecode(path)).write_bytes(b"x")

    paths = [item.path for item in walk(root)]

    assert len(paths) == 9 * 5
    assert paths == sorted(paths, key=sort_key)


def test_each_kind_of_entry_is_described_whole(root: Path) -> None:
    (root / "folder").mkdir(mode=0o750)
    (root / "folder/file").write_bytes(b"hello")
    (root / "folder/file").chmod(0o640)
    os.utime(root / "folder/file", ns=(5, 1_234_567_890_123_456_789))
    (root / "link").symlink_to("/nowhere/at all")

    entries = found(root)

    status = (root / "folder/file").stat()
    assert entries[b"folder/file"] == FoundEntry(
        b"folder/file",
        EntryKind.FILE,
        5,
        0o640,
        1_234_567_890_123_456_789,
        status.st_ctime_ns,
        status.st_ino,
    )
    assert entries[b"folder"].kind is EntryKind.FOLDER
    assert entries[b"folder"].mode == 0o750
    assert entries[b"link"].kind is EntryKind.SYMLINK
    assert entries[b"link"].link_target == b"/nowhere/at all"
    assert list(entries) == [b"folder", b"folder/file", b"link"]


def test_names_of_one_file_share_a_group(root: Path) -> None:
    (root / "a").write_bytes(b"x")
    os.link(root / "a", root / "b")
    (root / "c").write_bytes(b"x")

    entries = found(root)

    status = (root / "a").stat()
    assert entries[b"a"].link_group == entries[b"b"].link_group == f"{status.st_dev}:{status.st_ino}"
    assert entries[b"c"].link_group == ""


def test_special_entries_are_skipped_and_never_opened(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))

        assert skipped(root) == {b"pipe": SkipReason.SPECIAL, b"socket": SkipReason.SPECIAL}


def test_a_symlinked_folder_is_not_entered(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"x")
    (root / "link").symlink_to(tmp_path / "outside")

    assert list(found(root)) == [b"link"]


def test_excluded_entries_are_named_and_not_entered(root: Path) -> None:
    (root / "temp/deep").mkdir(parents=True)
    (root / "a.tmp").write_bytes(b"x")
    (root / ".nfs01").write_bytes(b"x")
    (root / ".backup-admin-stage").mkdir()
    (root / "kept").write_bytes(b"x")

    assert skipped(root, "temp/", "*.tmp") == dict.fromkeys(
        (b".backup-admin-stage", b".nfs01", b"a.tmp", b"temp"), SkipReason.EXCLUDED
    )
    assert list(found(root, "temp/", "*.tmp")) == [b"kept"]


def test_a_cache_folder_is_kept_with_its_tag_only(root: Path) -> None:
    for folder in ("cache", "fake"):
        (root / folder).mkdir()
        (root / folder / "file").write_bytes(b"x")
        (root / folder / "CACHEDIR.TAG").write_bytes(b"nothing")
    tag = b"Signature: 8a477f597d28d172789f06886806bc55\n# more"
    (root / "cache/CACHEDIR.TAG").write_bytes(tag)
    (root / "CACHEDIR.TAG").write_bytes(tag)  # the root is what somebody asked for

    assert skipped(root) == {b"cache/file": SkipReason.CACHE_FOLDER}
    assert b"cache/CACHEDIR.TAG" in found(root)
    assert b"fake/file" in found(root)


def test_a_declared_database_is_skipped_with_its_sidecars(root: Path) -> None:
    for name in ("app.db", "app.db-wal", "app.db-shm", "app.db-journal", "app.db-walk"):
        (root / name).write_bytes(b"x")

    assert skipped(root, pinned=(root / "app.db",)) == dict.fromkeys(
        (b"app.db", b"app.db-journal", b"app.db-shm", b"app.db-wal"), SkipReason.DECLARED_DATABASE
    )
    assert list(found(root, pinned=(root / "app.db",))) == [b"app.db-walk"]


def test_a_declared_database_is_known_by_any_name(root: Path, tmp_path: Path) -> None:
    (root / "real").mkdir()
    database(root / "real/app.db")
    os.link(root / "real/app.db", root / "alias.db")
    (tmp_path / "elsewhere").symlink_to(root / "real")

    result = skipped(root, pinned=(tmp_path / "elsewhere/app.db",))

    assert result == dict.fromkeys((b"alias.db", b"real/app.db"), SkipReason.DECLARED_DATABASE)


def test_a_pinned_folder_is_skipped_as_a_whole(root: Path) -> None:
    (root / "state/deep").mkdir(parents=True)
    (root / "state/deep/file").write_bytes(b"x")

    assert walk(root, pinned=(root / "state",)) == [Skipped(b"state", SkipReason.PINNED)]


def test_nothing_pinned_is_ever_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database(root / "app.db")
    (root / "app.db-wal").write_bytes(b"w" * 512)
    database(root / "other.db")
    (root / "state").mkdir()
    opened = []
    real = os.open

    def spy(path: str | bytes, *rest: object, **more: object) -> int:
        opened.append(os.fsencode(path).rpartition(b"/")[2])
        return real(path, *rest, **more)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(os, "open", spy)
    walk(root, pinned=(root / "app.db", root / "state"))

    assert b"other.db" in opened
    assert not {b"app.db", b"app.db-wal", b"state"} & set(opened)


def test_an_undeclared_database_is_recognised_with_its_sidecars(root: Path) -> None:
    database(root / "other.db")
    for name in ("other.db-wal", "other.db-shm", "other.db-journal", "unrelated-wal"):
        (root / name).write_bytes(b"x")
    (root / "block").write_bytes(b"y" * 1024)
    (root / "other.db-a").write_bytes(b"x")

    entries = found(root)

    assert {path for path, entry in entries.items() if entry.is_database} == {b"other.db"}
    assert set(entries) == {b"other.db", b"block", b"unrelated-wal", b"other.db-a"}
    assert set(skipped(root).values()) == {SkipReason.SIDECAR}


def test_only_files_that_could_be_databases_are_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "picture.jpg").write_bytes(b"x" * 1000)
    (root / "empty").write_bytes(b"")
    opened: list[object] = []
    real = os.open

    def spy(path: str | bytes, *rest: object, **more: object) -> int:
        opened.append(path)
        return real(path, *rest, **more)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(os, "open", spy)
    walk(root)

    assert {os.fspath(path) for path in opened if isinstance(path, str | Path)} == {str(root)}
    assert not [path for path in opened if isinstance(path, bytes)]


def test_files_that_are_known_are_neither_given_nor_opened(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "folder").mkdir()
    for name in ("block", "folder/block", "new", "other.db", "other.db-wal", "pinned"):
        (root / name).write_bytes(b"x" * 512)
    os.link(root / "pinned", tmp_path / "elsewhere")
    asked, opened = [], []
    real = os.open

    def holds(path: bytes, found: os.stat_result) -> bool:
        asked.append((path, found.st_size))
        return path != b"new"

    def spy(path: str | bytes, *rest: object, **more: object) -> int:
        opened.append(path)
        return real(path, *rest, **more)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(os, "open", spy)

    items = list(FileSource("files", root, (), (tmp_path / "elsewhere",)).walk(holds))

    # One with a journal beside it may be another than its times say.
    assert asked == [(b"block", 512), (b"folder/block", 512), (b"new", 512), (b"other.db-wal", 512)]
    assert [item.path for item in items] == [b"folder", b"new", b"other.db", b"pinned"]
    assert b"block" not in opened
    assert b"new" in opened


@pytest.mark.parametrize(("journal", "is_quiet"), [(b"", True), (b"x", False), (None, True)])
def test_a_database_is_quiet_when_its_journals_hold_nothing(
    root: Path, journal: bytes | None, is_quiet: bool
) -> None:
    database(root / "other.db")
    (root / "other.db-shm").write_bytes(b"always something")
    if journal is not None:
        (root / "other.db-wal").write_bytes(journal)

    assert found(root)[b"other.db"].is_quiet is is_quiet


def test_a_missing_root_is_an_error_at_once(root: Path) -> None:
    source = FileSource("uploads", root / "gone")

    with pytest.raises(SourceMissing, match="uploads"):
        source.check_root()
    with pytest.raises(SourceMissing, match="uploads"):
        source.walk()


def test_a_file_is_no_root(root: Path) -> None:
    (root / "file").write_bytes(b"x")

    with pytest.raises(SourceMissing):
        FileSource("uploads", root / "file").walk()


@pytest.mark.usefixtures("ordinary_user")
def test_a_root_that_cannot_be_listed_is_an_error(root: Path) -> None:
    root.chmod(0)

    with pytest.raises(SourceMissing, match="Permission denied"):
        FileSource("uploads", root).walk()


@pytest.mark.usefixtures("ordinary_user")
def test_a_folder_that_cannot_be_listed_is_a_problem(root: Path) -> None:
    (root / "closed").mkdir(mode=0)
    (root / "open").mkdir()

    items = walk(root)

    assert [type(item) for item in items] == [FoundEntry, Problem, FoundEntry]
    assert items[1] == Problem(b"closed", "The folder cannot be listed: Permission denied.")


@pytest.mark.usefixtures("ordinary_user")
def test_a_folder_that_cannot_be_searched_makes_problems(root: Path) -> None:
    (root / "half").mkdir()
    (root / "half/file").write_bytes(b"x")
    (root / "half").chmod(0o400)

    assert Problem(b"half/file", "Permission denied.") in walk(root)


@pytest.mark.usefixtures("ordinary_user")
def test_a_file_that_cannot_be_read_is_found_and_fails_to_open(root: Path) -> None:
    (root / "closed").write_bytes(b"x" * 512)
    (root / "closed").chmod(0)
    source = FileSource("files", root)
    entry = found(root)[b"closed"]

    with pytest.raises(SourceError, match="closed cannot be read: Permission denied"), source.open(entry):
        pass


def test_a_root_inside_a_pinned_folder_is_refused(root: Path) -> None:
    (root / "inner").mkdir()

    for pinned in (root, root / "inner"):
        with pytest.raises(ConfigurationError):
            FileSource("files", root / "inner", pinned=(pinned,)).check_root()


def test_a_file_is_read_whole_and_known_to_be_unchanged(root: Path) -> None:
    data = os.urandom(300_000)
    (root / "file").write_bytes(data)
    source = FileSource("files", root)
    buffer = bytearray(1 << 16)
    result = b""

    with source.open(found(root)[b"file"]) as file:
        while count := file.readinto(buffer):
            result += buffer[:count]
        assert file.unchanged()

    assert result == data


@pytest.mark.parametrize("now", [b"", b"ol", b"older", b"x" * 70_000])
def test_a_file_is_read_to_its_end_also_when_it_has_another_size_by_now(root: Path, now: bytes) -> None:
    (root / "file").write_bytes(b"old")
    source = FileSource("files", root)
    entry = found(root)[b"file"]
    (root / "file").write_bytes(now)
    buffer = bytearray(1 << 16)
    result = b""

    with source.open(entry) as file:
        while count := file.readinto(buffer):
            result += buffer[:count]
        assert not file.unchanged()

    assert result == now


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  pathlib opens one itself


def test_a_kept_folder_serves_one_file_after_the_other_and_is_closed_at_the_end(root: Path) -> None:
    for path in ("a/one", "a/two", "a/b/three", "four", "a/five"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    source, entries = FileSource("files", root), found(root)
    before = open_files()

    with KeptFolder() as kept:
        for wanted in (b"a/one", b"a/two", b"a/b/three", b"four", b"a/five"):
            with source.open(entries[wanted], kept) as file:
                buffer = bytearray(20)
                assert bytes(buffer[: file.readinto(buffer)]) == wanted
            assert open_files() == before + 1

    assert open_files() == before


def test_a_kept_folder_that_was_exchanged_hides_no_file_of_the_new_one(root: Path, tmp_path: Path) -> None:
    (root / "folder").mkdir()
    for name in ("one", "two"):
        (root / "folder" / name).write_bytes(b"old")
    source, entries = FileSource("files", root), found(root)

    with KeptFolder() as kept:
        with source.open(entries[b"folder/one"], kept):
            pass
        (root / "folder").rename(tmp_path / "moved")
        (tmp_path / "moved/two").unlink()
        (root / "folder").mkdir()
        (root / "folder/two").write_bytes(b"new")
        with source.open(found(root)[b"folder/two"], kept) as file:
            buffer = bytearray(20)
            assert buffer[: file.readinto(buffer)] == b"new"


def test_no_symlink_is_followed_beside_a_kept_folder(root: Path, tmp_path: Path) -> None:
    (root / "folder").mkdir()
    for name in ("one", "two"):
        (root / "folder" / name).write_bytes(b"mine")
    source, entries = FileSource("files", root), found(root)

    with KeptFolder() as kept:
        with source.open(entries[b"folder/one"], kept):
            pass
        (root / "folder/two").rename(tmp_path / "moved")
        (root / "folder/two").symlink_to(tmp_path / "moved")
        with pytest.raises(SourceError), source.open(entries[b"folder/two"], kept):
            pass


def test_a_file_that_changes_while_it_is_read_is_noticed(root: Path) -> None:
    (root / "file").write_bytes(b"old")
    source = FileSource("files", root)
    entry = found(root)[b"file"]

    with source.open(entry) as file:
        with (root / "file").open("ab") as writer:
            writer.write(b"!")
        assert not file.unchanged()


def test_a_file_that_was_replaced_is_not_read(root: Path) -> None:
    (root / "file").write_bytes(b"old")
    source = FileSource("files", root)
    entry = found(root)[b"file"]
    (root / "new").write_bytes(b"new")
    (root / "new").replace(root / "file")

    with pytest.raises(SourceError, match="replaced"), source.open(entry):
        pass


def test_a_parent_exchanged_for_a_symlink_leads_nowhere(root: Path, tmp_path: Path) -> None:
    (root / "folder").mkdir()
    (root / "folder/file").write_bytes(b"mine")
    source = FileSource("files", root)
    entry = found(root)[b"folder/file"]
    (root / "folder").rename(tmp_path / "moved")
    (root / "folder").symlink_to(tmp_path / "moved")

    with pytest.raises(SourceError), source.open(entry):
        pass


def test_a_folder_exchanged_during_the_walk_leads_nowhere(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"x")
    (root / "a").mkdir()
    (root / "b").mkdir()
    (root / "b/file").write_bytes(b"x")
    walker: Iterator[FoundEntry | Skipped | Problem] = FileSource("files", root).walk()
    assert next(walker).path == b"a"
    (root / "b").rename(tmp_path / "moved")
    (root / "b").symlink_to(tmp_path / "outside")

    rest = list(walker)

    assert [item.path for item in rest] == [b"b"]
    assert b"secret" not in repr(rest).encode()


def test_entries_that_vanish_while_listing_are_left_out(root: Path) -> None:
    (root / "a").mkdir()
    (root / "b").write_bytes(b"x")
    walker = FileSource("files", root).walk()
    next(walker)
    (root / "b").unlink()

    assert list(walker) == []


def test_deep_folders_end_in_a_problem_not_in_a_crash(root: Path) -> None:
    handle = os.open(root, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=handle)
        inner = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)

    items = walk(root)

    assert isinstance(items[-1], Problem)
    assert len(items) == 256


def handles() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_a_walk_that_is_given_up_leaves_no_handles(root: Path) -> None:
    (root / "a/b/c").mkdir(parents=True)
    before = handles()
    walker = FileSource("files", root).walk()
    for _ in range(3):
        next(walker)
    assert handles() != before

    del walker

    assert handles() == before


def test_an_empty_file_is_not_opened_in_a_way_that_drops_locks(root: Path) -> None:
    (root / "new.db").write_bytes(b"")
    connection = sqlite3.connect(root / "new.db", isolation_level=None, timeout=0)
    connection.execute("BEGIN EXCLUSIVE")
    locks = Path("/proc/locks").read_text().count(f":{(root / 'new.db').stat().st_ino} ")
    source = FileSource("files", root)

    with source.open(found(root)[b"new.db"]) as file:
        assert file.readinto(bytearray(10)) == 0
        assert file.unchanged()

    assert locks > 0
    assert Path("/proc/locks").read_text().count(f":{(root / 'new.db').stat().st_ino} ") == locks
    connection.close()


def test_a_file_exchanged_for_a_symlink_is_not_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "file").write_bytes(b"mine")
    source = FileSource("files", root)
    entry = found(root)[b"file"]
    (root / "file").rename(root / "kept")
    (root / "file").symlink_to("kept")

    for has_openat2 in (beneath._has_openat2(), False):
        monkeypatch.setattr(beneath, "_has_openat2", lambda has=has_openat2: has)
        with pytest.raises(SourceError), source.open(entry):
            pass
