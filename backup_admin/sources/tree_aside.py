"""Handing small files to a process that writes them (`tree_worker`)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from backup_admin.core.errors import ProgramFailed, SourceError
from backup_admin.core.programs import Conversation
from backup_admin.sources import tree_worker

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMMAND = (sys.executable, "-I", "-S", str(Path(tree_worker.__file__)))
_SILENCE_SECONDS = 600.0
_TOGETHER_BYTES = 256 << 10


class FilesAside:
    """Writes small files below a folder that is there, in a process that ends with this one.

    For one thread. A file is written some time before `finish` returns; it is durable when its file
    system is synced.
    """

    def __init__(self, root: Path) -> None:
        """Start the process; raise `ProgramFailed` when that cannot be."""
        self._talk = Conversation(_COMMAND, silence_seconds=_SILENCE_SECONDS)
        self._waiting = bytearray(json.dumps({"root": os.fsencode(root).hex()}).encode() + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self._talk.close()

    def write(self, path: bytes, mode: int, mtime_ns: int, content: bytes) -> None:
        """Hand a file over; raise `SourceError` when nobody takes it any more."""
        time = divmod(mtime_ns, tree_worker.NANO)
        self._waiting += tree_worker.FRAME.pack(len(path), mode, *time, len(content))
        self._waiting += path
        self._waiting += content
        if len(self._waiting) >= _TOGETHER_BYTES:
            self._send()

    def finish(self) -> list[tuple[bytes, str]]:
        """Wait until all are written; return which could not be, each with the reason.

        Raises `SourceError` when that cannot be told.
        """
        self._waiting += tree_worker.FRAME.pack(0, 0, 0, 0, 0)
        self._send()
        try:
            return list(self._failures())
        except ProgramFailed as error:
            raise _ended(error) from error

    def _failures(self) -> Iterator[tuple[bytes, str]]:
        while (line := self._talk.line()) != tree_worker.DONE:
            path, reason = json.loads(line)
            yield bytes.fromhex(path), str(reason)

    def _send(self) -> None:
        try:
            self._talk.say(memoryview(bytes(self._waiting)))
        except ProgramFailed as error:
            raise _ended(error) from error
        except OSError as error:
            raise _ended(self._last_words()) from error
        self._waiting.clear()

    def _last_words(self) -> ProgramFailed:
        """Return why the process ended, which takes nothing any more."""
        try:
            while True:
                self._talk.line()
        except ProgramFailed as ended:
            return ended


def _ended(error: Exception) -> SourceError:
    return SourceError(f"Files could not be written: the process that writes them ended: {error}")
