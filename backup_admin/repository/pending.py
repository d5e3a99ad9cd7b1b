"""Packs that were stored and not committed yet: the next run takes them over.

A run that is killed leaves packs that no index names. Each pack is noted in the
local cache before it is stored, so that finding it needs no listing. The note
is a hint: what it names is read whole and compared with its name first.

Beside the packs stands how far the chain was known before they were stored: what a
later entry took off the books is never taken over, since somebody may be deleting it.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from blake3 import blake3

from backup_admin.core.errors import Damaged, ObjectMissing, RepositoryError
from backup_admin.repository.index import PackInfo
from backup_admin.repository.objects import HEADER_BYTES
from backup_admin.repository.packs import Segment, pack_name, read_pack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from backup_admin.repository.keys import RepositoryKeys
    from backup_admin.storage.base import Storage

_NAME = re.compile(r"^[0-9a-f]{64}$", re.MULTILINE)
_SINCE = re.compile(r"^after ([0-9]{1,18})$", re.MULTILINE)
BACKUPS = "pending"
"""The notes of backups."""
PRUNES = "pending-prune"
"""The notes of prunes, which only a prune takes over."""


class PendingPacks:
    """The notes of one repository about packs that no commit names yet.

    `head` is the number of the newest chain entry before anything is noted here.
    """

    def __init__(self, folder: Path, head: int, kind: str = BACKUPS) -> None:
        self._path = folder / kind
        self._heading = f"\nafter {head}\n"

    def note(self, name: bytes) -> None:
        """Note a pack that is about to be stored."""
        # Without the note the pack is stored once more after a crash, no worse.
        with suppress(OSError):
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # The newline in front sets it apart from a line that was cut short.
                os.write(handle, f"{self._heading}\n{name.hex()}\n".encode())
                self._heading = ""
            finally:
                os.close(handle)

    def names(self) -> tuple[bytes, ...]:
        """Return the packs noted, each once."""
        return tuple(bytes.fromhex(name) for name in dict.fromkeys(_NAME.findall(self._read())))

    def since(self) -> int:
        """Return the number of an entry before which nothing was noted."""
        return min(map(int, _SINCE.findall(self._read())), default=0)

    def clear(self) -> None:
        """Forget all notes: a commit names what was noted."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _read(self) -> str:
        try:
            return self._path.read_text("ascii", errors="replace")
        except OSError:
            return ""


def whole_packs(
    storage: Storage, keys: RepositoryKeys, names: Iterable[bytes]
) -> Iterator[tuple[PackInfo, list[Segment]]]:
    """Yield those of the packs that are there and whole."""
    for name in names:
        with suppress(ObjectMissing, RepositoryError):
            yield _read(storage, keys, name)


def _read(storage: Storage, keys: RepositoryKeys, name: bytes) -> tuple[PackInfo, list[Segment]]:
    data = storage.get(pack_name(name))
    if blake3(data).digest() != name:
        raise Damaged(f"{pack_name(name)} is not what was written.")
    _, segments = read_pack(keys, memoryview(data))
    return PackInfo(name, data[:HEADER_BYTES], len(data)), segments
