"""A database in use is captured as it was at one moment, and loaded it is the same to programs not ours."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from backup_admin.core.errors import Damaged, NewerVersion, RestoreRefused, SourceError
from backup_admin.sources.postgres import load as load_module
from backup_admin.sources.postgres import rows as rows_module
from backup_admin.sources.postgres.address import parse_postgres_address
from backup_admin.sources.postgres.capture import capturing
from backup_admin.sources.postgres.catalog import table_parts
from backup_admin.sources.postgres.clients import find_clients
from backup_admin.sources.postgres.connect import connected
from backup_admin.sources.postgres.load import LoadOptions, load
from backup_admin.sources.postgres.load_tables import read_back
from backup_admin.sources.postgres.parts import CONTENTS, PRE_DATA, TablePart
from tests.services.postgres import OWNER, PASSWORD, SUPERUSER
from tests.services.postgres_oracle import GALLERY, dump_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from backup_admin.sources.base import ReadInto
    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration


@pytest.fixture
def gallery(postgres: PostgresServer) -> str:
    name = postgres.new_database()
    with psycopg.connect(postgres.address(name), autocommit=True) as connection:
        connection.execute(GALLERY.encode())
    return name


def capture(address: str, folder: Path, *, between: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Write all parts into a folder, as a backup would store them."""
    folder.mkdir()
    with capturing(parse_postgres_address(address), find_clients()) as captured:
        between()
        for name in captured.archives():
            with captured.archive(name) as read_into:
                (folder / name).write_bytes(drain(read_into))
        parts = []
        for number, table in enumerate(captured.catalog.tables):
            with captured.table(table) as reader:
                data = drain(reader.read_into)
            (folder / f"{number}.copy").write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            parts.append(TablePart(table, f"{number}.copy", reader.rows, len(data), digest))
        (folder / CONTENTS).write_bytes(captured.contents(parts))
    value: dict[str, Any] = json.loads((folder / CONTENTS).read_text())
    return value


def drain(read_into: ReadInto) -> bytes:
    found, view = bytearray(), memoryview(bytearray(100_000))
    while count := read_into(view):
        found += view[:count]
    return bytes(found)


def fresh(server: PostgresServer) -> tuple[str, str]:
    name = server.new_database()
    return name, server.address(name)


def test_a_loaded_database_is_the_captured_one(
    postgres: PostgresServer, gallery: str, tmp_path: Path
) -> None:
    contents = capture(postgres.address(gallery), tmp_path / "parts")
    name, address = fresh(postgres)

    loaded = load(tmp_path / "parts", parse_postgres_address(address), find_clients())

    assert dump_text(postgres, name) == dump_text(postgres, gallery)
    assert loaded.tables == len(contents["tables"]) == 10
    assert loaded.rows == sum(row["rows"] for row in contents["tables"])
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("INSERT INTO photos (event_id, path) VALUES (1, 'new'), (1, 'newer')")
        connection.execute("INSERT INTO events (name) VALUES ('new')")
        assert connection.execute("SELECT max(id) FROM photos").fetchone() == (3002,)
        assert connection.execute("SELECT name FROM events WHERE id = 62").fetchone() == ("new!",)
        assert connection.execute("SELECT nextval('\"Free Standing\"')").fetchone() == (5,)


@pytest.mark.parametrize("way", ["to a newer server", "to an older server"])
def test_a_database_goes_to_a_server_of_another_version(
    debian_postgres: PostgresServer, newest_postgres: PostgresServer, tmp_path: Path, way: str
) -> None:
    source, target = debian_postgres, newest_postgres
    if way == "to an older server":
        source, target = target, source
    old = source.new_database()
    with psycopg.connect(source.address(old), autocommit=True) as connection:
        connection.execute(GALLERY.encode())
    capture(source.address(old), tmp_path / "parts")
    new, address = fresh(target)

    load(tmp_path / "parts", parse_postgres_address(address), find_clients())

    # One program for both, so that only the servers differ.
    programs = newest_postgres.programs
    assert comparable(dump_text(target, new, programs)) == comparable(dump_text(source, old, programs))


def comparable(parts: list[str]) -> str:
    """Leave out what differs for one database: the version, how views are spelled, names of NOT NULL."""
    text = re.sub(r"(?m)^-- Dumped from database version .*$", "", "\n".join(parts))
    return re.sub(r"\b(events|photos)\.(?=\w)|CONSTRAINT \w+(?= NOT NULL)", "", text).replace("  NOT", " NOT")


