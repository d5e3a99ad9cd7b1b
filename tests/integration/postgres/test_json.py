"""A database as JSON Lines and back in another one: the same to queries of the test's own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from backup_admin.core.errors import Damaged, RestoreRefused
from backup_admin.core.progress import QuietReporter
from backup_admin.operations.database_export import ExportFormat, ExportRequest, export_postgres
from backup_admin.sources.formats.imported import ImportOptions
from backup_admin.sources.postgres.address import parse_postgres_address
from backup_admin.sources.postgres.import_json import import_json
from tests.services.postgres_oracle import GALLERY, dump_text

if TYPE_CHECKING:
    from backup_admin.sources.formats.imported import ImportReport
    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration

TYPES = Path(__file__).with_name("types_table.sql").read_text()
SCHEMA, ROWS = TYPES.split("INSERT INTO", 1)
CIRCLE = """
CREATE TABLE child (id int PRIMARY KEY, parent_id int NOT NULL, next_id int REFERENCES child);
CREATE TABLE parent (id serial PRIMARY KEY, favourite int REFERENCES child);
ALTER TABLE child ADD FOREIGN KEY (parent_id) REFERENCES parent
"""

EMPTY = '''
TRUNCATE events, photos, logs, base, derived, nothing, sessions, secret_rows, "odd; schema ""x"""."-t
 'able'" CASCADE
