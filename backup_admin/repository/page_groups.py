"""Digests over many pages at a time, kept on this machine beside the index.

Of a large database little changes from one backup to the next. To hash each page takes
three quarters of the time of such a backup; to hash 64 KiB at a time takes a tenth of
that. What is kept here only saves time: a file that is lost, damaged or of another
layout makes the next backup hash pages again.

File: `u32be page size || u32be pages per shard || digest[16] of each group`, by the name
of the page map's root. A group never reaches beyond its shard.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from backup_admin.core.durable import TEMPORARY_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from backup_admin.repository.types import ChunkRef

_GROUP_BYTES = 64 << 10
_DIGEST = 16
_MOST_FILES = 64


class GroupDigests:
    """The digests of one database while it is read, beside those of the snapshot before."""

    def __init__(
        self,
        folder: Path,
        digest: Callable[[memoryview], bytes],
        layout: tuple[int, int],
        parent: ChunkRef | None,
    ) -> None:
        """Begin; `layout` is (page size, pages per shard), `digest` gives 16 bytes."""
        self._folder = folder
        self._digest = digest
        self.pages = max(1, _GROUP_BYTES // layout[0])
        self._bytes = self.pages * layout[0]
        head = b"".join(number.to_bytes(4, "big") for number in layout)
        self._before = self._open_before(parent, head)
        self._temporary = folder / f"{TEMPORARY_PREFIX}{os.urandom(8).hex()}"
        self._now: IO[bytes] | None = None
        with suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            self._now = self._temporary.open("xb")
        self._write(head)

    def compare(self, data: memoryview) -> list[bool]:
        """Say of each group of the next shard whether it is as it was."""
        digests = [self._digest(data[at : at + self._bytes]) for at in range(0, len(data), self._bytes)]
        self._write(b"".join(digests))
        before = b""
        if self._before is not None:
            with suppress(OSError):
                before = self._before.read(_DIGEST * len(digests))
        return [
            before[_DIGEST * number : _DIGEST * (number + 1)] == digest
            for number, digest in enumerate(digests)
        ]

    def keep(self, root: ChunkRef) -> None:
        """Keep the digests for whoever has this page map as the one before."""
        if self._now is not None:
            with suppress(OSError):
                self._now.close()
                self._temporary.replace(self._folder / root.id.hex())
                self._forget_oldest()

    def close(self) -> None:
        """Leave nothing open, and nothing half written."""
        for file in (self._before, self._now):
            if file is not None:
                with suppress(OSError):
                    file.close()
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    def _open_before(self, parent: ChunkRef | None, head: bytes) -> IO[bytes] | None:
        if parent is None:
            return None
        try:
            file = (self._folder / parent.id.hex()).open("rb")
        except OSError:
            return None
        if file.read(len(head)) == head:
            return file
        file.close()
        return None

    def _write(self, data: bytes) -> None:
        if self._now is not None:
            try:
                self._now.write(data)
            except OSError:
                self._now.close()
                self._now = None

    def _forget_oldest(self) -> None:
        kept = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in kept[_MOST_FILES:]:
            path.unlink(missing_ok=True)