def test_nothing_that_is_written_meanwhile_is_in_it(
    postgres: PostgresServer, gallery: str, tmp_path: Path
) -> None:
    before = dump_text(postgres, gallery)
    stop = threading.Event()

    def write() -> None:
        with psycopg.connect(postgres.address(gallery), autocommit=True) as connection:
            number = 0
            while not stop.is_set():
                number += 1
                with connection.transaction():  # both or none
                    connection.execute("INSERT INTO base VALUES (%s)", (1000 + number,))
                    connection.execute("INSERT INTO secret_rows VALUES (%s, 'x')", (1000 + number,))
                connection.execute("UPDATE photos SET size = size + 1 WHERE id = %s", (number % 2990 + 1,))

    writer = threading.Thread(target=write)

    def begin() -> None:
        writer.start()
        while not changed(postgres, gallery):
            pass

    try:
        capture(postgres.address(gallery), tmp_path / "parts", between=begin)
    finally:
        stop.set()
        writer.join()
    name, address = fresh(postgres)
    load(tmp_path / "parts", parse_postgres_address(address), find_clients())

    assert dump_text(postgres, name) == before


def test_who_waits_to_drop_a_table_does_not_stop_a_capture_for_ever(
    newest_postgres: PostgresServer,
) -> None:
    name = newest_postgres.new_database()
    newest_postgres.run("CREATE TABLE a (n int);\nINSERT INTO a VALUES (1);\nCREATE TABLE b (n int)", name)
    waiting = f"SELECT 1 FROM pg_stat_activity WHERE datname = '{name}' AND wait_event_type = 'Lock'"

    with capturing(parse_postgres_address(newest_postgres.by_socket(name)), find_clients()) as captured:
        # The table is locked from the beginning, and the connection that reads it is another.
        dropper = threading.Thread(target=newest_postgres.run, args=("DROP TABLE a", name))
        dropper.start()
        with psycopg.connect(newest_postgres.by_socket("postgres"), autocommit=True) as connection:
            while not connection.execute(waiting.encode()).fetchall():
                assert dropper.is_alive()
        read = [captured.digest(table) for table in (*captured.tables, *captured.tables)]
        assert dropper.is_alive()
    dropper.join()

    assert [(part.table.name, part.rows) for part in read] == [("a", 1), ("b", 0), ("a", 1), ("b", 0)]
    with psycopg.connect(newest_postgres.by_socket(name)) as connection:
        assert connection.execute("SELECT to_regclass('a')::text").fetchall() == [(None,)]


def changed(server: PostgresServer, database: str) -> bool:
    with psycopg.connect(server.by_socket(database)) as connection:
        return connection.execute("SELECT count(*) > 3 FROM base").fetchone() == (True,)


def test_rows_of_a_table_come_in_the_order_of_its_key(
    postgres: PostgresServer, gallery: str, tmp_path: Path
) -> None:
    capture(postgres.address(gallery), tmp_path / "one")
    postgres.run("UPDATE photos SET size = size + 0;\nVACUUM FULL photos", gallery)

    capture(postgres.address(gallery), tmp_path / "two")

    for path in sorted((tmp_path / "one").glob("*.copy")):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_database_that_is_not_empty_is_not_touched(
    postgres: PostgresServer, gallery: str, tmp_path: Path
) -> None:
    capture(postgres.address(gallery), tmp_path / "parts")
    before = dump_text(postgres, gallery)

    with pytest.raises(RestoreRefused, match="is not empty: it has 10 tables"):
        load(tmp_path / "parts", parse_postgres_address(postgres.address(gallery)), find_clients())

    assert dump_text(postgres, gallery) == before


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (lambda folder: (folder / CONTENTS).unlink(), RestoreRefused, "contents.json is missing"),
        (lambda folder: (folder / CONTENTS).write_text("{}"), Damaged, "cannot be read"),
        (lambda folder: rewrite(folder, '"format": 1', '"format": 3'), NewerVersion, "newer version"),
        (
            lambda folder: rewrite(folder, '"file": "0.copy"', '"file": "../x"'),
            Damaged,
            "outside of its folder",
        ),
        (lambda folder: flip(folder / PRE_DATA, cut=True), SourceError, "pg_restore of pre-data.dump ended"),
        (lambda folder: flip(largest(folder)), Damaged, "is not what was captured of table"),
        (lambda folder: flip(largest(folder), cut=True), Damaged, "is not what was captured of table"),
    ],
    ids=["no contents", "no json", "newer", "outside", "archive cut", "bit flipped", "rows cut"],
)
def test_parts_that_are_not_whole_are_refused(
    newest_postgres: PostgresServer,
    tmp_path: Path,
    spoil: Callable[[Path], object],
    error: type[Exception],
    said: str,
) -> None:
    name = newest_postgres.new_database()
    newest_postgres.run("CREATE TABLE t AS SELECT n AS id FROM generate_series(1, 999) n", name)
    capture(newest_postgres.by_socket(name), tmp_path / "parts")
    spoil(tmp_path / "parts")
    _, address = fresh(newest_postgres)

    with pytest.raises(error, match=said):
        load(tmp_path / "parts", parse_postgres_address(address), find_clients(), LoadOptions(no_owner=True))


