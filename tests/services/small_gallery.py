"""The tables of the demo gallery with a few rows, on either engine; and the same questions to both.

What is asked goes through `pg_dump`, SQLite's own dump and plain SQL, never through code of ours.
"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
from sqlalchemy import MetaData, create_engine, insert, text, update

from backup_admin.sources.postgres.address import parse_postgres_address
from backup_admin.sources.postgres.capture import capturing
from backup_admin.sources.postgres.clients import find_clients
from backup_admin.sources.postgres.merge_rows import CapturedParts, merge_into_postgres
from backup_admin.sources.postgres.parts import TablePart
from backup_admin.sources.postgres.undo_rows import undo_in_postgres
from backup_admin.sources.sqlite import SqliteSource
from backup_admin.sources.sqlite_rows import merge_into_sqlite, undo_in_sqlite
from examples.gallery import models
from examples.gallery.models import Base
from tests.services.postgres_oracle import dump_text

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from backup_admin.sources.merging.merge_model import MergeReport, MergeRequest, UndoReport
    from tests.services.postgres import PostgresServer

_NOW = datetime(2026, 5, 1, 12, tzinfo=UTC).replace(tzinfo=None)
EVENTS, PHOTOS, CATEGORIES = 3, 4, 2


class Database(Protocol):
    """A live database of a test and one captured state of it."""

    engine: str

    def run(self, *statements: str) -> None:
        """Carry out statements, each by itself."""

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what a query finds."""

    def dump(self) -> list[str]:
        """Return all of it as a program that is not ours writes it."""

    def capture(self) -> None:
        """Keep the state it has now, to be restored from."""

    def merge(self, request: MergeRequest, *, dry: bool = False, record: Path | None = None) -> MergeReport:
        """Restore rows of what was captured; keep what an undo needs."""

    def undo(self, record: Path, *, dry: bool = False) -> UndoReport:
        """Take back a restore."""


def table_hash(database: Database, table: str, where: str = "TRUE") -> str:
    """Return a digest of rows."""
    rows = sorted(map(repr, database.rows(f"SELECT * FROM {table} WHERE {where}")))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


@dataclass
class PostgresDatabase:
    """A database on a server, owned by a plain user."""

    server: PostgresServer
    name: str
    captured: CapturedParts | None = None
    engine: str = "postgresql"

    @property
    def address(self) -> str:
        return self.server.address(self.name)

    def run(self, *statements: str) -> None:
        with psycopg.connect(self.address, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.address, autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()

    def dump(self) -> list[str]:
        return dump_text(self.server, self.name)

    def capture(self) -> None:
        parts: list[TablePart] = []
        data: dict[str, bytes] = {}
        with capturing(parse_postgres_address(self.address), find_clients()) as captured:
            for number, table in enumerate(captured.catalog.tables):
                found, view = bytearray(), memoryview(bytearray(100_000))
                with captured.table(table) as reader:
                    while count := reader.read_into(view):
                        found += view[:count]
                digest = hashlib.sha256(found).hexdigest()
                parts.append(TablePart(table, f"{number}.copy", reader.rows, len(found), digest))
                data[f"{number}.copy"] = bytes(found)
            contents = captured.contents(parts)
        self.captured = CapturedParts(contents, lambda name: [data[name]])

    def merge(self, request: MergeRequest, *, dry: bool = False, record: Path | None = None) -> MergeReport:
        assert self.captured is not None
        address = parse_postgres_address(self.address)
        return merge_into_postgres(address, self.captured, request, dry=dry, record=record)

    def undo(self, record: Path, *, dry: bool = False) -> UndoReport:
        return undo_in_postgres(parse_postgres_address(self.address), record, dry=dry)


@dataclass
class SqliteDatabase:
    """A database in a file, in WAL mode."""

    path: Path
    copy: Path | None = None
    engine: str = "sqlite"

    def run(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute("PRAGMA foreign_keys=ON")
            for statement in statements:
                connection.execute(statement)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(query).fetchall()

    def dump(self) -> list[str]:
        with closing(sqlite3.connect(self.path)) as connection:
            return sorted(connection.iterdump())

    def capture(self) -> None:
        scratch = self.path.parent / "scratch"
        scratch.mkdir(exist_ok=True)
        self.copy = SqliteSource("app", self.path).capture(scratch).path

    def merge(self, request: MergeRequest, *, dry: bool = False, record: Path | None = None) -> MergeReport:
        assert self.copy is not None
        return merge_into_sqlite(self.copy, self.path, request, dry=dry, record=record)

    def undo(self, record: Path, *, dry: bool = False) -> UndoReport:
        return undo_in_sqlite(self.path, record, self.path.parent, dry=dry)


def sqlite_database(folder: Path, *statements: str) -> SqliteDatabase:
    """Make a database of statements."""
    database = SqliteDatabase(folder / "app.db")
    database.run("PRAGMA journal_mode=WAL", *statements)
    return database


def postgres_database(server: PostgresServer, *statements: str) -> PostgresDatabase:
    """Make a database of statements."""
    database = PostgresDatabase(server, server.new_database())
    database.run(*statements)
    return database


def fill(database: Database) -> None:
    """Make the tables of the gallery and put some rows into each that matters here."""
    if isinstance(database, PostgresDatabase):
        engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database.address))
    else:
        assert isinstance(database, SqliteDatabase)
        engine = create_engine(f"sqlite:///{database.path}")
    # A copy: making tables for PostgreSQL takes the keys that go in circles out of them for good.
    tables = MetaData()
    for table in Base.metadata.tables.values():
        table.to_metadata(tables)
    tables.create_all(engine)
    with engine.begin() as connection:
        _fill_people(connection)
        for event in range(1, EVENTS + 1):
            _fill_event(connection, event)
        if isinstance(database, PostgresDatabase):
            for name in ("roles", "admin_users", "customer_accounts", "event_types", "events", "photos"):
                connection.execute(text(f"SELECT setval('{name}_id_seq', (SELECT max(id) FROM {name}))"))
            for name in ("photo_categories", "gallery_guests", "photo_feedback"):
                connection.execute(text(f"SELECT setval('{name}_id_seq', (SELECT max(id) FROM {name}))"))
    engine.dispose()


