"""`prune`, `pin` and `unpin` as a person runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.cli.command import Done, World


@pytest.fixture
def ids(world: World) -> list[str]:
    world.init()
    made = []
    for number in range(3):
        (world.files / "large.bin").write_bytes(bytes([number]) * 1000 + number.to_bytes(3, "big") * 200_000)
        made.append(world.back_up("--json").result["snapshot"]["id"])
    return made


def run(world: World, verb: str, *arguments: object, expect: int = 0) -> Done:
    done = world.run(verb, *arguments, "--key-file", world.key)
    assert done.status == expect, done.err
    return done


def stored(storage: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(storage)): path.read_bytes() for path in storage.rglob("*") if path.is_file()
    }


def test_what_forgotten_snapshots_held_is_deleted(world: World, ids: list[str]) -> None:
    run(world, "forget", world.storage, "--keep-last", "1")
    before = stored(world.storage)

    dry = run(world, "prune", world.storage, "--max-unused", "0", "--dry-run")
    assert "Nothing was changed." in dry.out
    assert stored(world.storage) == before
    result = run(world, "prune", world.storage, "--max-unused", "0", "--json").result

    assert result["packs_deleted"] > 0
    assert result["objects_left"] == 0
    assert result["bytes_freed"] > 0
    assert not set(stored(world.storage)) & {f"manifests/{one}" for one in ids[:2]}
    assert "Nothing was to be deleted" in run(world, "prune", world.storage).out
    assert run(world, "check", world.storage, "--read-data", "--json").result["problems"] == []
    out = world.root / "out"
    run(world, "restore", "latest", world.storage, "--to", out)
    assert (out / "files/files/large.bin").read_bytes() == (world.files / "large.bin").read_bytes()


@pytest.mark.parametrize("percent", ["-1", "101%", "much"])
def test_an_impossible_share_is_refused(world: World, ids: list[str], percent: str) -> None:
    before = stored(world.storage)

    done = run(world, "prune", world.storage, f"--max-unused={percent}", expect=2)

    assert "Nothing was changed." in done.err
    assert stored(world.storage) == before
    assert ids


def test_a_pinned_snapshot_stays_until_it_is_unpinned(world: World, ids: list[str]) -> None:
    pinned = run(world, "pin", ids[0], world.storage, "--for", "7d", "--reason", "court case")
    assert f"Snapshot {ids[0]} is kept until 20" in pinned.out
    assert "court case" in pinned.out

    kept = run(world, "forget", world.storage, "--keep-last", "1", "--json").result["kept"]
    assert kept == [ids[0], ids[2]]
    assert "is pinned" in run(world, "forget", world.storage, ids[0], expect=1).err
    assert run(world, "unpin", ids[0], world.storage, "--json").result == {"snapshot": ids[0], "pins": 1}
    assert "not pinned" in run(world, "unpin", ids[0], world.storage).out
    run(world, "forget", world.storage, ids[0])


def test_a_pin_needs_a_time_to_come(world: World, ids: list[str]) -> None:
    forever = run(world, "pin", "latest", world.storage, "--json").result
    assert forever == {"snapshot": ids[2], "until": None, "reason": ""}
    for wrong in (["--until", "2001-01-01"], ["--until", "soon"], ["--for", "x"]):
        done = run(world, "pin", ids[0], world.storage, *wrong, expect=2)
        assert done.err
    both = run(world, "pin", ids[0], world.storage, "--until", "2999-01-01", "--for", "7d", expect=2)
    assert "not both" in both.err


def test_a_restore_leaves_no_pin_behind(world: World, ids: list[str]) -> None:
    run(world, "restore", ids[0], world.storage, "--to", world.root / "out")

    assert run(world, "unpin", ids[0], world.storage, "--json").result["pins"] == 0
