"""Where parts cannot carry a database, or on request, one archive does, and is compared all the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from backup_admin.core.errors import RestoreRefused, SourceError
from backup_admin.sources.postgres import archives as archives_module
from backup_admin.sources.postgres.address import parse_postgres_address
from backup_admin.sources.postgres.capture import capturing
from backup_admin.sources.postgres.clients import find_clients
from backup_admin.sources.postgres.load import LoadOptions, load
from backup_admin.sources.postgres.parts import CONTENTS, WHOLE
from backup_admin.sources.postgres.replacing import write_parts
from backup_admin.sources.postgres.source import PostgresSource
from tests.services.postgres import OWNER
from tests.services.postgres_oracle import GALLERY, dump_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration

_CONTROL = "default_version = '1'\nrelocatable = false\nschema = public\n"
_SCRIPT = """
CREATE TABLE kept_rules (id int PRIMARY KEY, rule text, ours bool NOT NULL DEFAULT false);
CREATE TABLE kept_marks (mark text, n int);
CREATE TABLE own_rows (id int);
INSERT INTO kept_rules VALUES (1, 'comes with it', true);
INSERT INTO own_rows VALUES (1);
SELECT pg_extension_config_dump('kept_rules', 'WHERE NOT ours');
SELECT pg_extension_config_dump('kept_marks', '');
"""


@pytest.fixture
def keeps_rows(newest_postgres: PostgresServer) -> Iterator[str]:
    """An extension that marks tables of its own to be dumped, as PostGIS does."""
    share = newest_postgres.programs.parent / "share"
    (folder,) = {path.parent for path in share.rglob("plpgsql.control")}
    files = [folder / "keeps_rows.control", folder / "keeps_rows--1.sql"]
    for path, text in zip(files, (_CONTROL, _SCRIPT), strict=True):
        path.write_text(text)
    yield "keeps_rows"
    for path in files:
        path.unlink()


def capture_archive(address: str, folder: Path, *, archive: bool = False) -> dict[str, Any]:
    """Write an archive and what tells about it into a folder, as a backup would store them."""
    folder.mkdir()
    with capturing(parse_postgres_address(address), find_clients(), archive=archive) as captured:
        assert captured.archives() == (WHOLE,)
        view = memoryview(bytearray(100_000))
        with captured.archive(WHOLE) as read_into, (folder / WHOLE).open("wb") as file:
            while count := read_into(view):
                file.write(view[:count])
        parts = [captured.digest(table) for table in captured.tables]
        (folder / CONTENTS).write_bytes(captured.contents(parts))
    value: dict[str, Any] = json.loads((folder / CONTENTS).read_text())
    return value


def gallery(server: PostgresServer) -> str:
    name = server.new_database()
    with psycopg.connect(server.address(name), autocommit=True) as connection:
        connection.execute(GALLERY.encode())
    return name


def test_an_archive_that_was_asked_for_becomes_the_same_database(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    old, new = gallery(postgres), postgres.new_database()
    contents = capture_archive(postgres.address(old), tmp_path / "parts", archive=True)

    loaded = load(tmp_path / "parts", parse_postgres_address(postgres.address(new)), find_clients())

    assert dump_text(postgres, new) == dump_text(postgres, old)
    assert (contents["format"], contents["archive_reason"]) == (2, "it was asked for")
    assert (loaded.tables, loaded.rows) == (10, sum(row["rows"] for row in contents["tables"]))


def test_an_archive_of_a_newer_server_goes_to_an_older_one(
    debian_postgres: PostgresServer, newest_postgres: PostgresServer, tmp_path: Path
) -> None:
    old, new = newest_postgres.new_database(), debian_postgres.new_database()
    newest_postgres.run(
        "CREATE TABLE t (id int PRIMARY KEY, v text);\n"
        "INSERT INTO t SELECT n, 'row ' || n FROM generate_series(1, 5000) n;\n"
        "CREATE TABLE u AS SELECT * FROM t;\nCREATE INDEX ON t (v)",
        old,
        user=OWNER,
    )
    capture_archive(newest_postgres.address(old), tmp_path / "parts", archive=True)

    load(tmp_path / "parts", parse_postgres_address(debian_postgres.address(new)), find_clients())

    with psycopg.connect(debian_postgres.address(new)) as connection:
        query = "SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM u), count(*) FROM pg_indexes"
        assert connection.execute(f"{query} WHERE tablename = 't'").fetchone() == (5000, 5000, 2)


def test_rows_in_tables_of_an_extension_make_it_an_archive_that_carries_them(
    newest_postgres: PostgresServer, tmp_path: Path, keeps_rows: str
) -> None:
    name, new = newest_postgres.new_database(), newest_postgres.new_database()
    newest_postgres.run(
        f"CREATE EXTENSION {keeps_rows};\nINSERT INTO kept_rules VALUES (7, 'ours');\n"
        "INSERT INTO kept_marks VALUES ('m', 1), ('m', 1);\n"
        "CREATE TABLE t AS SELECT n AS id FROM generate_series(1, 9) n",
        name,
    )

    contents = capture_archive(newest_postgres.by_socket(name), tmp_path / "parts")
    load(tmp_path / "parts", parse_postgres_address(newest_postgres.by_socket(new)), find_clients())

    reason = "the extension keeps_rows keeps rows of yours in tables that belong to it"
    assert contents["archive_reason"] == reason
    rows = {row["name"]: row["rows"] for row in contents["tables"]}
    assert rows == {"t": 9, "kept_rules": 1, "kept_marks": 2}
    assert dump_text(newest_postgres, new) == dump_text(newest_postgres, name)
    with psycopg.connect(newest_postgres.by_socket(new)) as connection:
        assert connection.execute("SELECT id FROM kept_rules ORDER BY id").fetchall() == [(1,), (7,)]


def test_an_extension_without_rows_of_ours_needs_no_archive(
    newest_postgres: PostgresServer, keeps_rows: str
) -> None:
    name = newest_postgres.new_database()
    newest_postgres.run(f"CREATE EXTENSION {keeps_rows}", name)

    with capturing(parse_postgres_address(newest_postgres.by_socket(name)), find_clients()) as captured:
        assert captured.archive_reason == ""
        assert captured.tables == ()


@pytest.mark.parametrize("key", ["", "PRIMARY KEY"])
@pytest.mark.parametrize("change", ["UPDATE t SET v = 'wor' WHERE id = 7", "DELETE FROM t WHERE id = 99"])
def test_what_came_out_of_an_archive_is_compared_with_what_was_captured(
    newest_postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, change: str
) -> None:
    old, new = newest_postgres.new_database(), newest_postgres.new_database()
    newest_postgres.run(
        f"CREATE TABLE t (id int {key}, v text);\n"
        "INSERT INTO t SELECT n, 'row' FROM generate_series(1, 99) n",
        old,
        user=OWNER,
    )
    capture_archive(newest_postgres.address(old), tmp_path / "parts", archive=True)
    restore = archives_module.Archives.restore_whole

    def and_change_it(self: archives_module.Archives, jobs: int) -> None:
        restore(self, jobs)
        newest_postgres.run(change, new)

    monkeypatch.setattr(archives_module.Archives, "restore_whole", and_change_it)

    with pytest.raises(SourceError, match="Table t does not hold what was captured"):
        load(tmp_path / "parts", parse_postgres_address(newest_postgres.address(new)), find_clients())


def test_what_only_an_archive_carries_is_not_replaced_in_place(
    newest_postgres: PostgresServer, tmp_path: Path, keeps_rows: str
) -> None:
    name = newest_postgres.new_database()
    newest_postgres.run(f"CREATE EXTENSION {keeps_rows};\nINSERT INTO kept_marks VALUES ('m', 1)", name)
    source = PostgresSource("app", parse_postgres_address(newest_postgres.by_socket(name)))

    with pytest.raises(SourceError, match="app cannot be kept as parts, since the extension keeps_rows"):
        write_parts(source, tmp_path / "kept")


def test_a_server_without_the_extension_is_refused_before_anything_is_written(
    newest_postgres: PostgresServer, tmp_path: Path
) -> None:
    old, new = newest_postgres.new_database(), newest_postgres.new_database()
    newest_postgres.run("CREATE EXTENSION pg_trgm", old)
    capture_archive(newest_postgres.by_socket(old), tmp_path / "parts", archive=True)
    contents = tmp_path / "parts" / CONTENTS
    contents.write_text(contents.read_text().replace('"pg_trgm"', '"not_there"'))

    with pytest.raises(RestoreRefused, match=r"lacks .* the extension not_there 1\.\d+\. Nothing was loaded"):
        load(tmp_path / "parts", parse_postgres_address(newest_postgres.by_socket(new)), find_clients())

    assert "not_there" not in "".join(dump_text(newest_postgres, new))


@pytest.mark.parametrize(
    ("statements", "user", "said"),
    [
        ("ALTER TABLE t OWNER TO gone", "postgres", "knows no role gone"),
        ("GRANT SELECT ON t TO gone", "postgres", "knows no role gone"),
        ("CREATE POLICY p ON t TO gone USING (true)", "postgres", "knows no role gone"),
        ("ALTER TABLE t OWNER TO stays", OWNER, "belong to stays, and who loads .* may give nothing"),
    ],
    ids=["owner", "rights", "policy", "no member"],
)
def test_a_server_without_the_roles_is_refused_unless_they_are_left_out(
    newest_postgres: PostgresServer, tmp_path: Path, statements: str, user: str, said: str
) -> None:
    old, new = newest_postgres.new_database(), newest_postgres.new_database()
    newest_postgres.run(f"CREATE ROLE gone;\nCREATE ROLE stays;\nCREATE TABLE t (id int);\n{statements}", old)
    capture_archive(newest_postgres.by_socket(old), tmp_path / "parts", archive=True)
    newest_postgres.run("DROP OWNED BY gone, stays", old)
    newest_postgres.run("DROP ROLE gone")
    address = newest_postgres.by_socket(new, user=user)

    try:
        with pytest.raises(RestoreRefused, match=rf"{said}.*Nothing was loaded.*--no-owner"):
            load(tmp_path / "parts", parse_postgres_address(address), find_clients())
        if "POLICY" not in statements:  # a policy cannot be left out
            options = LoadOptions(no_owner=True)
            load(tmp_path / "parts", parse_postgres_address(address), find_clients(), options)
    finally:
        newest_postgres.run("DROP OWNED BY stays", old)
        newest_postgres.run("DROP ROLE stays")
