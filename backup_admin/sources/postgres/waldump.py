"""When the transactions in WAL segments ended, as `pg_waldump` of the server's version reads them."""

from __future__ import annotations

import re
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from backup_admin.core.programs import stream_program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.core.programs import ProgramOutput
    from backup_admin.sources.postgres.clients import ClientPrograms

_SILENCE_SECONDS = 600.0
_BLOCK_BYTES = 256 << 10
# A server that recovers to a time stops before the first of these that is later.
_END = re.compile(
    rb"desc: (?:COMMIT|ABORT)(?:_PREPARED \d+:)? (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?) UTC", re.ASCII
)


@contextmanager
def ends_of_transactions(
    programs: ClientPrograms, folder: Path, first: str, last: str
) -> Iterator[Iterator[datetime]]:
    """Give the times at which transactions ended in the segments `first` to `last` of one timeline.

    A record that is cut off at either end is left out: what is given is there.
    """
    command = [str(programs.folder / "pg_waldump"), "--rmgr=Transaction", f"--path={folder}", first, last]
    with stream_program(command, silence_seconds=_SILENCE_SECONDS, environment={"TZ": "UTC"}) as output:
        yield _parse(output)


def _parse(output: ProgramOutput) -> Iterator[datetime]:
    buffer, rest = bytearray(_BLOCK_BYTES), b""
    while count := output.readinto(buffer):
        *lines, rest = (rest + bytes(memoryview(buffer)[:count])).split(b"\n")
        for line in lines:
            found = _END.search(line)
            if found is not None:
                yield datetime.fromisoformat(found[1].decode()).replace(tzinfo=UTC)
