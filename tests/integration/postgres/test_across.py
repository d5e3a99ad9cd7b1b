"""An app moves from SQLite to PostgreSQL and back: same rows, told by queries that are not ours."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import create_engine, select

from backup_admin.core.errors import RestoreRefused
from backup_admin.core.progress import QuietReporter
from backup_admin.operations.database_export import (
    ExportFormat,
    ExportRequest,
    export_postgres,
    export_sqlite,
)
from backup_admin.sources.formats.imported import ImportOptions
from backup_admin.sources.formats.worker import import_into_sqlite
from backup_admin.sources.postgres.address import parse_postgres_address
from backup_admin.sources.postgres.import_json import import_json
from examples.gallery.fill import TINY, fill
from examples.gallery.folders import Folders
from examples.gallery.models import Base

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.sources.formats.imported import ImportReport
    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the database of a gallery that its migrations made and its app filled."""
    data = tmp_path_factory.mktemp("gallery")
    fill(data, TINY, seed=1)
    found = Folders(data).database_url.removeprefix("sqlite:///")
    path = tmp_path_factory.mktemp("copy") / "gallery.db"
    shutil.copyfile(found, path)
    shell(path, "UPDATE sqlite_sequence SET seq = seq + 5 WHERE name = 'photos'")
    return path


