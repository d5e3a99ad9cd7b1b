"""Live PostgreSQL databases that are restored where things are not as one expects them."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.e2e.cli.test_postgres_in_place import InPlace
from tests.services.postgres import OWNER
from tests.services.postgres_oracle import dump_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.cli.command import Done, World
    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration
WAYS = pytest.mark.parametrize("way", ["rename", "in_place"])


@pytest.fixture
def newest(world: World, newest_postgres: PostgresServer) -> InPlace:
    return InPlace(world, newest_postgres)


@contextmanager
def going(site: InPlace, way: str) -> Iterator[None]:
    """Let the role make databases, or not."""
    if way == "in_place":
        site.server.run(f"ALTER ROLE {OWNER} NOCREATEDB")
    try:
        yield
    finally:
        site.server.run(f"ALTER ROLE {OWNER} CREATEDB")


def rows(site: InPlace, database: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(site.server.by_socket(database)) as connection:
        return list(connection.execute(query.encode()).fetchall())


def restore_all(site: InPlace, **places: str) -> Done:
    named = [part for name, place in places.items() for part in ("--postgres", f"{name}={place}")]
    return site.call("restore", "latest", site.world.storage, "--in-place", "--yes", *named)


def test_databases_with_long_names_that_begin_alike_stay_apart(newest: InPlace) -> None:
    server = newest.server
    names = [f"customers_of_the_shop_in_europe_{letter}_{newest.name[-6:]}" for letter in "ab"]
    for name in names:
        server.run(f"CREATE DATABASE {name} OWNER {OWNER}")
        server.run(f"CREATE TABLE who (name text);\nINSERT INTO who VALUES ('{name}')", name, user=OWNER)
    places = dict(zip("ab", map(newest.address, names), strict=True))
    named = [part for name, place in places.items() for part in ("--postgres", f"{name}={place}")]
    newest.good("run", newest.world.storage, *named)
    for name in names:
        server.run("UPDATE who SET name = 'wrong'", name)

    done = restore_all(newest, **places)

    assert done.status == 0, done.out + done.err
    assert [rows(newest, name, "SELECT * FROM who") for name in names] == [[(name,)] for name in names]


def test_one_database_under_two_names_is_refused(newest: InPlace) -> None:
    other = newest.server.new_database()
    places = {"a": newest.address(newest.name), "b": newest.address(other)}
    named = [part for name, place in places.items() for part in ("--postgres", f"{name}={place}")]
    newest.good("run", newest.world.storage, *named)
    before = dump_text(newest.server, newest.name)

    done = restore_all(newest, a=places["a"], b=newest.server.by_socket(newest.name, user=OWNER))

    assert done.status == 1
    assert "a and b are one database" in done.error["message"]
    assert dump_text(newest.server, newest.name) == before
    assert newest.databases() == {newest.name}
