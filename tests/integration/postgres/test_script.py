"""A PostgreSQL database as one script: psql makes the same database of it, each time the same."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from backup_admin.core.errors import Damaged, UsageError
from backup_admin.core.progress import QuietReporter
from backup_admin.operations.database_export import ExportFormat, ExportRequest, export_postgres
from backup_admin.sources.formats.imported import ImportOptions
from backup_admin.sources.postgres.address import parse_postgres_address
from backup_admin.sources.postgres.clients import find_clients
from backup_admin.sources.postgres.export_parts import export_json, export_script, write_parts
from backup_admin.sources.postgres.import_json import import_json
from tests.services.postgres_oracle import GALLERY, dump_text

if TYPE_CHECKING:
    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration

TYPES = Path(__file__).with_name("types_table.sql").read_text()

_LINE = """
CREATE FUNCTION line() RETURNS text LANGUAGE sql AS $$ SELECT '
SET transaction_timeout = 0;
' $$
"""


def fill(server: PostgresServer, *scripts: str) -> str:
    name = server.new_database()
    with psycopg.connect(server.address(name), autocommit=True) as connection:
        for script in scripts:
            connection.execute(script.encode())
    return name


def export(server: PostgresServer, name: str, target: Path, kind: ExportFormat) -> Path:
    address = parse_postgres_address(server.address(name))
    export_postgres(address, ExportRequest(kind, target), reporter=QuietReporter())
    return target


def test_psql_makes_the_same_database_of_a_script(postgres: PostgresServer, tmp_path: Path) -> None:
    name, other = fill(postgres, GALLERY), postgres.new_database()

    script = export(postgres, name, tmp_path / "app.sql", ExportFormat.SQL)
    postgres.run("VACUUM FULL events, photos", name)
    again = export(postgres, name, tmp_path / "again.sql", ExportFormat.SQL)

    psql = [postgres.program("psql"), "-X", "-v", "ON_ERROR_STOP=1", "-d", postgres.by_socket(other)]
    done = subprocess.run([*psql, "-f", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert dump_text(postgres, other) == dump_text(postgres, name)
    assert again.read_bytes() == script.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.sql", "app.sql"]


def test_a_script_of_newer_programs_runs_on_the_server_it_came_from(
    debian_postgres: PostgresServer, tmp_path: Path
) -> None:
    name, other = fill(debian_postgres, GALLERY, _LINE), debian_postgres.new_database()
    newer = [one for one in find_clients() if one.major >= 17]
    parts = tmp_path / "parts"
    parts.mkdir()
    write_parts(parse_postgres_address(debian_postgres.address(name)), newer, parts)

    export_script(parts, tmp_path / "app.sql", newer)

    psql = [debian_postgres.program("psql"), "-X", "-v", "ON_ERROR_STOP=1", "-d"]
    text = (tmp_path / "app.sql").read_text()
    done = subprocess.run(
        [*psql, debian_postgres.by_socket(other)], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert dump_text(debian_postgres, other) == dump_text(debian_postgres, name)


def test_another_content_has_another_key_which_names_in_it_cannot_know(
    newest_postgres: PostgresServer, tmp_path: Path
) -> None:
    keys = []
    for number in (1, 2):
        name = fill(newest_postgres, f"CREATE TABLE a (x int); INSERT INTO a VALUES ({number})")
        script = export(newest_postgres, name, tmp_path / f"{number}.sql", ExportFormat.SQL)
        lines = script.read_text().splitlines()
        keys.append({line.split()[1] for line in lines if line.startswith("\\restrict ")})

    assert len(keys[0]) == len(keys[1]) == 1
    assert keys[0] != keys[1]


def test_a_compact_form_is_for_sqlite_alone(newest_postgres: PostgresServer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Only a SQLite database"):
        export(newest_postgres, fill(newest_postgres), tmp_path / "x", ExportFormat.COMPACT)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["json", "sql"])
def test_parts_that_are_not_what_was_captured_are_not_exported(
    newest_postgres: PostgresServer, tmp_path: Path, kind: str
) -> None:
    name = fill(newest_postgres, "CREATE TABLE a (x text); INSERT INTO a VALUES ('honest')")
    parts, out = tmp_path / "parts", tmp_path / "out"
    parts.mkdir()
    write_parts(parse_postgres_address(newest_postgres.address(name)), find_clients(), parts)
    (file,) = (parts / "tables").iterdir()
    file.write_bytes(b"forged\n")

    out.mkdir()
    write = {
        "json": lambda: export_json(parts, out, "app"),
        "sql": lambda: export_script(parts, out / "app.sql", find_clients()),
    }
    with pytest.raises(Damaged, match="not what was captured"):
        write[kind]()

    assert not (out / "export.json").exists()


@pytest.mark.parametrize("upwards", [True, False])
def test_json_goes_from_one_version_to_another_both_ways(
    debian_postgres: PostgresServer, newest_postgres: PostgresServer, tmp_path: Path, *, upwards: bool
) -> None:
    servers = (debian_postgres, newest_postgres) if upwards else (newest_postgres, debian_postgres)
    schema = TYPES.split("INSERT INTO", 1)[0]
    name, other = fill(servers[0], TYPES), fill(servers[1], schema)
    query = "SELECT count(*), md5(string_agg(t::text, E'\\n' ORDER BY id)) FROM types t"

    folder = export(servers[0], name, tmp_path / "out", ExportFormat.JSON)
    report = import_json(folder, parse_postgres_address(servers[1].address(other)), ImportOptions())

    assert report.committed
    rows = []
    for server, database in zip(servers, (name, other), strict=True):
        with psycopg.connect(server.address(database)) as connection:
            rows.append(connection.execute(query.encode()).fetchone())
    assert rows[1] == rows[0]
    assert rows[0] is not None
    assert rows[0][0] == 4
