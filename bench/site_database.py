"""The database of the benchmark's photo site: events, photos, guests and their visits."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

_EVENTS = 400
_SCHEMA = """
PRAGMA page_size = 4096;
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE events (id INTEGER PRIMARY KEY, slug TEXT UNIQUE, name TEXT, host TEXT, secret TEXT,
    welcome TEXT, expires_at TEXT, hero_photo_id INTEGER REFERENCES photos (id));
CREATE TABLE photos (id INTEGER PRIMARY KEY, event_id INTEGER REFERENCES events (id) ON DELETE CASCADE,
    path TEXT, thumbnail_path TEXT, size INTEGER, sha256 TEXT, exif TEXT, views INTEGER, uploaded_at TEXT);
CREATE INDEX photos_by_event ON photos (event_id);
CREATE TABLE guests (id INTEGER PRIMARY KEY, event_id INTEGER, name TEXT, token BLOB UNIQUE, seen_at TEXT);
CREATE TABLE visits (id INTEGER PRIMARY KEY, event_id INTEGER, photo_id INTEGER, guest_id INTEGER,
    address TEXT, agent TEXT, action TEXT, at TEXT);
CREATE INDEX visits_by_event ON visits (event_id, at);
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT);
"""
_AGENTS = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_{} like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/12{}.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Linux; Android 1{}; SM-S918B) AppleWebKit/537.36 Chrome/126.0.0.0 Mobile",
)
_ACTIONS = ("view", "download", "login", "login failed", "rate", "download all")
_INSERT_PHOTO = "INSERT INTO photos VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_VISIT = (
    "INSERT INTO visits (event_id, photo_id, guest_id, address, agent, action, at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)


def make_database(path: Path, rows: int, chance: random.Random) -> None:
    """Make the database with about so many rows; a million are some 190 MB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    photos, guests = rows // 10, rows // 30
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript(_SCHEMA + "BEGIN;")
        db.executemany(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (_event(number, photos, chance) for number in range(1, _EVENTS + 1)),
        )
        db.executemany(_INSERT_PHOTO, (_photo(number, chance) for number in range(1, photos + 1)))
        db.executemany(
            "INSERT INTO guests VALUES (?, ?, ?, ?, ?)",
            (
                (number, 1 + number % _EVENTS, f"Guest {number} 🎉", chance.randbytes(32), _moment(number))
                for number in range(1, guests + 1)
            ),
        )
        db.executemany(_INSERT_VISIT, _visits(chance, rows - photos - guests, 0, photos))
        db.executemany(
            "INSERT INTO settings VALUES (?, ?)",
            ((f"setting {number}", json.dumps({"value": chance.random()})) for number in range(300)),
        )
        db.execute("COMMIT")


def change_database(path: Path, chance: random.Random, day: int) -> None:
    """Change it as a day does: visits come and the oldest go, photos are viewed and added."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN;")
        photos = db.execute("SELECT max(id) FROM photos").fetchone()[0]
        visits = db.execute("SELECT max(id) FROM visits").fetchone()[0]
        db.executemany(
            "UPDATE photos SET views = views + 1 WHERE id = ?",
            ((chance.randrange(1, photos + 1),) for _ in range(max(5, photos // 200))),
        )
        new = range(photos + 1, photos + 1 + max(5, photos // 100))
        db.executemany(_INSERT_PHOTO, (_photo(number, chance) for number in new))
        db.executemany(_INSERT_VISIT, _visits(chance, max(10, visits // 100), visits, photos))
        db.execute("DELETE FROM visits WHERE id < (SELECT min(id) FROM visits) + ?", (max(5, visits // 500),))
        db.execute("UPDATE settings SET value = ? WHERE key = 'setting 7'", (f"day {day}",))
        db.execute("COMMIT")


def export_database(path: Path, export: Path) -> None:
    """Write photos and visits as text, a line each, as a nightly dump does."""
    export.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path)) as db, export.open("w", encoding="utf-8") as file:
        for table in ("photos", "visits"):
            file.write(f"COPY {table} FROM stdin;\n")
            for row in db.execute(f"SELECT * FROM {table} ORDER BY id"):
                file.write("\t".join(map(str, row)) + "\n")
            file.write("\\.\n")


def log_lines(chance: random.Random, count: int) -> bytes:
    """Return lines of an access log, about 80 bytes each."""
    lines = (
        f"{_address(chance)} [{_moment(chance.randrange(10**6))}] "
        f'"GET /event/{chance.randrange(_EVENTS)}/photo/{chance.randrange(60_000)} HTTP/2" '
        f"{chance.choice((200, 200, 200, 304, 404))} {chance.randrange(10**6)}\n"
        for _ in range(count)
    )
    return "".join(lines).encode()


def _event(number: int, photos: int, chance: random.Random) -> tuple[object, ...]:
    welcome = " ".join(f"{chance.randrange(10**6):x}" for _ in range(120))
    secret = f"$2b$12${chance.getrandbits(212):053x}"
    hero = chance.randrange(1, photos + 1)
    name = f"Event of host {number} ערב"
    return (
        number,
        f"event-{number}",
        name,
        f"host{number}@example.org",
        secret,
        welcome,
        _moment(number * 9_000),
        hero,
    )


def _photo(number: int, chance: random.Random) -> tuple[object, ...]:
    exif = {
        "make": chance.choice(("Canon", "Nikon", "Sony")),
        "iso": chance.choice((100, 200, 400, 800)),
        "exposure": f"1/{chance.randrange(30, 4000)}",
        "lens": f"{chance.randrange(14, 400)} mm",
    }
    path = f"events/active/event-{number % _EVENTS}/photo_{number:06d}.jpg"
    return (
        number,
        1 + number % _EVENTS,
        path,
        f"thumbnails/thumb_photo_{number:06d}.jpg",
        chance.randrange(20_000, 6_000_000),
        f"{chance.getrandbits(256):064x}",
        json.dumps(exif),
        chance.randrange(500),
        _moment(number * 97),
    )


def _visits(chance: random.Random, count: int, first: int, photos: int) -> Iterator[tuple[object, ...]]:
    for number in range(first, first + count):
        yield (
            chance.randrange(1, _EVENTS + 1),
            chance.randrange(1, photos + 1),
            chance.randrange(1, 2_000),
            _address(chance),
            _AGENTS[chance.randrange(3)].format(chance.randrange(10)),
            _ACTIONS[chance.randrange(6)],
            _moment(number * 31),
        )


def _address(chance: random.Random) -> str:
    return ".".join(str(chance.randrange(1, 255)) for _ in range(4))


def _moment(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    date = f"20{22 + days // 336 % 3}-{1 + days // 28 % 12:02d}-{1 + days % 28:02d}"
    return f"{date} {rest // 3600:02d}:{rest // 60 % 60:02d}:00"
