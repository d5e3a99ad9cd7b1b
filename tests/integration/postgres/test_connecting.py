"""Real servers are reached by every form of address, and nobody sees the password."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import psycopg
import pytest

from backup_admin.core.errors import SourceError, SourceMissing
from backup_admin.core.programs import run_program
from backup_admin.sources.postgres import connect
from backup_admin.sources.postgres.address import parse_postgres_address
from backup_admin.sources.postgres.clients import choose_for_dump, find_clients
from backup_admin.sources.postgres.connect import PINNED, connected
from tests.services.postgres import OWNER, PASSWORD

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration


@pytest.fixture
def database(postgres: PostgresServer) -> str:
    return postgres.new_database()


def test_every_form_of_address_leads_to_the_database(postgres: PostgresServer, database: str) -> None:
    by_tcp = postgres.address(database)
    words = {"host": "127.0.0.1", "port": str(postgres.port), "user": OWNER, "password": PASSWORD}
    spelled = psycopg.conninfo.make_conninfo("", **words, dbname=database)
    forms = (
        by_tcp,
        by_tcp.replace("postgresql://", "postgresql+psycopg2://"),
        postgres.by_socket(database, user=OWNER),
        spelled,
    )

    for form in forms:
        with connected(parse_postgres_address(form)) as connection:
            row = connection.execute("SELECT current_database(), current_user").fetchone()
            assert row == (database, OWNER)


def test_values_are_written_the_same_whatever_the_database_has_set(
    postgres: PostgresServer, database: str
) -> None:
    postgres.run(
        f"ALTER DATABASE \"{database}\" SET datestyle = 'German';\n"
        f'ALTER DATABASE "{database}" SET extra_float_digits = 0;\n'
        f"ALTER DATABASE \"{database}\" SET bytea_output = 'escape';\n"
        f"ALTER DATABASE \"{database}\" SET timezone = 'Asia/Kathmandu';\n"
        f"ALTER DATABASE \"{database}\" SET intervalstyle = 'iso_8601';\n"
        f"ALTER DATABASE \"{database}\" SET client_encoding = 'LATIN1';\n"
        f"ALTER DATABASE \"{database}\" SET search_path = 'elsewhere'"
    )
    with connected(parse_postgres_address(postgres.address(database))) as connection:
        row = connection.execute(
            "SELECT (timestamptz '2026-02-03 04:05:06+00')::text, (0.1::float8 + 0.2)::text,"
            " '\\x00ff'::bytea::text, ('1 day 2 hours'::interval)::text, 'ü'::text"
        ).fetchone()
        settings = dict(connection.execute("SELECT lower(name), setting FROM pg_settings").fetchall())

    assert row == ("2026-02-03 04:05:06+00", "0.30000000000000004", "\\x00ff", "1 day 02:00:00", "ü")
    assert {name: settings[name] for name in PINNED if name != "datestyle"} == {
        name: value for name, value in PINNED.items() if name != "datestyle"
    }


def test_a_client_program_of_the_servers_version_gets_in_and_shows_no_password(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    address = parse_postgres_address(postgres.address(database))
    programs = choose_for_dump(find_clients(), postgres.major)
    command = [programs.dump, "--no-password", "--schema-only", f"--dbname={address.conninfo()}"]

    done = run_program(command, timeout_seconds=60, environment=address.environment())

    installed = {one.major for one in find_clients()}
    assert programs.major == min(major for major in installed if major >= postgres.major)
    assert (done.status, done.errors) == (0, b"")
    assert b"PostgreSQL database dump complete" in done.output
    assert PASSWORD not in " ".join(command)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace(f"{OWNER}:", f"{OWNER}:not", 1), "another password"),
        (lambda text: text.replace(f"{OWNER}:", "nobody:", 1), "knows no such user"),
        (lambda text: f"{text}x", "Check the names"),
        (lambda text: text.replace("127.0.0.1", "no-such-host.invalid"), "leads nowhere"),
        (lambda text: text.rpartition("@")[0] + "@127.0.0.1:1/app", "Nothing listens there"),
        (lambda _text: "postgresql:///app?host=/no/such/folder", "no socket of a server"),
    ],
    ids=["password", "user", "database", "host", "port", "socket"],
)
def test_a_server_that_cannot_be_reached_is_told_with_what_to_do(
    postgres: PostgresServer, database: str, change: object, said: str
) -> None:
    assert callable(change)
    address = parse_postgres_address(change(postgres.address(database)))

    with pytest.raises(SourceMissing, match=said) as raised, connected(address):
        pytest.fail("somebody let us in")

    assert PASSWORD not in f"{raised.value}{raised.value.__cause__}"


def test_a_server_that_is_too_old_is_refused(
    postgres: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "OLDEST_SERVER", 99)

    with (
        pytest.raises(SourceError, match="the oldest that is supported is 99"),
        connected(parse_postgres_address(postgres.address(database))),
    ):
        pytest.fail("it was not refused")


def test_what_the_server_says_later_is_told_with_the_place(postgres: PostgresServer, database: str) -> None:
    address = parse_postgres_address(postgres.address(database))

    with pytest.raises(SourceError, match="division by zero") as raised, connected(address) as connection:
        connection.execute("SELECT 1/0")

    assert address.label in str(raised.value)


def test_no_server_outlives_its_tests_as_root(postgres: PostgresServer) -> None:
    owners = subprocess.run(
        ["ps", "-o", "user=", "-C", "postgres"], check=True, capture_output=True, text=True
    ).stdout.split()

    assert postgres.folder.stat().st_mode & 0o777 == 0o711
    assert "root" not in owners
