"""The parts of a restore in place: one folder tree or one database each.

Everything a part needs to be swapped or put back is plain data in the journal,
so that another process can go on after a crash. Every function may be repeated.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from backup_admin.core.durable import make_folders, sync_folder
from backup_admin.core.errors import (
    RestoreRefused,
    SourceError,
    SourceInvalid,
    SourceMissing,
    VerificationFailed,
)
from backup_admin.operations.captured import write_content
from backup_admin.operations.databases import CheckLine, compare_database, compare_tables
from backup_admin.operations.on_disk import compare_tree
from backup_admin.operations.stage_tree import write_tree
from backup_admin.sources.base import STAGING_PREFIX, LiveUnusable
from backup_admin.sources.exchange import is_mount_point
from backup_admin.sources.files import FileSource
from backup_admin.sources.sqlite import (
    SqliteSource,
    copy_database,
    inspect_copy,
    place_offline,
    undo_place_offline,
    write_into_live,
)
from backup_admin.sources.tree import TreeWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from backup_admin.core.progress import Reporter
    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.types import DatabaseEntry, FileEntry, FilesRoot

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


def part_from_json(value: Mapping[str, Any]) -> Part:
    """Read a part from the journal; raise `KeyError`."""
    kind = TreePart if value["kind"] == "files" else DatabasePart
    return kind(str(value["name"]), str(value["live"]), str(value["work"]))


def tree_part(name: str, root: str, restore_id: str) -> TreePart:
    """Choose where to stage a tree: beside it, or inside when it is a mount point."""
    live = Path(root)
    folder = f"{_PREFIX}{restore_id}-{name}"
    beside = live.parent / folder
    if live.is_dir() and (is_mount_point(live) or not _same_device(live, live.parent)):
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
    with TreeWriter(part.staged) as writer:
        report = write_tree(entries, writer, reader=reader, reporter=reporter)
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
    """Put the old content back; does no harm when nothing was swapped.

    A live database that was lost or damaged since is moved aside.
    """
    live = Path(part.live)
    if not live_usable:
        undo_place_offline(live, part.aside)
        return
    try:
        if not part.aside.exists():
            write_into_live(part.old, live, deadline_seconds=_SWAP_SECONDS)
            return
    except LiveUnusable:
        pass
    place_offline(part.old, live, part.aside)


def keep_undone_database(part: DatabasePart) -> None:
    """Keep what is live now, before an undo replaces it; what is no database is moved aside then."""
    if part.undone.exists():
        return
    live, work = Path(part.live), Path(part.work)
    try:
        copy = SqliteSource(part.name, live).capture(work).path
    except SourceMissing:
        return
    except SourceInvalid:
        copy = work / "undone.part"
        copy.unlink(missing_ok=True)
        copy_database(live, copy)
    copy.rename(part.undone)


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
