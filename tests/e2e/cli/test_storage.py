"""The verbs about a storage itself, from the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest

from backup_admin.storage.storage_report import StepOutcome, StorageReport
from tests.e2e.cli.command import World, objects
from tests.services.s3 import S3Server, free_ports

HOUR = 3600.0
GUIDE = Path(__file__).parents[3] / "docs" / "cli.md"

# Waits while the small object is in the storage.
_SLOW = """
import sys, time
from backup_admin.cli.main import run
from backup_admin.cli.stopping import StoppableReporter
def told(self, name, **totals):
    print("STAGE", name, file=sys.stderr, flush=True)
    time.sleep(0.3)
StoppableReporter.stage = told
sys.exit(run(sys.argv[1:]))
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in objects(folder, "")}


def start_slowly(world: World, stage: str) -> subprocess.Popen[str]:
    """Start a test of the storage and wait until it is at one step."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW, "storage", "test", str(world.storage)],
        env={**os.environ, "BACKUP_ADMIN_STATE_DIR": str(world.state)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.split() == ["STAGE", stage]:
            return process
    raise AssertionError(f"{stage} never began")


def with_keys(world: World, server: S3Server) -> World:
    world.environment |= {"AWS_ACCESS_KEY_ID": server.key, "AWS_SECRET_ACCESS_KEY": server.secret}
    return world


# --- test ------------------------------------------------------------------------


def test_a_folder_with_a_repository_is_good_and_stays_as_it_is(repository: World) -> None:
    before = contents(repository.storage)

    done = repository.run("storage", "test", repository.storage, "--json")

    report = StorageReport.from_plain(done.result)
    assert report.finding(report.findings[0].step).outcome is StepOutcome.OK
    assert "failed" not in {one["outcome"] for one in done.result["findings"]}
    assert done.status in (0, 3)  # 3 where this machine has little room
    assert contents(repository.storage) == before
    assert not repository.state.joinpath("logs").exists()


def test_a_test_needs_no_key_and_no_state_folder(world: World) -> None:
    world.storage.mkdir()

    done = world.run("storage", "test", world.storage)

    assert done.status in (0, 3), done.err
    assert done.out.splitlines()[0] == f"{world.storage}:"
    assert "All that is needed works" in done.out
    assert list(world.storage.iterdir()) == []
    assert not world.state.exists()


def test_a_missing_folder_is_told_with_what_init_would_do(world: World) -> None:
    done = world.run("storage", "test", world.storage)

    assert done.status == 75
    assert "`init` would make it" in done.out
    assert not world.storage.exists()


def test_a_folder_that_may_not_be_written_fails_at_writing(world: World) -> None:
    world.storage.mkdir(mode=0o500)

    done = world.run("storage", "test", world.storage, "--json", obey_permissions=True)

    outcomes = {one["step"]: one["outcome"] for one in done.result["findings"]}
    assert (done.status, outcomes["list"], outcomes["write"], outcomes["read"]) == (
        *(6, "ok", "failed", "skipped"),
    )


def test_an_address_that_makes_no_sense_is_wrong_use(world: World) -> None:
    done = world.run("storage", "test", "s3://x", "--json")

    assert (done.status, done.error["code"]) == (2, "usage")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stage", ["read", "delete"])
def test_a_signal_leaves_nothing_of_a_test(world: World, number: signal.Signals, stage: str) -> None:
    world.storage.mkdir()
    process = start_slowly(world, stage)
    there = list(world.storage.iterdir())
    process.send_signal(number)
    _, err = process.communicate(timeout=20)

    assert (process.returncode, len(there) > 0) == (1, True)
    assert "Stopped as asked" in err
    assert list(world.storage.iterdir()) == []


def test_what_a_killed_test_leaves_is_cleared(world: World) -> None:
    world.storage.mkdir()
    process = start_slowly(world, "delete")
    process.kill()
    process.communicate(timeout=20)
    left = list(world.storage.iterdir())

    young = world.run("storage", "clean", world.storage, "--json").result
    gone = world.run("storage", "clean", world.storage, "--older-than", "0", "--json").result

    assert (len(left), len(young["young"]), len(gone["removed"])) == (2, 2, 2)
    assert list(world.storage.iterdir()) == []


@pytest.mark.integration
def test_a_bucket_is_good(world: World, seaweedfs: S3Server) -> None:
    address = seaweedfs.address(uuid4().hex, create_bucket="true")

    done = with_keys(world, seaweedfs).run("storage", "test", address, "--json", alone=False)

    assert done.status == 0, done.out
    assert done.result["outcome"] == "ok"


@pytest.mark.integration
def test_a_bucket_for_one_writer_ends_with_three(world: World, rclone_s3: S3Server) -> None:
    done = with_keys(world, rclone_s3).run("storage", "test", rclone_s3.address(uuid4().hex), alone=False)

    assert done.status == 3
    assert "one writer at a time" in done.out


@pytest.mark.integration
def test_a_wrong_secret_ends_with_six(world: World, seaweedfs: S3Server) -> None:
    world.environment |= {"AWS_ACCESS_KEY_ID": seaweedfs.key, "AWS_SECRET_ACCESS_KEY": "wrong"}

    done = world.run("storage", "test", seaweedfs.address(uuid4().hex), alone=False)

    assert done.status == 6
    assert "secret key is wrong" in done.out


@pytest.mark.integration
@pytest.mark.parametrize("verb", ["test", "init"])
@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid"])
def test_where_nobody_listens_is_told_soon(world: World, verb: str, host: str) -> None:
    (port,) = free_ports(1)
    server = S3Server(f"http://{host}:{port}")
    verbs = ["storage", "test"] if verb == "test" else ["init", "--key-file", world.key]
    began = time.monotonic()

    done = with_keys(world, server).run(*verbs, server.address(), alone=False)

    assert done.status == 75
    assert ("nothing listens" if host[0] == "1" else "cannot be resolved") in done.out + done.err
    assert time.monotonic() - began < 6


# --- ls --------------------------------------------------------------------------


def test_objects_are_listed_in_order_with_their_sizes(repository: World) -> None:
    done = repository.run("storage", "ls", repository.storage, "--json")

    found = {one["name"]: one["size"] for one in done.result["objects"]}
    there = {name: len(data) for name, data in contents(repository.storage).items()}
    assert (done.status, found) == (0, there)
    assert list(found) == sorted(found)


def test_a_prefix_chooses_and_a_line_sums_up(repository: World) -> None:
    done = repository.run("storage", "ls", repository.storage, "packs/")

    *rows, total = done.out.splitlines()
    there = objects(repository.storage, "packs/")
    assert len(rows) == len(there)
    assert all("  packs/" in row for row in rows)
    assert f"in {len(there)} object" in total


def test_a_name_that_is_no_text_is_listed_all_the_same(world: World) -> None:
    world.storage.mkdir()
    (world.storage / os.fsdecode(b"odd-\xff\n")).write_bytes(b"x")

    plain = world.run("storage", "ls", world.storage)
    document = world.run("storage", "ls", world.storage, "--json")

    assert (plain.status, len(plain.out.splitlines())) == (0, 2)
    assert document.result["objects"] == [{"name": {"b64": "b2RkLf8K"}, "size": 1}]


def test_a_storage_that_is_missing_is_no_empty_list(world: World) -> None:
    plain, document = (world.run("storage", "ls", world.storage, *more) for more in ((), ("--json",)))

    assert (plain.status, document.status) == (75, 75)
    assert document.error["code"] == "storage_unavailable"


# --- clean -----------------------------------------------------------------------


@pytest.fixture
def littered(repository: World) -> World:
    for name, hours in ((".tmp-0123456789abcdef", 30), ("packs/.tmp-0123456789abcdee", 2)):
        path = repository.storage / name
        path.write_bytes(b"half of it")
        os.utime(path, (time.time() - hours * HOUR,) * 2)
    return repository


def test_a_dry_run_shows_what_would_go(littered: World) -> None:
    before = contents(littered.storage)

    done = littered.run("storage", "clean", littered.storage, "--dry-run")

    assert done.status == 0
    assert ".tmp-0123456789abcdef" in done.out
    assert "Would remove 1 leftover (10 B)" in done.out
    assert "1 leftover too young" in done.err
    assert contents(littered.storage) == before


def test_what_is_old_goes_and_the_rest_stays(littered: World) -> None:
    before = contents(littered.storage)

    done = littered.run("storage", "clean", littered.storage, "--json")

    del before[".tmp-0123456789abcdef"]
    assert [one["name"] for one in done.result["removed"]] == [".tmp-0123456789abcdef"]
    assert [one["name"] for one in done.result["young"]] == ["packs/.tmp-0123456789abcdee"]
    assert (done.status, done.result["left"]) == (0, [])
    assert contents(littered.storage) == before


def test_the_age_is_a_choice(littered: World) -> None:
    done = littered.run("storage", "clean", littered.storage, "--older-than", "1")

    assert "Removed 2 leftovers (20 B)." in done.out
    assert littered.call("check").status == 0
    assert "Nothing is left over." in littered.run("storage", "clean", littered.storage).out


def test_an_age_below_zero_is_wrong_use(littered: World) -> None:
    assert littered.run("storage", "clean", littered.storage, "--older-than", "-1").status == 2


# --- reindex -----------------------------------------------------------------------


def reindex(world: World) -> tuple[int, dict[str, object]]:
    done = world.run("storage", "reindex", world.storage, "--key-file", world.key, "--json")
    return done.status, done.result


def test_the_local_index_is_made_anew(repository: World) -> None:
    caches = list((repository.state / "cache").rglob("*.idx"))
    for path in caches:
        path.write_bytes(b"no index")

    status, result = reindex(repository)

    assert len(caches) > 0
    assert (status, result["lost_indexes"], result["missing_packs"]) == (0, [], [])
    assert result["packs"] == len(objects(repository.storage, "packs/"))
    assert repository.restore(repository.root / "out").status == 0


def test_a_lost_pack_ends_with_four_and_names_repair(repository: World) -> None:
    objects(repository.storage, "packs/")[0].unlink()

    done = repository.run("storage", "reindex", repository.storage, "--key-file", repository.key)

    assert done.status == 4
    assert "repair STORAGE --dry-run" in done.out
    assert "problem: Pack" in done.err


def test_without_a_key_there_is_no_index(repository: World) -> None:
    assert repository.run("storage", "reindex", repository.storage).status == 2


# --- help ------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["test", "ls", "clean", "reindex"])
def test_each_verb_has_help_and_is_in_the_guide(world: World, verb: str) -> None:
    guide = GUIDE.read_text().partition("### storage\n")[2].partition("\n### ")[0]

    done = world.run("storage", verb, "--help")

    assert (done.status, "--json" in done.out) == (0, True)
    assert f"`storage {verb} STORAGE" in guide
