"""The parts of a restore in place: one folder tree or one database each.

Everything a part needs to be swapped or put back is plain data in the journal,
so that another process can go on after a crash. Every function may be repeated.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from backup_admin.core.durable import make_folders, sync_folder
from backup_admin.core.errors import RestoreRefused, SourceError, VerificationFailed
from backup_admin.core.paths import path_from_json, path_to_json
from backup_admin.operations.content import write_content
from backup_admin.operations.databases import CheckLine, compare_database, compare_tables
from backup_admin.operations.on_disk import compare_tree
from backup_admin.operations.stage_tree import write_tree
from backup_admin.sources.base import STAGING_PREFIX, Skipped, SkipReason
from backup_admin.sources.exchange import SwapPair, carry, plan_swaps, swap, unswap
from backup_admin.sources.files import FileSource
from backup_admin.sources.sqlite import (
    SqliteSource,
    inspect_copy,
    place_offline,
    undo_place_offline,
    write_into_live,
)
from backup_admin.sources.tree import TreeWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from backup_admin.core.progress import Reporter
    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.types import DatabaseEntry, FileEntry, FilesRoot

_CARRIED = frozenset({SkipReason.EXCLUDED, SkipReason.SPECIAL})
_SWAP_SECONDS = 120.0
_PREFIX = os.fsdecode(STAGING_PREFIX)


@dataclass(frozen=True, slots=True)
class TreePart:
    """One folder tree: `work/new` is staged, and after the swap what was live."""

    name: str
    live: str
    work: str

    @property
    def staged(self) -> Path:
        """Where the other state of the tree lies."""
        return Path(self.work) / "new"

    def to_json(self) -> dict[str, Any]:
        """Return the part as it stands in the journal."""
        return {"kind": "files", **asdict(self)}


@dataclass(frozen=True, slots=True)
class DatabasePart:
    """One database: `work` holds the staged copy, the old state and what was moved aside."""

    name: str
    live: str
    work: str

    @property
    def copy(self) -> Path:
        """The state to be restored."""
        return Path(self.work) / "new.db"

    @property
    def old(self) -> Path:
        """The state before the restore."""
        return Path(self.work) / "old.db"

    @property
    def undone(self) -> Path:
        """The state after the restore, kept when it is undone."""
        return Path(self.work) / "undone.db"

    @property
    def aside(self) -> Path:
        """Where an unusable live file and its sidecars are moved."""
        return Path(self.work) / "aside"

    def to_json(self) -> dict[str, Any]:
        """Return the part as it stands in the journal."""
        return {"kind": "database", **asdict(self)}


Part = TreePart | DatabasePart


@dataclass(frozen=True, slots=True)
class KeptFolder:
    """A folder that stays in place; mode and time it gets, and those it had."""

    path: bytes
    after: tuple[int, int]
    before: tuple[int, int]


@dataclass(frozen=True, slots=True)
class TreeSwap:
    """How one tree is exchanged."""

    pairs: tuple[SwapPair, ...]
    carried: tuple[bytes, ...]
    folders: tuple[KeptFolder, ...]


def part_from_json(value: Mapping[str, Any]) -> Part:
    """Read a part from the journal; raise `KeyError`."""
    kind = TreePart if value["kind"] == "files" else DatabasePart
    return kind(str(value["name"]), str(value["live"]), str(value["work"]))


def tree_part(name: str, root: str, restore_id: str) -> TreePart:
    """Choose where to stage a tree: beside it, or inside when it is a mount point."""
    live = Path(root)
    folder = f"{_PREFIX}{restore_id}-{name}"
    beside = live.parent / folder
    if live.is_dir() and not _same_device(live, live.parent):
        return TreePart(name, root, str(live / folder))
    if live.is_dir() and not os.access(live.parent, os.W_OK):
        return TreePart(name, root, str(live / folder))
    return TreePart(name, root, str(beside))


def database_part(name: str, path: str, restore_id: str) -> DatabasePart:
    """Choose where to stage a database: beside it."""
    return DatabasePart(name, path, str(Path(path).parent / f"{_PREFIX}{restore_id}-{name}-db"))


def make_work_folder(part: Part) -> None:
    """Make the folder a part is staged in; raise `RestoreRefused` when that fails."""
    work = Path(part.work)
    if not work.parent.is_dir():
        raise RestoreRefused(f"{work.parent} is not there, so nothing can be staged beside {part.live}.")
    try:
        with _same_times(work.parent):
            make_folders(work)
    except OSError as error:
        raise RestoreRefused(f"{work} cannot be made: {error.strerror}. Nothing was touched.") from error


def stage_tree(
    part: TreePart, root: FilesRoot, entries: Iterable[FileEntry], reader: ChunkReader, reporter: Reporter
) -> None:
    """Write the whole tree beside the live one; raise `VerificationFailed`."""
    writer = TreeWriter(part.staged)
    report = write_tree(entries, writer, reader=reader, wanted=lambda _: True, reporter=reporter)
    writer.finish(root.mode, root.mtime_ns)
    _take_owner(part)
    if report.problems:
        raise VerificationFailed(
            f"{part.name} cannot be staged: {report.problems[0]}"
            + (f" and {len(report.problems) - 1} more" if len(report.problems) > 1 else "")
            + ". Nothing live was touched."
        )


def _take_owner(part: TreePart) -> None:
    """Give what root staged to whom the live tree belongs: the app must be able to write."""
    live = Path(part.live)
    model = (live if live.is_dir() else live.parent).stat()
    if os.geteuid() != 0 or (model.st_uid, model.st_gid) == (0, 0):
        return
    os.lchown(part.staged, model.st_uid, model.st_gid)
    for folder, folders, files in os.walk(part.staged):
        for name in (*folders, *files):
            os.lchown(Path(folder) / name, model.st_uid, model.st_gid)


def verify_staged_tree(part: TreePart, entries: Iterable[FileEntry], reporter: Reporter) -> int:
    """Read the staged tree from disk and compare every byte; return the files compared.

    Raises `VerificationFailed`.
    """
    count, problems = compare_tree(
        FileSource(part.name, part.staged), entries, content=True, reporter=reporter
    )
    if problems:
        raise VerificationFailed(f"{part.name} was not staged as it should be: {problems[0]}.")
    return count


def stage_database(part: DatabasePart, entry: DatabaseEntry, reader: ChunkReader) -> None:
    """Put a database together beside the live one and check it; raise `VerificationFailed`."""
    part.copy.unlink(missing_ok=True)
    write_content(reader, entry.content, part.copy)
    lines = compare_database(entry, part.copy, thorough=True)
    wrong = [line for line in lines if not line.ok]
    if wrong:
        raise VerificationFailed(f"{wrong[0].topic}: {wrong[0].found}. Nothing live was touched.")


def _plan_pairs(part: TreePart, pinned: Sequence[Path]) -> tuple[SwapPair, ...]:
    """Decide which entries are exchanged, without ever moving a pinned path."""
    inside = Path(part.work).parent == Path(part.live)
    return plan_swaps(Path(part.live), part.staged, (*pinned, Path(part.work)) if inside else pinned)


def carried_paths(source: FileSource) -> list[bytes]:
    """Return the live entries a backup leaves out on purpose: they stay where they are.

    What a restore itself keeps beside the live state is not among them.
    """
    if not source.root.is_dir():
        return []
    return [
        item.path
        for item in source.walk()
        if isinstance(item, Skipped)
        and item.reason in _CARRIED
        and not item.path.rpartition(b"/")[2].startswith(STAGING_PREFIX)
    ]


def plan_tree(part: TreePart, source: FileSource, root: FilesRoot, entries: Iterable[FileEntry]) -> TreeSwap:
    """Decide how a tree is exchanged: which entries move, which stay, which folders get times."""
    pairs = _plan_pairs(part, source.pinned)
    carried = tuple(carried_paths(source))
    stay = _folders_that_stay(part, pairs) | {path.rpartition(b"/")[0] for path in carried}
    folders = []
    if stay:
        rows = [(entry.path, entry.mode, entry.mtime_ns) for entry in entries if entry.path in stay]
        for path, mode, mtime_ns in [(b"", root.mode, root.mtime_ns), *rows]:
            live = Path(part.live) / os.fsdecode(path)
            if live.is_dir():
                now = live.stat()
                before = (stat.S_IMODE(now.st_mode), now.st_mtime_ns)
                folders.append(KeptFolder(path, (mode, mtime_ns), before))
    return TreeSwap(pairs, carried, tuple(folders))


def swap_tree(part: TreePart, planned: TreeSwap) -> None:
    """Exchange the live tree and the staged one; folders that stay get mode and time."""
    for pair in planned.pairs:
        swap(pair)
    if planned.carried and part.staged.is_dir():
        carry(part.staged, Path(part.live), planned.carried)
    for folder in reversed(planned.folders):
        _set_folder(part, folder.path, *folder.after)


def unswap_tree(part: TreePart, planned: TreeSwap) -> None:
    """Put back what `swap_tree` exchanged, however far it came."""
    pairs, carried = planned.pairs, planned.carried
    if carried and part.staged.is_dir() and Path(part.live).is_dir():
        carry(Path(part.live), part.staged, carried)
    for pair in reversed(pairs):
        unswap(pair)
    for folder in reversed(planned.folders):
        _set_folder(part, folder.path, *folder.before)


def keep_old_database(part: DatabasePart) -> bool:
    """Keep a copy of the live database; False when it is missing or damaged."""
    part.old.unlink(missing_ok=True)
    try:
        copy = SqliteSource(part.name, Path(part.live)).capture(Path(part.work))
    except SourceError:
        return False
    copy.path.rename(part.old)
    sync_folder(part.work)
    return True


def swap_database(part: DatabasePart, *, live_usable: bool) -> None:
    """Replace the content of the live database, or the file when it is unusable."""
    if live_usable:
        write_into_live(part.copy, Path(part.live), deadline_seconds=_SWAP_SECONDS)
    else:
        place_offline(part.copy, Path(part.live), part.aside)


def unswap_database(part: DatabasePart, *, live_usable: bool) -> None:
    """Put the old content back; does no harm when nothing was swapped."""
    if live_usable:
        write_into_live(part.old, Path(part.live), deadline_seconds=_SWAP_SECONDS)
    else:
        undo_place_offline(Path(part.live), part.aside)


def keep_undone_database(part: DatabasePart) -> None:
    """Keep what is live now, before an undo replaces it."""
    if not part.undone.exists():
        copy = SqliteSource(part.name, Path(part.live)).capture(Path(part.work))
        copy.path.rename(part.undone)


def check_live_database(part: DatabasePart, entry: DatabaseEntry, scratch: Path) -> tuple[CheckLine, ...]:
    """Compare the live database with the manifest, table by table."""
    with TemporaryDirectory(prefix="check-", dir=scratch) as folder:
        try:
            copy = SqliteSource(part.name, Path(part.live)).capture(Path(folder))
        except SourceError as error:
            return (CheckLine(f"{part.name}: integrity", "sound", str(error), ok=False),)
        return compare_tables(entry, copy)


def compare_with_copy(part: DatabasePart, copy: Path) -> tuple[CheckLine, ...]:
    """Compare the live database with a copy kept beside it, table by table."""
    wanted = {table.name: table for table in inspect_copy(copy).tables}
    with TemporaryDirectory(prefix="check-", dir=part.work) as folder:
        live = SqliteSource(part.name, Path(part.live)).capture(Path(folder))
    found = {table.name: table for table in live.tables}
    return tuple(
        CheckLine(
            f"{part.name}: table {name}",
            f"{wanted[name].rows} rows" if name in wanted else "absent",
            f"{found[name].rows} rows" if name in found else "missing",
            name in wanted and name in found and wanted[name].checksum == found[name].checksum,
        )
        for name in sorted(wanted.keys() | found.keys())
    )


def remove_staging(part: Part) -> None:
    """Remove everything a part keeps beside the live state."""
    folder = Path(part.work).parent
    if folder.is_dir():
        with _same_times(folder):
            shutil.rmtree(part.work, ignore_errors=False, onerror=_make_writable_and_retry)
        sync_folder(folder)


def tree_swap_to_json(planned: TreeSwap) -> dict[str, Any]:
    """Write how a tree is exchanged for the journal."""
    return {
        "pairs": [
            [_name(pair.live), _name(pair.staged), pair.live_inode, pair.staged_inode]
            for pair in planned.pairs
        ],
        "carried": [path_to_json(path) for path in planned.carried],
        "folders": [
            [path_to_json(folder.path), list(folder.after), list(folder.before)] for folder in planned.folders
        ],
    }


def tree_swap_from_json(value: Mapping[str, Any]) -> TreeSwap:
    """Read what `tree_swap_to_json` wrote."""
    return TreeSwap(
        tuple(
            SwapPair(_path(live), _path(staged), int(old), int(new))
            for live, staged, old, new in value["pairs"]
        ),
        tuple(path_from_json(path) for path in value["carried"]),
        tuple(
            KeptFolder(path_from_json(path), (int(after[0]), int(after[1])), (int(before[0]), int(before[1])))
            for path, after, before in value["folders"]
        ),
    )


def _name(path: Path) -> Any:
    return path_to_json(os.fsencode(path))


def _path(value: Any) -> Path:
    return Path(os.fsdecode(path_from_json(value)))


def _folders_that_stay(part: TreePart, pairs: Sequence[SwapPair]) -> set[bytes]:
    live = Path(part.live)
    if any(pair.live == live for pair in pairs):
        return set()
    stay = {b""}
    for pair in pairs:
        for folder in pair.live.parents:
            if folder == live:
                break
            stay.add(os.fsencode(folder.relative_to(live)))
    return stay


def _set_folder(part: TreePart, path: bytes, mode: int, mtime_ns: int) -> None:
    folder = Path(part.live) / os.fsdecode(path)
    folder.chmod(mode & 0o777)
    os.utime(folder, ns=(mtime_ns, mtime_ns))


@contextmanager
def _same_times(folder: Path) -> Iterator[None]:
    """Leave the times of a folder as they were: what we keep in it is not the app's."""
    before = folder.stat()
    yield
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


def _same_device(first: Path, second: Path) -> bool:
    return first.stat().st_dev == second.stat().st_dev


def _make_writable_and_retry(function: Any, path: str, info: Any) -> None:
    if isinstance(info[1], FileNotFoundError):
        return
    parent = Path(path).parent
    parent.chmod(0o700)
    if Path(path).is_dir() and not Path(path).is_symlink():
        Path(path).chmod(0o700)
        shutil.rmtree(path)
        return
    function(path)
