"""What a database holds and how it is built, told by SQLite's own programs and by its header."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.sqlite_tools import SqliteTools

# In a process of its own, with the app's collation and function, and none of our code.
_ROWS = """
import sqlite3, sys
from urllib.parse import quote
db = sqlite3.connect(f"file:{quote(sys.argv[1])}?mode=rw", uri=True)
db.create_collation("ours", lambda a, b: (a < b) - (a > b))
db.create_function("double_of", 1, lambda v: 2 * v, deterministic=True)
db.text_factory = bytes
print(db.execute("PRAGMA integrity_check").fetchall())
print(db.execute("PRAGMA foreign_key_check").fetchall())
schema = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2"
for kind, name, table, sql in db.execute(schema).fetchall():
    print(kind, name, table, sql)
    if kind != b"table" or b"VIRTUAL TABLE" in (sql or b"")[:30]:
        continue
    quoted = '"' + name.decode().replace('"', '""') + '"'
    columns = [row[1].decode() for row in db.execute(f"PRAGMA table_xinfo({quoted})")]
    named = ["typeof({0}), {0}".format('"' + c.replace('"', '""') + '"') for c in columns]
    try:
        rows = db.execute(f"SELECT rowid, {', '.join(named)} FROM {quoted} NOT INDEXED ORDER BY 1").fetchall()
    except sqlite3.OperationalError:
        rows = sorted(db.execute(f"SELECT {', '.join(named)} FROM {quoted}").fetchall(), key=repr)
    for row in rows:
        print(row)
"""


def portray(tools: SqliteTools, path: Path, *, knows: bool = False) -> dict[str, object]:
    """Say all that has to be the same after a restore, but for the bytes and the journal mode."""
    rows = subprocess.run([sys.executable, "-c", _ROWS, path], capture_output=True, check=False)
    assert rows.returncode == 0, (path, rows.stderr)
    assert rows.stdout.startswith(b"[(b'ok',)]\n"), (path, rows.stdout[:200])
    found: dict[str, object] = {"rows": _short(rows.stdout), **header(path)}
    if not knows:
        found["dump"] = _short(tools.ask(path, ".dump"))
        found["sha3sum"] = tools.ask(path, ".sha3sum --schema")
    return found


def header(path: Path) -> dict[str, int]:
    """Read what the header says of how the database is built; SQLite has to be done with it."""
    with path.open("rb") as file:
        head = file.read(100)

    def number(offset: int, size: int = 4) -> int:
        return int.from_bytes(head[offset : offset + size], "big")

    return {
        "page size": number(16, 2),
        "reserved": head[20],
        "auto vacuum": number(52),
        "encoding": number(56),
        "user version": number(60),
        "incremental vacuum": number(64),
        "application id": number(68),
        "schema format": number(44),
        "free pages": number(36),
        "pages": number(28),
    }


def is_wal(path: Path) -> bool:
    """Say whether a database at rest is in WAL mode."""
    with path.open("rb") as file:
        return file.read(20)[18:] == b"\2\2"


def _short(text: bytes) -> tuple[int, str]:
    return len(text), hashlib.sha256(text).hexdigest()