@pytest.mark.parametrize("key", ["", "PRIMARY KEY"])
@pytest.mark.parametrize(
    ("when", "said"),
    [("filled", r"captured\. What was loaded"), ("read back", "captured: it was changed meanwhile")],
)
def test_rows_that_are_not_those_captured_are_noticed(
    newest_postgres: PostgresServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    when: str,
    said: str,
) -> None:
    name = newest_postgres.new_database()
    newest_postgres.run(
        f"CREATE TABLE t (id int {key}, v text);\n"
        "INSERT INTO t SELECT n, 'row' FROM generate_series(1, 99) n",
        name,
        user=OWNER,
    )
    capture(newest_postgres.address(name), tmp_path / "parts")
    new, address = fresh(newest_postgres)
    step = {"filled": "copy_in", "read back": "read_back"}[when]
    act = getattr(load_module, step)

    def and_change_a_row(*arguments: object) -> object:
        done = act(*arguments)
        newest_postgres.run("UPDATE t SET v = 'wor' WHERE id = 7", new)  # as many bytes as before
        return done

    monkeypatch.setattr(load_module, step, and_change_a_row)

    with pytest.raises(SourceError, match=f"Table t does not hold what was {said}"):
        load(tmp_path / "parts", parse_postgres_address(address), find_clients())


def test_rows_that_lie_in_another_order_are_the_same_rows(
    newest_postgres: PostgresServer, tmp_path: Path
) -> None:
    name = newest_postgres.new_database()
    newest_postgres.run("CREATE TABLE t AS SELECT n / 2 FROM generate_series(1, 99) n", name)
    (row,) = capture(newest_postgres.by_socket(name), tmp_path / "parts")["tables"]
    (part,) = table_parts([row])
    newest_postgres.run("TRUNCATE t;\nINSERT INTO t SELECT (100 - n) / 2 FROM generate_series(1, 99) n", name)

    with connected(parse_postgres_address(newest_postgres.by_socket(name))) as connection:
        read_back(connection, tmp_path / "parts", part)
        connection.execute("DELETE FROM public.t WHERE ctid = '(0,1)'")
        with pytest.raises(SourceError, match="does not hold"):
            read_back(connection, tmp_path / "parts", part)


def test_rows_of_a_loaded_table_are_written_once(newest_postgres: PostgresServer, tmp_path: Path) -> None:
    name = newest_postgres.new_database()
    newest_postgres.run("CREATE TABLE t AS SELECT n AS id FROM generate_series(1, 99) n", name, user=OWNER)
    capture(newest_postgres.address(name), tmp_path / "parts")
    new, address = fresh(newest_postgres)

    load(tmp_path / "parts", parse_postgres_address(address), find_clients())

    newest_postgres.run("CREATE EXTENSION pg_visibility", new)
    with psycopg.connect(newest_postgres.by_socket(new)) as connection:
        found = connection.execute("SELECT bool_and(all_visible AND all_frozen) FROM pg_visibility('t')")
        assert found.fetchone() == (True,)