def _fill_people(connection: Connection) -> None:
    connection.execute(insert(models.Role), [{"id": 1, "name": "admin"}, {"id": 2, "name": "helper"}])
    admin = {"password_hash": "x", "is_active": True, "created_at": _NOW, "last_login_at": None}
    for number, role, by in ((1, 1, None), (2, 2, 1), (3, 2, 2)):
        row = {"id": number, "username": f"user{number}", "email": f"u{number}@x", "role_id": role}
        connection.execute(insert(models.AdminUser), [{**admin, **row, "created_by": by}])
    for number in range(1, EVENTS + 1):
        row = {
            "id": number,
            "name": f"c{number}",
            "email": f"c{number}@x",
            "notes": "it's; \\n",
            "balance_cents": 2**40,
        }
        connection.execute(insert(models.CustomerAccount), [row])
    connection.execute(
        insert(models.EventType), [{"id": 1, "slug": "wedding", "name": "Wedding", "emoji": "💒"}]
    )


def _fill_event(connection: Connection, number: int) -> None:
    event = {
        "id": number,
        "slug": f"event-{number}",
        "title": f"Event {number} ü",
        "type_id": 1,
        "customer_id": number,
        "event_date": date(2026, 5, number),
        "status": "active",
        "password_hash": "x",
        "share_token": f"token-{number}",
        "welcome_message": "Hi\t\n\\.",
        "theme": {"a": [1, 2.5, None]},
        "allow_downloads": True,
        "average_rating": 4.25,
        "total_bytes": 2**40,
        "view_count": 7,
        "created_by": 3,
        "created_at": _NOW,
    }
    connection.execute(insert(models.Event), [event])
    for n in range(CATEGORIES):
        row = {"id": number * 10 + n, "event_id": number, "slug": f"s{n}", "name": f"S{n}"}
        connection.execute(insert(models.PhotoCategory), [row])
    for n in range(PHOTOS):
        photo = {
            "id": number * 100 + n,
            "event_id": number,
            "category_id": number * 10 + n % CATEGORIES,
            "filename": f"{n}.jpg",
            "path": f"event-{number}/{n}.jpg",
            "thumbnail_path": "t",
            "preview_path": "p",
            "size_bytes": 3 * 10**9,
            "width": 4,
            "height": 3,
            "visibility": "visible",
            "is_favorite": n == 0,
            "exif": {},
            "taken_at": _NOW,
            "uploaded_at": _NOW,
        }
        connection.execute(insert(models.Photo), [photo])
    connection.execute(
        insert(models.GalleryGuest),
        [{"id": number, "event_id": number, "name": "G", "invite_token": f"i{number}", "created_at": _NOW}],
    )
    for n in range(PHOTOS):
        row = {
            "photo_id": number * 100 + n,
            "guest_id": number,
            "kind": "rating",
            "rating": 5,
            "created_at": _NOW,
        }
        connection.execute(insert(models.PhotoFeedback), [{"id": number * 1000 + n, **row}])
    hero = {"hero_photo_id": number * 100 + 1}
    connection.execute(update(models.Event).where(models.Event.id == number).values(hero))
    connection.execute(
        update(models.PhotoCategory).where(models.PhotoCategory.event_id == number).values(hero)
    )
