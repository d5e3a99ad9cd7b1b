"""The database of the gates for SQLite: photographs with an index on a random hash, and a day of changes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

ROWS = 900_000
_EVENTS = 2_000
_SCHEMA = """
PRAGMA page_size = 4096;
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE events (id INTEGER PRIMARY KEY, slug TEXT NOT NULL UNIQUE, name TEXT NOT NULL);
CREATE TABLE photos (id INTEGER PRIMARY KEY, event_id INTEGER NOT NULL REFERENCES events (id),
    path TEXT NOT NULL, thumbnail TEXT NOT NULL, guest TEXT, caption TEXT,
    sha256 TEXT NOT NULL, size INTEGER NOT NULL,
    rating REAL, exif TEXT, views INTEGER NOT NULL DEFAULT 0, uploaded_at TEXT NOT NULL);
CREATE INDEX photos_by_event ON photos (event_id, uploaded_at);
CREATE INDEX photos_by_hash ON photos (sha256);
"""
_INSERT = "INSERT INTO photos VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_WORDS = ("garden", "evening", "table", "music", "dance", "family", "smile", "lights", "שמחה", "cake")
_MAKES = ("Canon", "Nikon", "Sony")
_DAY = {"inserts": 5_000, "updates": 900, "deletes": 450}


def make_photos(path: Path, rows: int, chance: random.Random) -> None:
    """Make the database with so many photographs; 900,000 are some 500 MB, half of it indexes."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript(_SCHEMA + "BEGIN;")
        db.executemany(
            "INSERT INTO events VALUES (?, ?, ?)",
            ((number, f"event-{number}", f"Event {number}") for number in range(_EVENTS)),
        )
        db.executemany(_INSERT, _photos(range(1, rows + 1), chance))
        db.execute("COMMIT")
        db.execute("PRAGMA journal_mode = WAL")


def change_photos(path: Path, scale: float, chance: random.Random) -> None:
    """Change rows all over the database as a day does: 5,000 come, 900 change, 450 go."""
    counts = {kind: max(1, round(count * scale)) for kind, count in _DAY.items()}
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN")
        newest = db.execute("SELECT max(id) FROM photos").fetchone()[0]
        chosen = chance.sample(range(1, newest + 1), counts["updates"] + counts["deletes"])
        changed, gone = chosen[: counts["updates"]], chosen[counts["updates"] :]
        db.executemany("UPDATE photos SET views = views + 1 WHERE id = ?", ((one,) for one in changed))
        db.executemany("DELETE FROM photos WHERE id = ?", ((one,) for one in gone))
        db.executemany(_INSERT, _photos(range(newest + 1, newest + 1 + counts["inserts"]), chance))
        db.execute("COMMIT")


def changed_pages(before: Path, after: Path) -> tuple[int, int]:
    """Return how many pages of a database differ from an earlier copy of it, and how large one is."""
    with before.open("rb") as old, after.open("rb") as new:
        size = int.from_bytes(new.read(18)[16:], "big")
        new.seek(0)
        count = 0
        while page := new.read(size):
            count += page != old.read(size)
    return count, size


def _photos(numbers: range, chance: random.Random) -> Iterator[tuple[object, ...]]:
    for number in numbers:
        event = chance.randrange(_EVENTS)
        yield (
            number,
            event,
            f"events/active/event-{event}/photo_{number:07d}.jpg",
            f"thumbnails/event-{event}/thumb_photo_{number:07d}.jpg",
            f"guest {chance.randrange(90_000)} of event {event}",
            " ".join(chance.choices(_WORDS, k=20)),
            f"{chance.getrandbits(256):064x}",
            chance.randrange(20_000, 6_000_000),
            chance.random() * 5,
            f'{{"iso": {chance.choice((100, 200, 400, 800))}, "exposure": "1/{chance.randrange(30, 4000)}", '
            f'"lens": "{chance.randrange(14, 400)} mm", "make": "{chance.choice(_MAKES)}"}}',
            chance.randrange(500),
            f"20{22 + number % 4}-{1 + number % 12:02d}-{1 + number % 28:02d} {number % 24:02d}:30:00",
        )