def test_keys_between_the_same_tables_do_not_lock_each_other_out(
    newest_postgres: PostgresServer, tmp_path: Path
) -> None:
    name, new = newest_postgres.new_database(), newest_postgres.new_database()
    columns = [f"c{number}" for number in range(20)]
    places = ", ".join(f"{column} int" for column in columns)
    keys = [
        f"ALTER TABLE {one} ADD FOREIGN KEY ({column}) REFERENCES {other}"
        for column in columns
        for one, other in ("ab", "ba")
    ]
    newest_postgres.run(
        f"CREATE TABLE a (id int PRIMARY KEY, {places});\nCREATE TABLE b (id int PRIMARY KEY, {places});\n"
        + ";\n".join(keys)
        + ";\nCOMMENT ON CONSTRAINT a_c0_fkey ON a IS 'one of many'",
        name,
        user=OWNER,
    )
    capture(newest_postgres.address(name), tmp_path / "parts")

    options = LoadOptions(jobs=8)
    load(tmp_path / "parts", parse_postgres_address(newest_postgres.address(new)), find_clients(), options)

    assert dump_text(newest_postgres, new) == dump_text(newest_postgres, name)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_a_database_in_another_encoding_comes_back_byte_by_byte(
    postgres: PostgresServer, tmp_path: Path, encoding: str
) -> None:
    names = [f"test_{encoding.lower()}_{number}" for number in range(2)]
    for name in names:
        postgres.run(
            f"DROP DATABASE IF EXISTS {name};\n"
            f"CREATE DATABASE {name} OWNER app ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'"
        )
    byte = {"LATIN1": "\\xfc", "SQL_ASCII": "\\xfc", "EUC_JP": "\\xa4a2"}[encoding]
    postgres.run(
        f"CREATE TABLE t AS SELECT n AS id, convert_from('{byte}', '{encoding}') AS v "
        "FROM generate_series(1, 99) n;\nALTER TABLE t ADD PRIMARY KEY (id);\nCREATE INDEX ON t (v)",
        names[0],
        user=OWNER,
    )

    capture(postgres.address(names[0]), tmp_path / "parts")
    load(tmp_path / "parts", parse_postgres_address(postgres.address(names[1])), find_clients())

    with psycopg.connect(postgres.by_socket(names[1])) as connection:
        query = f"SELECT count(*), bool_and(convert_to(v, '{encoding}') = '{byte}') FROM t"
        assert connection.execute(query).fetchone() == (99, True)


