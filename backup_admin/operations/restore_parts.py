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
from typing import TYPE_CHECKING, Any, Protocol

from backup_admin.core.durable import make_folders, sync_folder
from backup_admin.core.errors import RestoreRefused, VerificationFailed
from backup_admin.operations.on_disk import compare_tree
from backup_admin.operations.postgres_part import KIND, PostgresPart, postgres_part_from_json
from backup_admin.operations.sqlite_part import SqlitePart
from backup_admin.operations.stage_tree import write_tree
from backup_admin.sources.base import STAGING_PREFIX
from backup_admin.sources.exchange import is_mount_point
from backup_admin.sources.files import FileSource
from backup_admin.sources.tree import TreeWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from backup_admin.core.progress import Reporter
    from backup_admin.core.state import StateFolder
    from backup_admin.operations.databases import CheckLine
    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import DatabaseEntry, FileEntry, FilesRoot
    from backup_admin.sources.postgres.source import PostgresSource

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


class DatabasePart(Protocol):
    """One database of a restore in place. Every method may be repeated after a crash."""

    @property
    def name(self) -> str:
        """What the database is called in the snapshot."""

    @property
    def live(self) -> str:
        """Where the live one is."""

    @property
    def work(self) -> str:
        """The folder it is staged in."""

    def to_json(self) -> dict[str, Any]:
        """Return the part as it stands in the journal."""

    def check(self) -> None:
        """Raise `SourceError` when what an undo needs cannot be reached."""

    def stage(self, entry: DatabaseEntry, repository: Repository, reporter: Reporter) -> tuple[str, ...]:
        """Make the new state beside the live one and verify it; return what a person should know."""

    def keep_old(self) -> bool:
        """Keep what is live; False when there is nothing that could be kept."""

    def swap(self, *, live_usable: bool) -> None:
        """Exchange the two."""

    def swap_again(self, *, live_usable: bool) -> None:
        """Make sure of an exchange that was carried out."""

    def unswap(self, *, live_usable: bool) -> None:
        """Put the old state back."""

    def keep_undone(self) -> None:
        """Keep what is live before an undo replaces it."""

    def check_live(self, entry: DatabaseEntry, scratch: Path) -> tuple[CheckLine, ...]:
        """Compare live with the manifest."""

    def compare_with_staged(self) -> tuple[CheckLine, ...]:
        """Compare live with what was staged; no lines when that is gone."""

    def compare_with_old(self) -> tuple[CheckLine, ...]:
        """Compare live with the state before the restore; no lines when that is elsewhere."""

    def forget_staged(self) -> None:
        """Remove what a committed restore no longer needs."""

    def leave(self) -> None:
        """Give up what is kept outside of the work folder."""


Part = TreePart | DatabasePart


def part_from_json(value: Mapping[str, Any], servers: Sequence[PostgresSource] = ()) -> Part:
    """Read a part from the journal; raise `KeyError`."""
    if value["kind"] == KIND:
        return postgres_part_from_json(value, servers)
    kind = TreePart if value["kind"] == "files" else SqlitePart
    return kind(str(value["name"]), str(value["live"]), str(value["work"]))


def kind_of(part: Part) -> str:
    """Return how a part is called in the journal."""
    return str(part.to_json()["kind"])


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


def sqlite_part(name: str, path: str, restore_id: str) -> SqlitePart:
    """Choose where to stage a SQLite database: beside it."""
    return SqlitePart(name, path, str(Path(path).parent / f"{_PREFIX}{restore_id}-{name}-db"))


def postgres_part(source: PostgresSource, way: str, restore_id: str, state: StateFolder) -> PostgresPart:
    """Choose where to keep the parts of a database that lies on a server: in the state folder."""
    work = state.restores / f"{restore_id}-{source.name}"
    address = source.address
    return PostgresPart(source.name, address.label, str(work), restore_id, address.database, way, source)


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


def remove_staging(part: Part) -> None:
    """Remove everything a part keeps beside the live state."""
    if not isinstance(part, TreePart):
        part.leave()
    remove_work(part)


def remove_work(part: Part) -> None:
    """Remove the folder a part was staged in."""
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