'''
A = "CREATE TABLE a (id int PRIMARY KEY, name {});"
B = "CREATE TABLE b (id int PRIMARY KEY, a_id int REFERENCES a)"


class Databases:
    """Databases of one server: made, filled, exported, imported, asked."""

    def __init__(self, server: PostgresServer, folder: Path) -> None:
        self.server = server
        self.folder = folder

    def new(self, *scripts: str) -> str:
        name = self.server.new_database()
        self.run(name, *scripts)
        return name

    def run(self, name: str, *scripts: str) -> None:
        with psycopg.connect(self.server.address(name), autocommit=True) as connection:
            for script in scripts:
                connection.execute(script.encode())

    def export(self, name: str, kind: ExportFormat = ExportFormat.JSON) -> Path:
        target = self.folder / f"{name}.{kind}"
        request = ExportRequest(kind, target)
        export_postgres(parse_postgres_address(self.server.address(name)), request, reporter=QuietReporter())
        return target

    def load(self, folder: Path, name: str, *, partial: bool = False, dry_run: bool = False) -> ImportReport:
        address = parse_postgres_address(self.server.address(name))
        return import_json(folder, address, ImportOptions(partial=partial, dry_run=dry_run))

    def ask(self, name: str, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.server.address(name)) as connection:
            return connection.execute(query.encode()).fetchall()

    def digest(self, name: str, table: str) -> Any:
        return self.ask(
            name, f"SELECT count(*), md5(string_agg(t::text, E'\\n' ORDER BY t::text)) FROM {table} t"
        )


@pytest.fixture
def databases(postgres: PostgresServer, tmp_path: Path) -> Databases:
    return Databases(postgres, tmp_path)


def test_every_type_comes_back_as_it_was(databases: Databases) -> None:
    name, other = databases.new(TYPES), databases.new(SCHEMA)

    report = databases.load(databases.export(name), other)

    assert report.committed
    assert databases.digest(other, "types") == databases.digest(name, "types")
    assert databases.ask(other, "SELECT count(*) FROM types") == [(4,)]
    databases.run(other, "INSERT INTO types (small) VALUES (7)")
    assert databases.ask(other, "SELECT id, doubled FROM types WHERE small = 7") == [(5, 14)]


def test_every_line_is_json_with_each_value_as_text(databases: Databases) -> None:
    folder = databases.export(databases.new(TYPES))

    (table,) = json.loads((folder / "export.json").read_text())["tables"]
    data = (folder / table["file"]).read_bytes()
    head, *rows = [json.loads(line) for line in data.decode().split("\n")[:-1]]

    assert head["table"] == "types"
    assert head["pk"] == ["id"]
    assert head["settings"]["timezone"] == "UTC"
    assert dict(zip(head["columns"], head["types"], strict=True)).items() >= {
        ("price", "numeric(12,4)"),
        ("m", "enum(public.mood)"),
        ("mail", "text"),
        ("arr", "integer[]"),
    }
    first = dict(zip(head["columns"], rows[0], strict=True))
    assert first["txt"] == 'tab\t nl\n cr\r bs\\ vt\x0b bell\x07 esc\x1b q" n\\N u😀 \\.'
    assert first["arr"] == "[2:3]={7,8}"
    assert first["j"] == '{"a": 1, "a": 2.0,  "b":1e400}'
    assert rows[3] == ["4", *[None] * (len(head["columns"]) - 1)]
    assert "doubled" not in head["columns"]
    assert (table["rows"], table["bytes"]) == (4, len(data))
    assert table["sha256"] == hashlib.sha256(data).hexdigest()


def test_a_database_with_most_of_what_there_is_comes_back_whole(databases: Databases) -> None:
    name, other = databases.new(GALLERY), databases.new(GALLERY, EMPTY)
    databases.run(name, "INSERT INTO nothing DEFAULT VALUES", "INSERT INTO nothing DEFAULT VALUES")

    report = databases.load(databases.export(name), other)

    databases.run(other, "REFRESH MATERIALIZED VIEW per_event")
    assert report.refused == ()
    assert "large objects" in report.notices[0]
    for one in (name, other):
        databases.run(one, "SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
    # The text of the schema too: triggers and keys are as they were before.
    assert dump_text(databases.server, other) == dump_text(databases.server, name)


def test_keys_in_a_circle_wait_and_are_as_before_afterwards(databases: Databases) -> None:
    name, other = databases.new(CIRCLE), databases.new(CIRCLE)
    databases.run(
        name,
        "BEGIN; SET CONSTRAINTS ALL DEFERRED; INSERT INTO parent (id) VALUES (1); INSERT INTO child VALUES "
        "(5, 1, 5), (2, 1, 5), (1, 1, 2); UPDATE parent SET favourite = 1; COMMIT",
        "SELECT setval('parent_id_seq', 40)",
    )

    databases.load(databases.export(name), other)

    assert databases.ask(other, "SELECT * FROM child ORDER BY 1") == [(1, 1, 2), (2, 1, 5), (5, 1, 5)]
    assert databases.ask(other, "SELECT * FROM parent") == [(1, 1)]
    assert databases.ask(other, "SELECT bool_or(condeferrable) FROM pg_constraint") == [(False,)]
    assert databases.ask(other, "SELECT nextval('parent_id_seq')") == [(41,)]


def test_keys_of_tables_with_partitions_are_satisfied_too(databases: Databases) -> None:
    schema = """
    CREATE TABLE zoos (id int PRIMARY KEY) PARTITION BY RANGE (id);
    CREATE TABLE zoos_1 PARTITION OF zoos FOR VALUES FROM (0) TO (100);
    CREATE TABLE zoos_2 PARTITION OF zoos DEFAULT;
    CREATE TABLE animals (id int, zoo_id int NOT NULL REFERENCES zoos, mother int, PRIMARY KEY (id))
      PARTITION BY RANGE (id);
    CREATE TABLE animals_1 PARTITION OF animals FOR VALUES FROM (0) TO (100);
    CREATE TABLE animals_2 PARTITION OF animals DEFAULT;
    ALTER TABLE animals ADD FOREIGN KEY (mother) REFERENCES animals
    """
    name, other = databases.new(schema), databases.new(schema)
    databases.run(name, "INSERT INTO zoos VALUES (7), (700)")
    databases.run(name, "INSERT INTO animals VALUES (500, 700, NULL), (5, 7, 500), (501, 7, 5)")

    report = databases.load(databases.export(name), other)

    assert (report.committed, report.refused) == (True, ())
    assert databases.ask(other, "SELECT * FROM animals ORDER BY 1") == [
        (5, 7, 500),
        (500, 700, None),
        (501, 7, 5),
    ]
    assert databases.ask(other, "SELECT bool_or(condeferrable) FROM pg_constraint") == [(False,)]


def test_a_sequence_without_a_name_in_the_target_is_told_and_ids_are_moved_on(databases: Databases) -> None:
    name = databases.new("CREATE TABLE a (id serial PRIMARY KEY); INSERT INTO a VALUES (17)")
    other = databases.new(
        "CREATE TABLE a (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME s))"
    )

    report = databases.load(databases.export(name), other)

    assert report.notices == ("There is no sequence a_id_seq.",)
    databases.run(other, "INSERT INTO a DEFAULT VALUES")
    assert databases.ask(other, "SELECT max(id) FROM a") == [(18,)]


def test_refused_rows_are_named_and_nothing_is_loaded(databases: Databases) -> None:
    name = databases.new(
        A.format("text") + B,
        "INSERT INTO a SELECT n, 'name ' || n FROM generate_series(1, 3000) n; UPDATE a SET name = 'name 7' "
        "WHERE id IN (1500, 2999); INSERT INTO b VALUES (1, 1), (2, 1500), (3, NULL)",
    )
    schema = A.format("varchar(9) UNIQUE") + B
    other, third = databases.new(schema), databases.new(schema)
    folder = databases.export(name)

    report = databases.load(folder, other)
    partial = databases.load(folder, third, partial=True)

    assert not report.committed
    found = [(one.table, one.row, one.reason) for one in report.refused]
    assert [one[:2] for one in found] == [("a", 1500), ("a", 2999), ("b", 2)]
    assert "unique constraint" in found[0][2]
    assert "foreign key" in found[2][2]
    assert databases.ask(other, "SELECT count(*) FROM a") == [(0,)]
    assert partial.committed
    assert databases.ask(third, "SELECT count(*), sum(id) FROM a") == [(2998, 3000 * 3001 // 2 - 4499)]
    assert databases.ask(third, "SELECT id FROM b ORDER BY 1") == [(1,), (3,)]


RING = """
CREATE TABLE event (id int PRIMARY KEY, name {}, hero_id int);
CREATE TABLE photo (id int PRIMARY KEY, event_id int NOT NULL REFERENCES event ON DELETE CASCADE);
ALTER TABLE event ADD FOREIGN KEY (hero_id) REFERENCES photo {};
CREATE TABLE mark (id int PRIMARY KEY, photo_id int REFERENCES photo {}, above int REFERENCES mark);
"""


@pytest.mark.parametrize("action", ["", "ON DELETE SET NULL", "ON DELETE CASCADE", "ON DELETE RESTRICT"])
def test_rows_that_refer_to_one_left_out_are_left_out_too_in_a_circle(
    databases: Databases, action: str
) -> None:
    # Event 2 is refused, and so its photos, event 3 whose hero is one of them, its photo, and their marks.
    name = databases.new(
        RING.format("text", action, action),
        "INSERT INTO event VALUES (1, 'a'), (2, 'too long'), (3, 'c'), (4, 'd'); "
        "INSERT INTO photo VALUES (10, 1), (20, 2), (21, 2), (30, 3), (40, 4); "
        "UPDATE event SET hero_id = CASE id WHEN 3 THEN 20 ELSE id * 10 END; "
        "INSERT INTO mark VALUES (1, 10, NULL), (2, 30, 1), (3, NULL, 2), (4, NULL, NULL), (5, 40, 4)",
    )
    schema = RING.format("varchar(3)", action, action)
    other, third = databases.new(schema), databases.new(schema)
    before = dump_text(databases.server, other)
    folder = databases.export(name)

    tried = databases.load(folder, other, dry_run=True)
    whole = databases.load(folder, other)
    partial = databases.load(folder, third, partial=True)

    counts = [("event", 2, 2), ("mark", 3, 2), ("photo", 2, 3)]
    for report, committed in ((tried, False), (whole, False), (partial, True)):
        assert (report.committed, report.refused_rows) == (committed, 7)
        assert [(one.table, one.rows, one.refused) for one in report.tables] == counts
    reasons = {one.reason for one in partial.refused if one.table == "mark"}
    assert any("mark_photo_id_fkey" in reason for reason in reasons)
    assert dump_text(databases.server, other) == before
    assert databases.ask(third, "SELECT id, hero_id FROM event ORDER BY 1") == [(1, 10), (4, 40)]
    assert databases.ask(third, "SELECT id, event_id FROM photo ORDER BY 1") == [(10, 1), (40, 4)]
    assert databases.ask(third, "SELECT id, photo_id, above FROM mark ORDER BY 1") == [
        (1, 10, None),
        (4, None, None),
        (5, 40, 4),
    ]
    wanted = databases.ask(name, "SELECT conname, condeferrable, convalidated FROM pg_constraint ORDER BY 1")
    left = databases.ask(third, "SELECT conname, condeferrable, convalidated FROM pg_constraint ORDER BY 1")
    assert left == wanted


def test_a_long_chain_within_a_table_with_partitions_is_left_out_to_its_end(databases: Databases) -> None:
    plain = "CREATE TABLE link (id int PRIMARY KEY, next_id int)"
    name = databases.new(plain, "INSERT INTO link SELECT n, n - 1 FROM generate_series(1, 300) n")
    databases.run(name, "INSERT INTO link VALUES (1000, NULL), (1001, 1000)")
    other = databases.new(
        "CREATE TABLE link (id int PRIMARY KEY, next_id int REFERENCES link) PARTITION BY RANGE (id); "
        "CREATE TABLE low PARTITION OF link FOR VALUES FROM (0) TO (100); "
        "CREATE TABLE high PARTITION OF link FOR VALUES FROM (100) TO (2000)"
    )

    report = databases.load(databases.export(name), other, partial=True)

    assert report.committed
    assert [(one.table, one.rows, one.refused) for one in report.tables] == [("link", 2, 300)]
    assert databases.ask(other, "SELECT id FROM link ORDER BY 1") == [(1000,), (1001,)]


def test_a_dry_run_changes_nothing_not_even_a_sequence(databases: Databases) -> None:
    name, other = databases.new(GALLERY), databases.new(GALLERY, EMPTY)
    databases.run(name, "SELECT setval('events_id_seq', 4000)")
    before = dump_text(databases.server, other)

    report = databases.load(databases.export(name), other, dry_run=True)

    assert (report.committed, report.refused_rows) == (False, 0)
    assert sum(table.rows for table in report.tables) == 3457
    assert dump_text(databases.server, other) == before


def test_a_table_that_holds_the_same_rows_is_left_alone_and_other_rows_are_refused(
    databases: Databases,
) -> None:
    schema = "CREATE TABLE version (v text); INSERT INTO version VALUES ('abc'); CREATE TABLE a (id int)"
    name, other, third = databases.new(schema), databases.new(schema), databases.new(schema)
    databases.run(name, "INSERT INTO a VALUES (1)")
    databases.run(third, "INSERT INTO a VALUES (2)")
    folder = databases.export(name)

    report = databases.load(folder, other)

    assert [(one.table, one.already) for one in report.tables] == [("a", False), ("version", True)]
    with pytest.raises(RestoreRefused, match=r"a \(1 row\)"):
        databases.load(folder, third)
    assert databases.ask(third, "SELECT * FROM a") == [(2,)]


def test_what_does_not_fit_is_told_before_anything_is_written(databases: Databases) -> None:
    name = databases.new(
        "CREATE TABLE a (id int, more int); CREATE TABLE b (id int); INSERT INTO b VALUES (1)"
    )
    other = databases.new("CREATE TABLE a (id int)")

    with pytest.raises(RestoreRefused, match="table a has no column more; there is no table b"):
        databases.load(databases.export(name), other)


def test_a_file_that_was_changed_is_never_loaded(databases: Databases) -> None:
    schema = "CREATE TABLE a (id int, name text)"
    name, other = databases.new(schema, "INSERT INTO a VALUES (1, 'honest')"), databases.new(schema)
    folder = databases.export(name)
    (file,) = (folder / "tables").iterdir()
    file.write_bytes(file.read_bytes().replace(b"honest", b"forged"))

    with pytest.raises(Damaged, match="not what was exported"):
        databases.load(folder, other)

    assert databases.ask(other, "SELECT count(*) FROM a") == [(0,)]


def test_a_row_that_the_target_changes_fails_the_import(databases: Databases) -> None:
    name = databases.new("CREATE TABLE a (x numeric)", "INSERT INTO a VALUES (1.005)")
    other = databases.new("CREATE TABLE a (x numeric(4,2))")

    with pytest.raises(Exception, match="does not hold what was exported"):
        databases.load(databases.export(name), other)

    assert databases.ask(other, "SELECT count(*) FROM a") == [(0,)]
