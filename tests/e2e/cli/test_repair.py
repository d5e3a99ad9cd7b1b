"""The command mends a damaged storage, and what it gives back is what was there."""

from __future__ import annotations

import filecmp
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.e2e.cli.command import World, flip, objects, size_of

if TYPE_CHECKING:
    from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_restores(world: World, target: Path) -> None:
    """Restore on a machine that knows nothing, and compare by something that is not ours."""
    elsewhere = World(world.root, target.with_suffix(".state"))
    done = elsewhere.restore(target)
    assert done.status == 0, done.err
    compared = filecmp.dircmp(world.files, target / "files" / "files")
    assert (compared.left_only, compared.right_only, compared.diff_files) == ([], [], [])


def repair(world: World, *more: object) -> tuple[int, dict[str, object]]:
    done = world.call("repair", *more)
    assert done.document["command"] == "repair"
    return done.status, done.result


def test_a_sound_repository_needs_no_repair(repository: World) -> None:
    before = contents(repository.storage)

    status, result = repair(repository)

    assert (status, result["found"], result["done"], result["damaged"]) == (0, [], [], [])
    assert contents(repository.storage) == before


def test_a_dry_run_says_what_a_repair_then_does(repository: World, tmp_path: Path) -> None:
    (index,) = objects(repository.storage, "index/")
    index.unlink()
    before = contents(repository.storage)

    status, planned = repair(repository, "--dry-run")

    assert (status, planned["dry_run"], planned["damaged"]) == (4, True, [])
    assert contents(repository.storage) == before
    status, result = repair(repository)
    assert (status, result["found"]) == (0, planned["found"])
    assert repository.call("check", "--read-data").status == 0
    assert_restores(repository, tmp_path / "restored")


def test_what_is_lost_is_named_and_comes_back_from_the_sources(repository: World, tmp_path: Path) -> None:
    for pack in objects(repository.storage, "packs/"):
        pack.unlink()

    status, result = repair(repository)

    assert status == 4
    assert [row["count"] > 0 for row in result["damaged"]] == [True]  # type: ignore[attr-defined]  # foreign data
    assert repository.call("check").status == 4
    shown = repository.call("repair", json=False)
    assert "Nothing more can be mended." in shown.out
    assert "1 snapshot stays damaged" in shown.out
    again = repository.call(
        "repair", "--files", f"files={repository.files}", "--sqlite", f"app={repository.database}"
    )
    assert again.status in (0, 4)
    assert repository.call("list").result["snapshots"][-1]["label"] == "repair"
    assert_restores(repository, tmp_path / "restored")


def test_rot_in_a_pack_is_mended_as_far_as_it_can_be(repository: World, tmp_path: Path) -> None:
    (repository.files / "noise").write_bytes(os.urandom(100_000))
    repository.back_up()
    of_noise = max(objects(repository.storage, "packs/"), key=lambda pack: pack.stat().st_size)
    flip(of_noise, 3000)
    lost = repository.call("check", "--read-data").result["damage"]

    done = repository.call("repair", "--files", f"files={repository.files}", json=False)

    assert len(lost) == 1
    assert done.status == 0, done.out + done.err
    assert "Every snapshot is whole." in done.out
    assert repository.call("check", "--read-data").status == 0
    assert (repository.storage / "quarantine").is_dir()
    assert_restores(repository, tmp_path / "restored")


def test_a_lost_config_is_made_again_on_the_machine_that_knows_the_repository(
    repository: World, tmp_path: Path
) -> None:
    (repository.storage / "config").unlink()
    assert repository.call("repair", "--dry-run").status == 4
    assert not (repository.storage / "config").exists()

    status, result = repair(repository)

    assert (status, len(result["done"])) == (0, 1)  # type: ignore[arg-type]  # foreign data
    assert_restores(repository, tmp_path / "restored")


def test_a_damaged_history_is_written_anew_when_that_is_asked_for(repository: World, tmp_path: Path) -> None:
    repository.back_up()
    flip(repository.storage / "chain" / f"{1:020d}")
    refused = repository.call("repair")
    assert (refused.status, refused.error["code"]) == (4, "damaged")
    assert "repair --history" in refused.error["message"]

    status, _ = repair(repository, "--history")

    assert status == 0
    assert len(repository.call("list").result["snapshots"]) == 2
    assert repository.call("check", "--read-data").status == 0
    assert_restores(repository, tmp_path / "restored")


def test_a_folder_that_is_not_mounted_is_not_repaired(repository: World, tmp_path: Path) -> None:
    shutil.move(repository.storage, tmp_path / "away")
    assert repository.call("repair").status == 75

    repository.storage.mkdir()
    done = repository.call("repair")

    assert (done.status, done.error["code"]) == (1, "not_a_repository")
    assert size_of(repository.storage) == 0


def test_a_scrub_in_parts_needs_as_many_calls_as_said(repository: World) -> None:
    first = repository.call("check", "--sample", "1/2").result["sample"]
    second = repository.call("check", "--sample", "50%").result["sample"]

    assert first["percent"] <= second["percent"] == 100.0


def test_packs_can_be_checked_without_a_key(repository: World) -> None:
    done = repository.run("check", repository.storage, "--keyless", "--json")
    assert done.status == 0, done.err
    flip(objects(repository.storage, "packs/")[0])

    done = repository.run("check", repository.storage, "--keyless")

    assert done.status == 4
    assert "its name does not fit its bytes" in done.err


@pytest.mark.parametrize("sample", ["0", "2/3", "101%"])
def test_a_share_that_makes_no_sense_is_wrong_use(repository: World, sample: str) -> None:
    assert repository.call("check", "--sample", sample).status == 2


def test_the_ways_to_read_exclude_each_other(repository: World) -> None:
    assert repository.call("check", "--read-data", "--keyless").status == 2
