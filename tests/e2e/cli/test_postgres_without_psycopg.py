"""A PostgreSQL database on a machine that has lost psycopg: what needs it waits, the rest goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.cli.test_postgres_in_place import InPlace
from tests.e2e.cli.test_postgres_in_place_hard import kill_after
from tests.services.postgres_oracle import dump_text
from tests.without_extras import hide

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.cli.command import Done, World
    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration

HOW = "pip install 'backup_admin[postgres]'"


@pytest.fixture
def site(world: World, debian_postgres: PostgresServer) -> InPlace:
    return InPlace(world, debian_postgres)


@pytest.fixture
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return hide(tmp_path_factory.mktemp("hiding"))


def call(site: InPlace, bare: dict[str, str], *arguments: object) -> Done:
    return site.world.run(*arguments, environment=bare, alone=False)


def test_its_snapshots_are_listed_verified_mirrored_and_written_out(
    site: InPlace, bare: dict[str, str], tmp_path: Path
) -> None:
    site.back_up()
    storage = site.world.storage

    done = [
        call(site, bare, *arguments)
        for arguments in (
            ("list", storage),
            ("verify", "latest", storage),
            ("check", storage, "--read-data"),
            ("ls", "latest", storage),
            ("mirror", storage, "--to", tmp_path / "mirror"),
            ("restore", "latest", storage, "--to", tmp_path / "out"),
        )
    ]

    assert [one.status for one in done] == [0] * len(done), [one.err for one in done if one.status]
    new = site.server.new_database()
    site.good("load", tmp_path / "out/databases/app", "--postgres", site.address(new))
    assert dump_text(site.server, new) == dump_text(site.server, site.name)


def test_an_undo_that_needs_it_says_so_before_anything_is_touched(
    site: InPlace, bare: dict[str, str]
) -> None:
    site.back_up()
    site.harm()
    harmed = dump_text(site.server, site.name)
    assert site.restore().status == 0
    restored = dump_text(site.server, site.name)

    refused = call(site, bare, "undo", "--yes")

    assert refused.status == 2, refused.out + refused.err
    assert HOW in refused.err
    assert "Traceback" not in refused.err
    assert dump_text(site.server, site.name) == restored
    assert not site.world.state.joinpath("maintenance").exists()
    assert site.good("undo", "--yes").result["outcome"] == "undone"
    assert dump_text(site.server, site.name) == harmed


@pytest.mark.parametrize("step", ["staged", "all_swapped"])
def test_an_interrupted_restore_waits_for_it_and_goes_on_when_it_is_there(
    site: InPlace, bare: dict[str, str], step: str
) -> None:
    before = dump_text(site.server, site.name)
    site.back_up()
    site.harm()
    harmed = dump_text(site.server, site.name)
    kill_after(site, step)

    waits = call(site, bare, "recover")
    done = site.good("recover")

    assert HOW in waits.out + waits.err
    assert "Traceback" not in waits.err
    assert done.status == 0
    assert dump_text(site.server, site.name) in (before, harmed)
