"""Files that restored rows name come back with them, where they are missing; none leaves its folder."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from backup_admin.core.durable import write_all
from backup_admin.core.errors import BackupAdminError, Damaged, RestoreRefused, UsageError
from backup_admin.core.paths import check_path, show_path
from backup_admin.operations.captured import iterate_bytes
from backup_admin.operations.linked_undo import has_digest
from backup_admin.repository.lookup import branch_entries
from backup_admin.sources.base import STAGING_PREFIX
from backup_admin.sources.beneath import FOLDER_FLAGS, open_beneath, open_parent, rename_beneath, stat_beneath

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from backup_admin.operations.linked_undo import LinkRecord
    from backup_admin.operations.results import SourceSet
    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.types import FileEntry, FilesRoot, Manifest

_BATCH = 500
_SHOWN_PROBLEMS = 20
_KEPT_BITS = 0o777
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL


@dataclass(frozen=True, slots=True)
class Link:
    """A column whose values are paths in a folder of the snapshot, below `below` where that is not empty."""

    table: str
    column: str
    folder: str
    below: str = ""

    @property
    def shown(self) -> str:
        """Return it as it was asked for."""
        return f"{self.table}.{self.column}={self.folder}{'/' if self.below else ''}{self.below}"


@dataclass(slots=True)
class LinkedFiles:
    """What became of the files of one link: put back, there already, different, or not in the snapshot."""

    link: str
    put_back: int = 0
    present: int = 0
    different: int = 0
    kept_aside: int = 0
    missing: int = 0
    refused: int = 0
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    def note(self, problem: str) -> None:
        """Remember what a person should know; of many only the first."""
        if len(self.problems) < _SHOWN_PROBLEMS:
            self.problems.append(problem)


def check_links(manifest: Manifest, links: Sequence[Link], targets: SourceSet) -> None:
    """Raise `UsageError` or `RestoreRefused` for a link that cannot be followed."""
    for link in links:
        if manifest.files_root(link.folder) is None:
            raise UsageError(
                f"The snapshot has no folder {link.folder!r}, which --linked {link.shown} names."
            )
        target = next((source for source in targets.files if source.name == link.folder), None)
        if target is None:
            raise UsageError(
                f"--linked {link.shown} needs to know where the folder is: --files {link.folder}=DIR."
            )
        if not target.root.is_dir():
            raise RestoreRefused(
                f"--linked {link.shown} puts files into {target.root}, which is no folder or not there; is a "
                "disk not mounted? Make it, or leave --linked out: then rows come back without their files. "
                "Nothing was touched."
            )
        if link.below:
            try:
                check_path(os.fsencode(link.below))
            except ValueError as error:
                raise RestoreRefused(f"--linked {link.shown} names {error}. Nothing was touched.") from error


def follow_links(  # noqa: PLR0913 - what, where, and how
    told: Path,
    links: Sequence[Link],
    manifest: Manifest,
    targets: SourceSet,
    reader: ChunkReader,
    *,
    dry: bool,
    overwrite: bool,
    aside: str,
    record: LinkRecord | None = None,
) -> tuple[LinkedFiles, ...]:
    """Put files back that rows name (`told` has a line for each), or only count them.

    A file that is there and different stays, or goes aside under a name that ends with `aside`. What comes
    back is told to `record` before.
    """
    found = []
    for number, link in enumerate(links):
        root = manifest.files_root(link.folder)
        target = next(source for source in targets.files if source.name == link.folder)
        if root is None:
            continue
        result = LinkedFiles(link.shown)
        try:
            handle = os.open(target.root, FOLDER_FLAGS)
        except OSError as error:
            result.note(f"{target.root} cannot be opened: {error.strerror}")
            found.append(result)
            continue
        try:
            note = None if record is None else partial(record.note, target.root.resolve())
            run = _Following(
                root, handle, reader, result, dry=dry, overwrite=overwrite, aside=aside, note=note
            )
            paths = _read_paths(told, number, link, result)
            while batch := list(islice(paths, _BATCH)):
                run.follow(batch)
        except BackupAdminError as error:
            if dry:
                raise
            result.note(f"The files of {link.shown} did not all come back: {error}")  # the rows are there
        finally:
            os.close(handle)
        found.append(result)
    return tuple(found)


def _read_paths(told: Path, number: int, link: Link, result: LinkedFiles) -> Iterator[bytes]:
    with told.open(encoding="ascii") as lines:
        for line in lines:
            of, text = json.loads(line)
            if of != number:
                continue
            path = os.fsencode(f"{link.below}/{text}" if link.below else text)
            try:
                check_path(os.fsencode(text))
                check_path(path)
            except ValueError as error:
                result.refused += 1
                result.note(f"{show_path(path)}: {error}; it is left alone")
                continue
            yield path


class _Following:
    def __init__(  # noqa: PLR0913 - what it works with
        self,
        root: FilesRoot,
        handle: int,
        reader: ChunkReader,
        result: LinkedFiles,
        *,
        dry: bool,
        overwrite: bool,
        aside: str,
        note: Callable[[bytes, str, bytes], None] | None,
    ) -> None:
        self._root = root
        self._handle = handle
        self._reader = reader
        self._result = result
        self._dry = dry
        self._overwrite = overwrite
        self._aside = os.fsencode(aside)
        self._note = note

    def follow(self, paths: list[bytes]) -> None:
        wanted = set(paths)
        folders: dict[bytes, int] = {}
        for entry in branch_entries(self._reader, self._root, wanted):
            if entry.kind == "folder":
                folders[entry.path] = entry.mode
            if entry.path not in wanted:
                continue
            wanted.discard(entry.path)
            try:
                self._take(entry, folders)
            except (OSError, BackupAdminError) as error:
                said = error.strerror if isinstance(error, OSError) else str(error)
                self._result.note(f"{show_path(entry.path)}: {said}")
        self._result.missing += len(wanted)
        for path in sorted(wanted):
            self._result.note(f"{show_path(path)}: the snapshot does not have it")

    def _take(self, entry: FileEntry, folders: dict[bytes, int]) -> None:
        if entry.kind != "file":
            self._result.refused += 1
            self._result.note(f"{show_path(entry.path)}: is a {entry.kind} in the snapshot; it is left alone")
            return
        live = stat_beneath(self._handle, entry.path)
        if live is not None and self._is_same(entry, live):
            self._result.present += 1
            return
        if live is not None and not self._overwrite:
            self._result.different += 1
            self._result.note(f"{show_path(entry.path)}: another file is there, and stays")
            return
        if not self._dry:
            self._put_back(entry, folders, replaces=live is not None)
        self._result.put_back += 1
        self._result.kept_aside += live is not None

    def _is_same(self, entry: FileEntry, live: os.stat_result) -> bool:
        if live.st_size != entry.size or entry.content is None:
            return False
        return has_digest(self._handle, entry.path, entry.content.sha256)

    def _put_back(self, entry: FileEntry, folders: dict[bytes, int], *, replaces: bool) -> None:
        """Write a file beside its place, and move it there when it is whole."""
        parent = entry.path.rpartition(b"/")[0]
        self._make_folders(parent, folders)
        name = STAGING_PREFIX + uuid.uuid4().hex.encode()
        staged = b"/".join(part for part in (parent, name) if part)
        try:
            self._write(entry, staged)
            if self._note is not None and entry.content is not None:
                self._note(entry.path, entry.content.sha256, entry.path + self._aside if replaces else b"")
            if replaces:
                rename_beneath(self._handle, entry.path, self._handle, entry.path + self._aside)
            rename_beneath(self._handle, staged, self._handle, entry.path)
        except BaseException:
            with suppress(OSError), open_parent(self._handle, staged) as (folder, own):
                os.unlink(own, dir_fd=folder)
            raise

    def _write(self, entry: FileEntry, staged: bytes) -> None:
        if entry.content is None:
            raise Damaged("the manifest does not say what is in it")
        digest = hashlib.sha256()
        file = open_beneath(self._handle, staged, _NEW, 0o600)
        try:
            for piece in iterate_bytes(self._reader, entry.content):
                digest.update(piece)
                write_all(file, piece)
            if digest.hexdigest() != entry.content.sha256:
                raise Damaged("its bytes do not have the digest the manifest gives")
            self._take_owner(file)
            os.fchmod(file, entry.mode & _KEPT_BITS)
            os.utime(file, ns=(entry.mtime_ns, entry.mtime_ns))
            os.fsync(file)
        finally:
            os.close(file)

    def _make_folders(self, path: bytes, folders: dict[bytes, int]) -> None:
        parts = path.split(b"/") if path else []
        for depth in range(1, len(parts) + 1):
            folder = b"/".join(parts[:depth])
            with open_parent(self._handle, folder) as (parent, name):
                try:
                    os.mkdir(name, 0o700, dir_fd=parent)
                except FileExistsError:
                    continue
                made = os.open(name, FOLDER_FLAGS, dir_fd=parent)
                try:
                    self._take_owner(made)
                    os.fchmod(made, folders.get(folder, 0o755) & _KEPT_BITS)
                finally:
                    os.close(made)
                os.fsync(parent)

    def _take_owner(self, made: int) -> None:
        """Give what root makes to whom the folder belongs: the app must be able to read it."""
        owner = os.fstat(self._handle)
        if os.geteuid() == 0:
            os.fchown(made, owner.st_uid, owner.st_gid)