@pytest.mark.parametrize("name", ["-t", "a 'b' \"c\"; d", "o\\'dd=x host=y", "new\nline", "ü"])
def test_a_database_of_any_name_is_captured_and_loaded(
    newest_postgres: PostgresServer, tmp_path: Path, name: str
) -> None:
    names = (name, f"{name}2")
    with psycopg.connect(newest_postgres.by_socket("postgres"), autocommit=True) as connection:
        for one in names:
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER app").format(sql.Identifier(one)))
    with psycopg.connect(newest_postgres.address(name), autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT n AS id FROM generate_series(1, 9) n")

    capture(newest_postgres.address(name), tmp_path / "parts")
    loaded = load(
        tmp_path / "parts", parse_postgres_address(newest_postgres.address(names[1])), find_clients()
    )

    assert loaded.rows == 9


def test_a_password_in_a_file_alone_is_enough(
    newest_postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = newest_postgres.new_database(), newest_postgres.new_database()
    newest_postgres.run("CREATE TABLE t AS SELECT n FROM generate_series(1, 9) n", old, user=OWNER)
    passwords = tmp_path / "passwords"
    passwords.write_text("*:*:*:*:" + PASSWORD.replace("\\", "\\\\").replace(":", "\\:") + "\n")
    passwords.chmod(0o600)
    for variable in ("PGPASSWORD", "PGSERVICE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PGPASSFILE", str(passwords))

    capture(newest_postgres.address(old, password=None), tmp_path / "parts")
    address = parse_postgres_address(newest_postgres.address(new, password=None))
    loaded = load(tmp_path / "parts", address, find_clients())

    assert (loaded.rows, address.password) == (9, None)


def test_what_was_loaded_is_sound_to_the_program_that_checks_pages_and_indexes(
    postgres: PostgresServer, gallery: str, tmp_path: Path
) -> None:
    if postgres.major < 14:
        pytest.skip("the server has nothing that checks pages: it came with 14")
    capture(postgres.address(gallery), tmp_path / "parts")
    name, address = fresh(postgres)

    load(tmp_path / "parts", parse_postgres_address(address), find_clients())

    check = [postgres.program("pg_amcheck"), "--install-missing", "--heapallindexed", "--parent-check"]
    place = ["-h", str(postgres.folder), "-p", str(postgres.port), "-U", SUPERUSER, "-d", name]
    done = subprocess.run([*check, *place], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def rewrite(folder: Path, old: str, new: str) -> None:
    text = (folder / CONTENTS).read_text()
    assert text.count(old) == 1
    (folder / CONTENTS).write_text(text.replace(old, new))


def largest(folder: Path) -> Path:
    return max(folder.glob("*.copy"), key=lambda path: path.stat().st_size)


def flip(path: Path, *, cut: bool = False) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    if cut:
        del data[middle:]
        data += b"\n" if path.suffix == ".copy" and not data.endswith(b"\n") else b""
    else:
        data[middle] ^= 1
    path.write_bytes(data)


def test_who_may_not_read_all_rows_captures_nothing(
    postgres: PostgresServer, gallery: str, tmp_path: Path
) -> None:
    postgres.run(
        "DROP ROLE IF EXISTS reader;\nCREATE ROLE reader LOGIN PASSWORD 'r';\n"
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;\n"
        "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO reader;\nREVOKE SELECT ON base FROM reader",
        gallery,
    )
    address = postgres.address(gallery, user="reader", password="r")

    with pytest.raises(SourceError, match="permission denied"):
        capture(address, tmp_path / "parts")


def test_rows_behind_a_policy_are_not_left_out_silently(
    newest_postgres: PostgresServer, tmp_path: Path
) -> None:
    name = newest_postgres.new_database()
    newest_postgres.run(
        "CREATE TABLE rows_of (who text);\nALTER TABLE rows_of ENABLE ROW LEVEL SECURITY;\n"
        "CREATE POLICY mine ON rows_of USING (who = current_user);\nGRANT SELECT ON rows_of TO app",
        name,
    )

    with pytest.raises(SourceError, match="row-level security"):
        capture(newest_postgres.address(name), tmp_path / "parts")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("exit 0", "wrote no archive"),
        ("printf 'PGDMP half'; echo 'could not write: No space left on device' >&2; exit 1", "No space left"),
        ("printf 'PGDMP half'; kill -9 $$", "ended with status -9"),
        ("echo hello", "wrote no archive"),
    ],
    ids=["empty", "disk full", "killed", "no archive"],
)
def test_a_program_that_fails_or_writes_nothing_is_no_backup(
    newest_postgres: PostgresServer, tmp_path: Path, program: str, said: str
) -> None:
    fake = tmp_path / "fake"
    fake.mkdir()
    for name in ("pg_dump", "pg_restore"):
        version = f"{name} (PostgreSQL) {newest_postgres.major}.99"
        (fake / name).write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && {{ echo "{version}"; exit; }}\n{program}\n'
        )
        (fake / name).chmod(0o755)
    address = parse_postgres_address(newest_postgres.by_socket("postgres"))

    with (
        capturing(address, find_clients(fake)) as captured,
        pytest.raises(SourceError, match=said),
        captured.archive(PRE_DATA) as read_into,
    ):
        drain(read_into)


def test_a_server_that_stops_in_the_middle_is_told(
    newest_postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = newest_postgres.new_database()
    newest_postgres.run("CREATE TABLE t AS SELECT n FROM generate_series(1, 100000) n", name)
    monkeypatch.setattr(rows_module, "BLOCK_BYTES", 1000)

    def read_on() -> None:
        with (
            capturing(parse_postgres_address(newest_postgres.by_socket(name)), find_clients()) as captured,
            captured.table(captured.catalog.tables[0]) as reader,
        ):
            reader.read_into(memoryview(bytearray(100)))
            newest_postgres.run(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            )
            drain(reader.read_into)

    with pytest.raises(SourceError, match=r"table t: .*(terminating|closed)"):
        read_on()


def test_a_table_that_is_left_in_the_middle_leaves_nothing_behind(
    newest_postgres: PostgresServer, tmp_path: Path
) -> None:
    name = newest_postgres.new_database()
    newest_postgres.run("CREATE TABLE t AS SELECT repeat('x', 99) FROM generate_series(1, 400000)", name)

    class Stopped(Exception):
        pass

    with capturing(parse_postgres_address(newest_postgres.by_socket(name)), find_clients()) as captured:
        (table,) = captured.catalog.tables
        threads = threading.active_count()
        with suppress(Stopped), captured.table(table) as reader:
            reader.read_into(memoryview(bytearray(100)))
            raise Stopped
        left = threading.active_count() - threads
        with captured.table(table) as reader:
            size = len(drain(reader.read_into))

    assert (left, size, reader.rows) == (0, 400_000 * 100, 400_000)
