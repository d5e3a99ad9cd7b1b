"""`forget` as a person runs it: by name, by policy, dry, pinned by proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.cli.command import Done, World


@pytest.fixture
def ids(world: World) -> list[str]:
    world.init()
    made = []
    for number in range(4):
        (world.files / f"{number}.txt").write_text(f"text {number}")
        made.append(world.back_up("--json").result["snapshot"]["id"])
    return made


def forget(world: World, *arguments: object, expect: int = 0) -> Done:
    done = world.run("forget", world.storage, *arguments, "--key-file", world.key)
    assert done.status == expect, done.err
    return done


def listed(world: World) -> list[str]:
    done = world.run("list", world.storage, "--key-file", world.key, "--json")
    return [snapshot["id"] for snapshot in done.result["snapshots"]]


def test_a_dry_run_says_why_and_changes_nothing(world: World, ids: list[str]) -> None:
    done = forget(world, "--keep-last", "2", "--dry-run")

    lines = {line.split()[1]: line for line in done.out.splitlines() if line.startswith(("keep", "forget"))}
    assert [lines[one].split()[0] for one in ids] == ["forget", "forget", "keep", "keep"]
    assert "no rule keeps it" in lines[ids[0]]
    assert "2 of the last 2" in lines[ids[2]]
    assert "2 snapshots would be forgotten. Nothing was changed." in done.out
    assert listed(world) == ids


def test_a_policy_keeps_what_was_verified_and_the_rest_still_restores(world: World, ids: list[str]) -> None:
    assert world.run("verify", ids[1], world.storage, "--key-file", world.key).status == 0

    result = forget(world, "--keep-last", "1", "--json").result

    assert result["forgotten"] == [ids[0], ids[2]]
    assert result["kept"] == [ids[1], ids[3]]
    assert result["reasons"][ids[1]] == ["the last one that was verified"]
    assert listed(world) == [ids[1], ids[3]]
    out = world.root / "out"
    world.run("restore", ids[1], world.storage, "--key-file", world.key, "--to", out)
    assert sorted(path.name for path in (out / "files/files").glob("[0-9].txt")) == ["0.txt", "1.txt"]


def test_named_ones_go_but_not_the_newest_good_one(world: World, ids: list[str]) -> None:
    refused = forget(world, ids[0], "latest", expect=1)
    assert "newest complete one" in refused.err
    assert listed(world) == ids

    done = forget(world, ids[0], ids[0][:-1] + ids[0][-1])
    assert "1 snapshot forgotten" in done.out
    assert "prune" in done.out
    assert listed(world) == ids[1:]


SENSELESS: tuple[tuple[tuple[str, ...], str], ...] = (
    ((), "one of both"),
    (("latest", "--keep-last", "1"), "one of both"),
    (("--keep-last", "-1"), "--keep-last"),
    (("--keep-within", "soon"), "no span of time"),
    (("--keep-daily", "1", "--time-zone", "Mars/Olympus"), "no time zone"),
    (("--keep-daily", "1", "--time-zone", "../../etc/hostname"), "no time zone"),
    (("nothing-begins-so",), "has no snapshot"),
)


def test_what_makes_no_sense_is_said_and_forgets_nothing(world: World, ids: list[str]) -> None:
    for arguments, words in SENSELESS:
        done = world.run("forget", world.storage, *arguments, "--key-file", world.key)

        assert done.status in {1, 2}, arguments
        assert words in done.err
    assert listed(world) == ids
