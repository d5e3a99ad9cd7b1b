"""`--at TIME`: the state at a moment, through the command."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.cli.command import World

BOTH = ("first", "second")


@pytest.fixture
def moments(world: World) -> dict[str, str]:
    """Make two snapshots; return a moment after each, and their ids."""
    world.init()
    found = {}
    for text in BOTH:
        (world.files / "readme.txt").write_text(text)
        done = world.back_up("--json")
        assert done.status == 0, done.err
        found[f"{text} id"] = done.result["snapshot"]["id"]
        found[text] = datetime.now(UTC).isoformat()
        time.sleep(0.01)
    return found


def test_each_moment_restores_what_was_there_then(
    world: World, moments: dict[str, str], tmp_path: Path
) -> None:
    for text in BOTH:
        out = tmp_path / f"out-{text}"
        done = world.run("restore", "latest", world.storage, *key(world), "--at", moments[text], "--to", out)

        assert done.status == 0, done.err
        assert (out / "files/files/readme.txt").read_text() == text
        assert f"snapshot {moments[f'{text} id']} of " in done.err


def test_all_verbs_take_the_same_one_and_say_so(world: World, moments: dict[str, str]) -> None:
    at = ("--at", moments["first"])
    for verb in ("ls", "show", "verify"):
        done = world.run(verb, "latest", world.storage, *key(world), *at, "--json")

        assert done.status == 0, done.err
        assert moments["first id"] in done.out
        assert "Later changes are not in it" in done.err + done.out


def test_a_restore_in_place_goes_to_that_moment(world: World, moments: dict[str, str]) -> None:
    done = world.run(
        *("restore", "latest", world.storage, *key(world), "--at", moments["first"]),
        *("--in-place", "--files", f"files={world.files}", "--yes"),
    )

    assert done.status == 0, done.err
    assert (world.files / "readme.txt").read_text() == "first"


@pytest.mark.parametrize(
    ("snapshot", "at", "status", "words"),
    [
        ("latest", "2999-01-01T00:00Z", 2, "still to come"),
        ("latest", "2001-01-01T00:00Z", 1, "the first is"),
        ("latest", "soon", 2, "no point in time"),
        ("01", "2h", 2, "With --at the snapshot is `latest`"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_written(
    world: World, moments: dict[str, str], tmp_path: Path, snapshot: str, at: str, status: int, words: str
) -> None:
    done = world.run("restore", snapshot, world.storage, *key(world), "--at", at, "--to", tmp_path / "out")

    assert (done.status, words in done.err) == (status, True), done.err
    assert not (tmp_path / "out").exists()


def key(world: World) -> tuple[str, str]:
    return ("--key-file", str(world.key))
