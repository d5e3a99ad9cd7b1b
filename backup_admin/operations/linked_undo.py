"""Which files came back with rows, so that they can be taken away again: a line of JSON before each.

A line says what will be there, by its digest, and whether another file went aside for it. So a line whose
file never came does no harm, and a file that somebody changed since stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backup_admin.core.durable import sync_folder, write_all
from backup_admin.core.errors import RestoreRefused
from backup_admin.core.paths import show_path
from backup_admin.sources.beneath import FOLDER_FLAGS, open_beneath, open_parent, rename_beneath, stat_beneath

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BLOCK_BYTES = 1 << 20
_SHOWN_PROBLEMS = 20


@dataclass(slots=True)
class FilesUndone:
    """How many files were taken away, and put back from aside; and what could not be."""

    taken_away: int
    put_back: int
    problems: list[str]


class LinkRecord:
    """The file that says which files come back; each line is on disk before its file is."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, root: Path, path: bytes, sha256: str, aside: bytes) -> None:
        """Say that a file of this digest comes to a path, and what it goes aside under, if there is one."""
        line = {
            "root": os.fsdecode(root),
            "path": os.fsdecode(path),
            "sha256": sha256,
            "aside": os.fsdecode(aside),
        }
        is_new = not self._path.exists()
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            write_all(handle, json.dumps(line).encode("ascii") + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)
        if is_new:
            sync_folder(self._path.parent)


def undo_links(path: Path) -> FilesUndone:
    """Take away the files that came back and put back those that went aside, the last first.

    Safe to repeat. What is no longer what came back stays, and is told.
    """
    done = FilesUndone(0, 0, [])
    for line in reversed(list(_lines(path))):
        try:
            _undo(line, done)
        except (OSError, RestoreRefused) as error:
            said = error.strerror if isinstance(error, OSError) else str(error)
            _tell(done, f"{show_path(os.fsencode(line['path']))}: {said}")
    return done


def has_digest(root: int, path: bytes, sha256: str) -> bool:
    """Say whether a regular file is there with this content."""
    found = stat_beneath(root, path)
    if found is None or not stat.S_ISREG(found.st_mode):
        return False
    digest = hashlib.sha256()
    with os.fdopen(open_beneath(root, path, os.O_RDONLY), "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest() == sha256


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with suppress(FileNotFoundError):
        for raw in path.read_bytes().splitlines():
            with suppress(ValueError):  # cut by a crash: its file never came
                yield json.loads(raw)


def _undo(line: dict[str, Any], done: FilesUndone) -> None:
    path, aside = os.fsencode(line["path"]), os.fsencode(line["aside"])
    root = os.open(line["root"], FOLDER_FLAGS)
    try:
        if has_digest(root, path, line["sha256"]):
            with open_parent(root, path) as (folder, name):
                os.unlink(name, dir_fd=folder)
                os.fsync(folder)
            done.taken_away += 1
        elif stat_beneath(root, path) is not None:
            if not aside or stat_beneath(root, aside) is not None:  # else it was put back already
                _tell(done, f"{show_path(path)}: it was changed since, and stays")
            return
        if aside and stat_beneath(root, aside) is not None:
            rename_beneath(root, aside, root, path)
            done.put_back += 1
    finally:
        os.close(root)


def _tell(done: FilesUndone, problem: str) -> None:
    if len(done.problems) < _SHOWN_PROBLEMS:
        done.problems.append(problem)
