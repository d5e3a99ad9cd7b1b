"""Write small files of a tree in a process of its own, then end.

Runs as a script: a line with the root as JSON on standard input, then the files as frames
(`FRAME`, path, content) up to one without a path. Then it tells which could not be written, a
line of JSON each, and `done`.

Why a process: making a small file takes about as long as finding out what belongs into it, and
threads would wait for each other's interpreter lock after each call of the system.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path
from typing import BinaryIO

if __name__ == "__main__":
    # `python -I` may know another copy of this package or none; this is the one.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from backup_admin.core.errors import BackupAdminError
from backup_admin.sources.tree import TreeWriter

FRAME = struct.Struct("<HIqII")
"""Length of the path, mode, time of change in seconds and nanoseconds (together more than 64 bits), size."""
NANO = 1_000_000_000
DONE = b"done"
_BUFFER_BYTES = 1 << 20


def main() -> None:
    """Write what comes in."""
    with os.fdopen(0, "rb", buffering=_BUFFER_BYTES) as source:
        root = Path(os.fsdecode(bytes.fromhex(json.loads(source.readline())["root"])))
        with TreeWriter(root, create=False) as writer:
            failures = _write_all(source, writer)
    answer = [json.dumps([path.hex(), reason]).encode() for path, reason in failures]
    sys.stdout.buffer.write(b"\n".join((*answer, DONE, b"")))


def _write_all(source: BinaryIO, writer: TreeWriter) -> list[tuple[bytes, str]]:
    failures: list[tuple[bytes, str]] = []
    while True:
        length, mode, seconds, nanoseconds, size = FRAME.unpack(_read(source, FRAME.size))
        if not length:
            return failures
        path, content = _read(source, length), _read(source, size)
        try:
            with writer.file(path, mode, seconds * NANO + nanoseconds, size) as file:
                file.write(content)
        except (BackupAdminError, OSError, ValueError) as error:
            failures.append((path, str(error)))


def _read(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise SystemExit("What was to be written ended in the middle.")
    return data


if __name__ == "__main__":
    main()
