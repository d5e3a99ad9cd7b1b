"""Every kind of SQLite database goes through the whole product and comes back as it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.e2e.cli.command import Done, World
from tests.e2e.sqlite.kinds import KINDS, make, spoil
from tests.e2e.sqlite.portrait import is_wal, portray

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.sqlite_tools import SqliteTools

EACH = pytest.mark.parametrize("name", KINDS)


@dataclass(frozen=True, slots=True)
class Passed:
    """What was seen of each database on its way through the product."""

    world: World
    before: dict[str, dict[str, object]]
    spoilt: dict[str, dict[str, object]]
    bytes_before: dict[str, bytes]
    made: Done
    verified: Done
    extracted: Done
    restored: Done


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory, sqlite_tools: SqliteTools) -> Passed:
    """Return a machine where all kinds were backed up, verified, restored elsewhere, spoilt and restored."""
    root = tmp_path_factory.mktemp("matrix")
    world = World(root, root / "state")
    world.init()
    for name, kind in KINDS.items():
        make(kind, place(world, name))
    before = {name: portray(sqlite_tools, place(world, name), knows=KINDS[name].knows) for name in KINDS}
    bytes_before = {name: place(world, name).read_bytes() for name in KINDS}
    sources = [part for name in KINDS for part in ("--sqlite", f"{name}={place(world, name)}")]
    made = world.run("run", world.storage, "--key-file", world.key, *sources, "--json")
    verified = world.call("verify", "latest")
    extracted = world.restore(root / "out")
    for name, kind in KINDS.items():
        spoil(kind, place(world, name))
    spoilt = {name: portray(sqlite_tools, place(world, name), knows=KINDS[name].knows) for name in KINDS}
    restored = world.run(
        "restore", "latest", world.storage, "--key-file", world.key, "--in-place", *sources, "--yes", "--json"
    )
    return Passed(world, before, spoilt, bytes_before, made, verified, extracted, restored)


def place(world: World, name: str) -> Path:
    """Return where a database lies, in a folder of its own."""
    return world.root / "apps" / name / (KINDS[name].file_name or "app.db")


def test_every_step_says_that_it_went_well(passed: Passed) -> None:
    assert passed.made.status == 0, passed.made.out
    assert passed.verified.status == 0, passed.verified.out
    assert (passed.extracted.status, passed.extracted.result["problems"]) == (0, []), passed.extracted.out
    assert (passed.restored.status, passed.restored.result["outcome"]) == (0, "restored"), passed.restored.out


@EACH
def test_the_file_restored_elsewhere_is_the_live_one_byte_for_byte(passed: Passed, name: str) -> None:
    restored = passed.world.root / "out" / "databases" / f"{name}.sqlite"

    assert restored.read_bytes() == passed.bytes_before[name]


@EACH
def test_the_database_restored_in_place_is_what_it_was(
    passed: Passed, sqlite_tools: SqliteTools, name: str
) -> None:
    kind = KINDS[name]
    live = place(passed.world, name)

    assert portray(sqlite_tools, live, knows=kind.knows) == passed.before[name]
    assert passed.spoilt[name]["rows"] != passed.before[name]["rows"]
    assert is_wal(live) == (kind.journal == "wal")


@EACH
def test_sqldiff_finds_nothing_between_both(passed: Passed, sqlite_tools: SqliteTools, name: str) -> None:
    if KINDS[name].knows or name == "odd-names":
        pytest.skip("sqldiff reads neither the app's collations nor a table without a name")
    restored = passed.world.root / "out" / "databases" / f"{name}.sqlite"

    assert sqlite_tools.diff(restored, place(passed.world, name)) == b""


@EACH
def test_nothing_is_left_beside_the_live_file(passed: Passed, name: str) -> None:
    live = place(passed.world, name)
    left = {path.name for path in live.parent.iterdir() if not path.name.startswith(".backup-admin-")}

    assert left <= {live.name, f"{live.name}-journal"}