class Site:
    """A server, and a folder for exports."""

    def __init__(self, server: PostgresServer, folder: Path) -> None:
        self.server = server
        self.folder = folder

    def new(self, *scripts: str) -> str:
        name = self.server.new_database()
        with psycopg.connect(self.server.address(name), autocommit=True) as connection:
            for script in scripts:
                connection.execute(script.encode())
        return name

    def new_gallery(self) -> str:
        """Make the gallery's tables as its models say."""
        name = self.new("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
        engine = create_engine(
            "postgresql+psycopg://", creator=lambda: psycopg.connect(self.server.address(name))
        )
        Base.metadata.create_all(engine)
        engine.dispose()
        return name

    def export_sqlite(self, path: Path) -> Path:
        target = self.folder / f"{path.stem}.json"
        export_sqlite(path, ExportRequest(ExportFormat.JSON, target), reporter=QuietReporter())
        return target

    def export(self, name: str) -> Path:
        target = self.folder / f"{name}.json"
        address = parse_postgres_address(self.server.address(name))
        export_postgres(address, ExportRequest(ExportFormat.JSON, target), reporter=QuietReporter())
        return target

    def load(self, folder: Path, name: str, **options: bool) -> ImportReport:
        address = parse_postgres_address(self.server.address(name))
        return import_json(folder, address, ImportOptions(**options))

    def ask(self, name: str, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.server.address(name)) as connection:
            return connection.execute(query.encode()).fetchall()


@pytest.fixture
def site(postgres: PostgresServer, tmp_path: Path) -> Site:
    return Site(postgres, tmp_path)


def shell(path: Path, command: str) -> str:
    return subprocess.run(["sqlite3", path, command], check=True, capture_output=True, text=True).stdout


def empty_like(path: Path, target: Path) -> Path:
    """Make a database with the tables of another and no rows."""
    schema = "\n".join(line for line in shell(path, ".schema").splitlines() if "sqlite_sequence" not in line)
    shell(target, schema)
    return target


def objects(url: str, connect: Any = None) -> dict[str, list[Any]]:
    """Return all rows of the gallery as the app sees them, through SQLAlchemy."""
    engine = create_engine(url, **({"creator": connect} if connect else {}))
    with engine.connect() as connection:
        found = {
            table.name: sorted(map(tuple, connection.execute(select(table))), key=lambda row: repr(row[:2]))
            for table in Base.metadata.tables.values()
        }
    engine.dispose()
    return found


def test_a_gallery_goes_to_postgresql_and_back_row_for_row(gallery: Path, site: Site, tmp_path: Path) -> None:
    name = site.new_gallery()
    before = shell(gallery, ".dump")

    there = site.load(site.export_sqlite(gallery), name)
    back = import_into_sqlite(site.export(name), empty_like(gallery, tmp_path / "back.db"), ImportOptions())

    assert (there.committed, there.refused_rows) == (True, 0)
    assert (back.committed, back.refused_rows) == (True, 0)
    assert shell(gallery, ".dump") == before
    connect = lambda: psycopg.connect(site.server.address(name))  # noqa: E731
    rows = objects(f"sqlite:///{gallery}")
    assert sum(map(len, rows.values())) > 500
    assert objects("postgresql+psycopg://", connect) == rows
    # Storage classes and text, not only what the app makes of them.
    dumps = [sorted(shell(path, ".dump").splitlines()) for path in (gallery, tmp_path / "back.db")]
    assert dumps[1] == dumps[0]
    assert {table.table: table.rows for table in there.tables}["photos"] == TINY.photos
    # An id that was given out and deleted before the move is not given out again.
    (seen,) = shell(gallery, "SELECT seq FROM sqlite_sequence WHERE name = 'photos'").split()
    assert site.ask(name, "SELECT nextval('photos_id_seq')") == [(int(seen) + 1,)]


SHOP = """
CREATE TABLE "Employee" ("EmployeeId" {key}, "LastName" VARCHAR(20) NOT NULL,
  "ReportsTo" INTEGER REFERENCES "Employee", "HireDate" TIMESTAMP, "Photo" {blob});
CREATE TABLE "Customers" ("CustomerID" CHAR(5) PRIMARY KEY, "Company Name" VARCHAR(40), "RepId" INTEGER
  REFERENCES "Employee");
CREATE TABLE "Orders" ("OrderID" {key}, "CustomerID" CHAR(5) REFERENCES "Customers", "OrderDate" DATE,
  "Freight" NUMERIC(10,2) DEFAULT 0);
CREATE TABLE "Order Details" ("OrderID" INTEGER REFERENCES "Orders", "LineNo" SMALLINT,
  "UnitPrice" NUMERIC(10,2), "Discount" {real}, PRIMARY KEY ("OrderID", "LineNo"));
CREATE TABLE "Return; Lines" ("OrderID" INTEGER, "LineNo" INTEGER, "Why" TEXT,
  FOREIGN KEY ("OrderID", "LineNo") REFERENCES "Order Details" ("OrderID", "LineNo"));
"""
SHOP_ROWS = """
INSERT INTO "Employee" VALUES (1, 'Adams', 3, '2002-08-14 00:00:00.000000', X'FFD8'),
  (2, 'Edwards', 1, NULL, NULL),
  (3, 'Peacock', NULL, '2003-05-03 12:30:00.250000', X'');
INSERT INTO "Customers" VALUES ('ALFKI', 'Alfreds "Futterkiste"', 3), ('ANATR', 'Ana; Trujillo''s', NULL);
INSERT INTO "Orders" VALUES (10248, 'ALFKI', '1996-07-04', 32.38), (10249, 'ANATR', '1996-07-05', 11),
  (10250, NULL, NULL, NULL);
INSERT INTO "Order Details" VALUES (10248, 1, 14, 0.0), (10248, 2, 9.8, 0.15), (10249, 1, 18.6, 0.05);
INSERT INTO "Return; Lines" VALUES (10248, 2, 'broken'), (10249, 1, NULL);
"""


def test_a_shop_goes_to_postgresql_and_back_row_for_row(site: Site, tmp_path: Path) -> None:
    schema = SHOP.format(key="INTEGER PRIMARY KEY", blob="BLOB", real="REAL")
    source, target = tmp_path / "shop.db", tmp_path / "back.db"
    shell(source, schema + SHOP_ROWS)
    shell(target, schema)
    name = site.new(SHOP.format(key="SERIAL PRIMARY KEY", blob="BYTEA", real="REAL"))

    there = site.load(site.export_sqlite(source), name)
    back = import_into_sqlite(site.export(name), target, ImportOptions())

    assert (there.refused, back.refused) == ((), ())
    assert shell(target, ".dump") == shell(source, ".dump")
    query = 'SELECT sum("UnitPrice")::text, sum("Discount")::numeric(4,2)::text FROM "Order Details"'
    assert site.ask(name, query) == [("42.40", "0.20")]
    assert site.ask(name, """SELECT nextval('"Orders_OrderID_seq"')""") == [(10251,)]


ODD_SQLITE = """
CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, flag BOOLEAN, born DATE, tags TEXT, note,
  mood TEXT);
INSERT INTO people VALUES (1, 'Ann', 1, '2000-01-01', NULL, 'fine', 'ok'),
  (2, 'ann', 0, NULL, NULL, NULL, NULL),
  (3, CAST(X'610062' AS TEXT), 1, NULL, NULL, NULL, NULL), (4, 'Bo', 2, NULL, NULL, NULL, NULL),
  (5, 'Cy', 1, 'soon', NULL, NULL, NULL), (6, 'Di', 1, NULL, '{a}', NULL, NULL),
  (7, 'Ed', 1, NULL, NULL, 7, NULL),
  (8, 'Flo', 1, NULL, NULL, NULL, 'grim'), (9, 'Gus', 1, '2001-02-03', NULL, 'fine too', 'sad');
CREATE TABLE visits (id INTEGER PRIMARY KEY, person_id INT);
INSERT INTO visits VALUES (1, 1), (2, 5), (3, NULL);
"""
ODD_POSTGRES = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE people (id serial PRIMARY KEY, name text, flag boolean, born date, tags text[], note text,
  mood mood);
CREATE UNIQUE INDEX ON people (lower(name));
CREATE TABLE visits (id int PRIMARY KEY, person_id int REFERENCES people)
"""


def test_what_postgresql_refuses_is_listed_and_nothing_committed(site: Site, tmp_path: Path) -> None:
    shell(tmp_path / "odd.db", ODD_SQLITE)
    folder = site.export_sqlite(tmp_path / "odd.db")
    name, other = site.new(ODD_POSTGRES), site.new(ODD_POSTGRES)

    report = site.load(folder, name)
    partial = site.load(folder, other, partial=True)

    reasons = {(one.table, one.row): one.reason for one in report.refused}
    assert not report.committed
    assert reasons.keys() == {("people", row) for row in range(2, 9)} | {("visits", 2)}
    for row, word in enumerate(
        ["unique", "NUL", "truth value", "no date", "text[]", "no text", "enum public.mood"], 2
    ):
        assert word in reasons["people", row]
    assert "foreign key" in reasons["visits", 2]
    assert site.ask(name, "SELECT count(*) FROM people") == [(0,)]
    assert partial.committed
    assert site.ask(other, "SELECT id, name, flag, born::text, note, mood::text FROM people ORDER BY id") == [
        (1, "Ann", True, "2000-01-01", "fine", "ok"),
        (9, "Gus", True, "2001-02-03", "fine too", "sad"),
    ]
    assert site.ask(other, "SELECT id, person_id FROM visits ORDER BY 1") == [(1, 1), (3, None)]
    assert site.ask(other, "SELECT nextval('people_id_seq')") == [(10,)]


def test_a_gallery_with_a_spoiled_event_and_photo_goes_without_them_and_what_refers_to_them(
    gallery: Path, site: Site, tmp_path: Path
) -> None:
    spoiled = tmp_path / "spoiled.db"
    shutil.copyfile(gallery, spoiled)
    shell(spoiled, "UPDATE events SET created_at = 'soon' WHERE id = 2")
    shell(spoiled, "UPDATE photos SET size_bytes = 'large' WHERE id = (SELECT min(id) FROM photos)")
    folder = site.export_sqlite(spoiled)
    name = site.new_gallery()

    tried = site.load(folder, name, dry_run=True)
    report = site.load(folder, name, partial=True)

    assert report.committed
    assert tried.refused_rows == report.refused_rows > 2
    assert tried.tables == report.tables
    assert site.ask(name, "SELECT count(*) FROM events")[0][0] > 0
    for table in report.tables:
        found = site.ask(name, f"SELECT count(*) FROM {table.table}")[0][0]
        assert found == table.rows
        if not table.already:
            assert found + table.refused == int(shell(spoiled, f"SELECT count(*) FROM {table.table}"))
    assert site.ask(name, "SELECT count(*) FROM photos WHERE event_id NOT IN (SELECT id FROM events)") == [
        (0,)
    ]


def test_what_sqlite_has_no_place_for_is_listed_and_nothing_committed(site: Site, tmp_path: Path) -> None:
    columns = "id int PRIMARY KEY, amount numeric, at timestamptz, tags text[], span int4range, code text"
    name = site.new(
        f"CREATE TABLE odd ({columns}, doc jsonb)",
        "INSERT INTO odd (id, amount, at, code, doc) VALUES (1, 1.50, '2024-01-01 12:00+02', 'x', '[1]')",
        "INSERT INTO odd (id, amount) VALUES (2, 'NaN'), (3, 0.12345678901234567890)",
        "INSERT INTO odd (id, at) VALUES (4, 'infinity'), (5, '0044-03-15 BC')",
        "INSERT INTO odd (id, tags, span) VALUES (6, '{a}', NULL), (7, NULL, '[1,2)')",
        "INSERT INTO odd (id, code) VALUES (8, 'twice'), (9, 'TWICE'), (10, '12')",
    )
    schema = (
        "CREATE TABLE odd (id INTEGER PRIMARY KEY, amount NUMERIC(10, 2), at DATETIME, tags TEXT, span TEXT, "
        "code TEXT COLLATE NOCASE UNIQUE, doc JSON)"
    )
    target, partial = tmp_path / "new.db", tmp_path / "partial.db"
    shell(target, schema)
    shell(partial, schema)
    folder = site.export(name)

    report = import_into_sqlite(folder, target, ImportOptions())
    left = import_into_sqlite(folder, partial, ImportOptions(partial=True))

    reasons = {one.row: one.reason for one in report.refused}
    assert reasons.keys() == set(range(2, 8)) | {9}
    for row, word in zip(
        [*range(2, 8), 9],
        ["NaN", "digits", "no time", "no time", "text[]", "int4range", "UNIQUE"],
        strict=True,
    ):
        assert word in reasons[row]
    assert shell(target, "SELECT count(*) FROM odd") == "0\n"
    assert left.committed
    assert shell(partial, "SELECT id, amount, at, code, doc, typeof(amount) FROM odd") == (
        "1|1.5|2024-01-01 10:00:00.000000|x|[1]|real\n8|||twice||null\n10|||12||null\n"
    )


def test_numbers_documents_and_blobs_are_the_same_after_both_ways(site: Site, tmp_path: Path) -> None:
    source = tmp_path / "app.db"
    with closing(sqlite3.connect(source)) as database, database:
        database.execute(
            "CREATE TABLE v (id INTEGER PRIMARY KEY, r REAL, n NUMERIC(20, 4), b BLOB, j JSON, u CHAR(32), "
            "k JSON, t TIME)"
        )
        numbers = [0.1, 1e300, 5e-324, -0.5, 1e16, 123456.0, float("inf"), None]
        for row, number in enumerate(numbers):
            document = json.dumps({"ü": number or 1, "a": [row]})
            values = (number, row / 4, bytes([row, 0, 255]), document, f"{row:032x}")
            more = (row if row % 2 else f'"{row}"', f"10:20:{row:02d}.000000")
            database.execute("INSERT INTO v VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (row, *values, *more))
        database.execute("UPDATE v SET j = replace(j, 'Infinity', '1e999')")
    name = site.new(
        "CREATE TABLE v (id int PRIMARY KEY, r double precision, n numeric(20,4), b bytea, j jsonb, u uuid, "
        "k json, t time)"
    )
    target = empty_like(source, tmp_path / "back.db")

    there = site.load(site.export_sqlite(source), name)
    back = import_into_sqlite(site.export(name), target, ImportOptions())

    assert (there.refused, back.refused) == ((), ())
    query = "SELECT id, r, typeof(r), n, typeof(n), hex(b), u, k, typeof(k), t FROM v ORDER BY id"
    assert shell(target, query) == shell(source, query)
    # jsonb keeps the content, not the text.
    texts = [shell(path, "SELECT j FROM v").splitlines() for path in (source, target)]
    documents = [[json.loads(line, parse_int=float) for line in lines] for lines in texts]
    assert documents[0] == documents[1]


def test_names_are_found_whatever_their_case(site: Site, tmp_path: Path) -> None:
    source = tmp_path / "app.db"
    shell(
        source,
        'CREATE TABLE "Items" ("ItemId" INTEGER PRIMARY KEY, "order" TEXT); '
        "INSERT INTO Items VALUES (1, 'a');"
        "CREATE VIRTUAL TABLE words USING fts5(w); INSERT INTO words VALUES ('hello')",
    )
    name = site.new(
        'CREATE TABLE items (itemid int PRIMARY KEY, "order" text, made timestamptz DEFAULT now())'
    )

    report = site.load(site.export_sqlite(source), name)

    assert [(one.table, one.rows) for one in report.tables] == [("Items", 1)]
    assert site.ask(name, 'SELECT itemid, "order", made IS NOT NULL FROM items') == [(1, "a", True)]
    assert "virtual" in report.notices[0]
    with pytest.raises(RestoreRefused, match="no table Items"):
        site.load(tmp_path / "app.json", site.new("CREATE TABLE other (id int)"))
