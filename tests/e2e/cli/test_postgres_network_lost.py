"""Restores of a PostgreSQL database whose connection breaks, or whose process in the server is killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.cli.test_postgres_in_place import InPlace
from tests.e2e.cli.test_postgres_in_place_hard import WAYS, going
from tests.e2e.cli.test_postgres_server_lost import content
from tests.services.postgres import OWNER, PASSWORD
from tests.services.postgres_wire import Fault, wire_before

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.cli.command import World
    from tests.services.postgres import PostgresServer
    from tests.services.postgres_wire import Wire

pytestmark = pytest.mark.integration
# The statements only the session that exchanges sends.
EXCHANGE = {"rename": b"RENAME TO", "in_place": b"pg_current_xact_id"}


class Wired(InPlace):
    """A site that reaches its server through a wire that breaks."""

    def __init__(self, world: World, server: PostgresServer, wire: Wire) -> None:
        self.wire = wire
        super().__init__(world, server)
        server.run("ALTER TABLE sessions SET LOGGED", self.name)  # else a crash empties it

    def address(self, database: str) -> str:
        return f"postgresql://{OWNER}@127.0.0.1:{self.wire.port}/{database}"


@pytest.fixture
def wired(world: World, newest_postgres: PostgresServer) -> Iterator[Wired]:
    with wire_before(newest_postgres.port) as wire:
        yield Wired(world, newest_postgres, wire)


def test_a_connection_that_breaks_while_the_new_database_is_made_leaves_all_as_it_was(wired: Wired) -> None:
    wired.back_up()
    wired.harm()
    old = content(wired)
    wired.wire.fail(Fault.LOST_BEFORE, b"COPY", b"FROM STDIN")

    done = wired.restore()

    assert wired.wire.met == 1
    assert done.status == 1
    assert done.result["outcome"] == "rolled_back"
    assert "table" in done.result["message"]
    assert "Nothing live was changed" in done.result["message"]
    assert content(wired) == old
    assert wired.databases() == {wired.name}


@pytest.mark.parametrize(
    ("way", "fault", "outcome"),
    [
        # The renames are done again, where the server says that they were not done.
        ("rename", Fault.LOST_BEFORE, "restored"),
        pytest.param("rename", Fault.LOST_AFTER, "restored", marks=pytest.mark.long),
        ("rename", Fault.LEFT_OPEN, "restored"),
        pytest.param("rename", Fault.KILLED, "restored", marks=pytest.mark.long),
        ("in_place", Fault.LOST_BEFORE, "rolled_back"),
        ("in_place", Fault.LOST_AFTER, "restored"),
        pytest.param("in_place", Fault.LEFT_OPEN, "rolled_back", marks=pytest.mark.long),
        pytest.param("in_place", Fault.KILLED, "rolled_back", marks=pytest.mark.long),
    ],
)
def test_after_a_commit_that_was_not_heard_of_the_server_is_asked(
    wired: Wired, way: str, fault: Fault, outcome: str
) -> None:
    new = content(wired)
    wired.back_up()
    wired.harm()
    old = content(wired)
    wired.wire.fail(fault, EXCHANGE[way], b"COMMIT")

    with going(wired, way):
        done = wired.restore()

    assert wired.wire.met == 1
    assert done.result["outcome"] == outcome, done.out
    assert content(wired) == (new if outcome == "restored" else old)
    if outcome == "rolled_back":
        assert "The server did not commit it, so it is as it was." in done.result["message"]
        assert wired.databases() == {wired.name}
        again = wired.restore()
        assert again.result["outcome"] == "restored", again.out
    assert not list(wired.world.state.glob("maintenance*"))


@WAYS
@pytest.mark.long(minutes=2)
@pytest.mark.parametrize("fault", [Fault.LOST_BEFORE, Fault.LEFT_OPEN, Fault.KILLED])
def test_what_breaks_within_the_exchange_leaves_the_old_or_the_new(
    wired: Wired, way: str, fault: Fault
) -> None:
    new = content(wired)
    wired.back_up()
    wired.harm()
    old = content(wired)
    wired.wire.fail(fault, EXCHANGE[way], b"RENAME TO" if way == "rename" else b"CREATE TABLE")

    with going(wired, way):
        done = wired.restore()

    assert wired.wire.met == 1
    expected = ("restored", new) if way == "rename" else ("rolled_back", old)
    assert (done.result["outcome"], content(wired)) == expected, done.out


@WAYS
@pytest.mark.long(minutes=2)
@pytest.mark.parametrize("fault", [Fault.LOST_BEFORE, Fault.LOST_AFTER, Fault.LEFT_OPEN])
def test_a_network_that_stays_away_at_the_commit_is_waited_for_and_recover_asks(
    wired: Wired, way: str, fault: Fault
) -> None:
    wired.back_up()
    wired.harm()
    old = content(wired)
    wired.wire.fail(fault, EXCHANGE[way], b"COMMIT", stays_away=True)

    with going(wired, way):
        done = wired.restore()
        too_early = wired.call("recover")
        wired.wire.away = False
        recovered = wired.good("recover")

    assert done.result["outcome"] == "needs_attention"
    assert "cannot be reached" in done.result["message"]
    assert "Writers are kept out" in done.result["message"]
    assert too_early.status != 0
    assert [one["outcome"] for one in recovered.result["restores"]] == ["rolled_back"]
    assert content(wired) == old
    said = done.out + done.err + too_early.out + recovered.out
    assert PASSWORD not in said


def test_a_load_whose_connection_breaks_says_what_is_there_and_what_to_do(wired: Wired) -> None:
    wired.back_up()
    target = wired.world.root / "out"
    wired.good("restore", "latest", wired.world.storage, "--to", target)
    empty = wired.server.new_database()
    wired.wire.fail(Fault.LOST_BEFORE, b"COPY", b"FROM STDIN")

    done = wired.call("load", target / "databases/app", "--postgres", wired.address(empty))

    assert wired.wire.met == 1
    assert done.status == 1
    assert f"What was loaded so far is in {wired.address(empty)}" in done.error["message"]
    assert "drop that database" in done.error["message"]
