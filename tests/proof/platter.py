"""What a power cut leaves: a model of a disk that keeps only what was synced.

The bytes of a file are safe after `fsync` of the file, a name in a folder after
`fsync` of the folder, and nothing else is. Between the two, anything may be lost
or kept, so the worst cases are made: none of it kept, the names without the bytes,
or a choice by chance.
"""

from __future__ import annotations

import os
import random
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = "folder"


class Loss(StrEnum):
    """What happens to changes that were not synced."""

    ALL = "all of it lost"
    BYTES = "the names kept, the bytes lost"
    CHANCE = "some of it lost"


@dataclass
class Platter:
    """Follows the calls that change files below a root; a file is known by a number of its own."""

    root: Path
    safe_bytes: dict[int, bytes] = field(default_factory=dict)
    safe_names: dict[Path, dict[str, int | str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._numbers: dict[int, int] = {}
        self._next = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder, name)
                self.safe_bytes[self._number(path.stat().st_ino)] = path.read_bytes()
        for folder, _, _ in os.walk(self.root):
            self._sync_names(Path(folder))

    def after(self, name: str, arguments: Sequence[Any]) -> None:
        """Take note of a call that was made."""
        with self._lock:
            if name == "open done":
                path = Path(os.fsdecode(arguments[0]))
                if self.root in path.parents and arguments[1] & os.O_EXCL:
                    self._forget(path.stat().st_ino)
            elif name == "mkdir done":
                self.safe_names.pop(Path(arguments[0]), None)
            elif name == "fsync done":
                self._sync(arguments[0])

    def remains(self, target: Path, loss: Loss, seed: int = 0) -> None:
        """Build what would be found after a power cut at this moment."""
        chance = random.Random(seed)
        with self._lock:
            self._rebuild(self.root, target, loss, chance)

    def _sync(self, handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        if self.root != path and self.root not in path.parents:
            return
        if path.is_dir():
            self._sync_names(path)
            return
        size = os.fstat(handle).st_size
        number = self._number(os.fstat(handle).st_ino)
        self.safe_bytes[number] = path.read_bytes() if path.exists() else os.pread(handle, size, 0)

    def _sync_names(self, folder: Path) -> None:
        self.safe_names[folder] = self._names(folder)

    def _names(self, folder: Path) -> dict[str, int | str]:
        with os.scandir(folder) as entries:
            return {
                entry.name: FOLDER if entry.is_dir() else self._number(entry.inode()) for entry in entries
            }

    def _number(self, inode: int) -> int:
        if inode not in self._numbers:
            self._forget(inode)
        return self._numbers[inode]

    def _forget(self, inode: int) -> None:
        """The system gives numbers of removed files to new ones: this one is new."""
        self._next += 1
        self._numbers[inode] = self._next

    def _rebuild(self, source: Path, target: Path, loss: Loss, chance: random.Random) -> None:
        target.mkdir()
        safe = self.safe_names.get(source, {})
        now = self._names(source) if source.is_dir() else {}
        for name in sorted(safe.keys() | now.keys()):
            found = self._survivor(safe.get(name), now.get(name), loss, chance)
            if found == FOLDER:
                self._rebuild(source / name, target / name, loss, chance)
            elif isinstance(found, int):
                data = self.safe_bytes.get(found, b"")
                if loss is Loss.CHANCE and found == now.get(name) and chance.random() < 0.5:
                    data = (source / name).read_bytes()
                (target / name).write_bytes(data)

    def _survivor(
        self, safe: int | str | None, now: int | str | None, loss: Loss, chance: random.Random
    ) -> int | str | None:
        if loss is Loss.ALL:
            return safe
        if loss is Loss.BYTES:
            return now
        return chance.choice([safe, now])
