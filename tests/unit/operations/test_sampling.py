"""A scrub in parts reads everything within so many runs, whatever happens in between."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import UsageError
from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations.check import check_repository
from backup_admin.operations.sampling import open_sampler, parse_sample
from backup_admin.repository.index import PackInfo
from backup_admin.storage.memory import MemoryStorage
from tests.factories import (
    file_sources,
    make_storage,
    noise,
    open_test_repository,
    run_backup,
    write_tree,
)
from tests.fakes import FaultyStorage, SteppingClock

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.operations.results import CheckReport

CLOCK = SteppingClock()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def packs(*numbers: int) -> list[PackInfo]:
    return [PackInfo(number.to_bytes(32, "big"), bytes(44), 1000 + number) for number in numbers]


def read_next(state: StateFolder, there: list[PackInfo], runs: int) -> set[bytes]:
    """Do one run as a new process would, and return what it read."""
    sampler = open_sampler(state, "repo", runs)
    chosen = sampler.choose(there)
    sampler.note(chosen, bad=(), now=CLOCK.now())
    return {pack.name for pack in chosen}


@pytest.mark.parametrize(
    ("text", "runs"), [("1/30", 30), ("5%", 20), ("100%", 1), ("1/1", 1), ("3%", 34), ("0.5%", 200)]
)
def test_a_share_says_in_how_many_runs_everything_is_read(text: str, runs: int) -> None:
    assert parse_sample(text) == runs


@pytest.mark.parametrize("text", ["", "1/0", "0%", "101%", "2/3", "a", "5", "-1%", "1/1000000", "nan%"])
def test_a_share_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_sample(text)


@pytest.mark.parametrize(("count", "runs"), [(30, 30), (7, 30), (100, 30), (1000, 7), (5, 1)])
def test_as_many_runs_as_said_read_every_pack(tmp_path: Path, count: int, runs: int) -> None:
    state, there = StateFolder(tmp_path), packs(*range(count))
    read: set[bytes] = set()

    sizes = []
    for _ in range(runs):
        now = read_next(state, there, runs)
        sizes.append(len(now))
        read |= now

    assert read == {pack.name for pack in there}
    assert max(sizes) <= -(-count // runs)


def test_a_pack_is_read_within_its_runs_although_others_come_and_go(tmp_path: Path) -> None:
    chance, state, runs = random.Random(4), StateFolder(tmp_path), 12
    there = set(range(60))
    waiting = dict.fromkeys(there, 0)
    for turn in range(200):
        there -= set(chance.sample(sorted(there), k=min(len(there) - 1, chance.randrange(12))))
        there |= {1000 + turn * 20 + number for number in range(chance.randrange(14))}
        read = read_next(state, packs(*there), runs)
        waiting = {number: waiting.get(number, 0) + 1 for number in there}
        waiting |= {number: 0 for number in there if number.to_bytes(32, "big") in read}
        assert max(waiting.values()) < runs


def test_a_state_file_that_is_damaged_begins_anew(tmp_path: Path) -> None:
    state, there = StateFolder(tmp_path), packs(*range(4))
    read_next(state, there, 2)
    sampler = open_sampler(state, "repo", 2)
    sampler.path.write_bytes(b"rubbish")

    assert read_next(state, there, 2) | read_next(state, there, 2) == {pack.name for pack in there}


@pytest.fixture
def storage(tmp_path: Path) -> MemoryStorage:
    made = make_storage()
    assert isinstance(made, MemoryStorage)
    files = {f"{number}.jpg": noise(40_000, number) for number in range(12)}
    sources = file_sources(write_tree(tmp_path / "files", files))
    run_backup(open_test_repository(made, tmp_path / "s"), sources, tmp_path / "s")
    return made


def check(storage: MemoryStorage | FaultyStorage, folder: Path, runs: int) -> CheckReport:
    repository = open_test_repository(storage, folder)
    return check_repository(
        repository,
        read_data=False,
        reporter=QuietReporter(),
        sampler=open_sampler(StateFolder(folder), repository.repo_id, runs),
        clock=CLOCK,
    )


def test_the_percentage_rises_to_a_hundred_and_is_never_more_than_was_read(
    storage: MemoryStorage, tmp_path: Path
) -> None:
    faulty = FaultyStorage(storage)
    read: dict[str, int] = {}
    total = sum(info.size for info in storage.list_objects("packs/"))
    seen = []
    for _ in range(4):
        faulty.reset()
        report = check(faulty, tmp_path, 4)
        whole = [name for method, name in faulty.calls if method == "get" and name.startswith("packs/")]
        read |= {name: len(storage.get(name)) for name in whole}
        assert report.sample is not None
        assert report.sample.bytes_covered <= sum(read.values())
        assert report.sample.percent <= 100 * report.sample.bytes_covered / total
        seen.append(report.sample.percent)

    assert seen == sorted(seen)
    assert seen[0] < 60
    assert seen[-1] == 100.0


def test_rot_is_found_within_the_runs_and_named_again_by_each_run_after(
    storage: MemoryStorage, tmp_path: Path
) -> None:
    name = [info.name for info in storage.list_objects("packs/")][-1]
    data = bytearray(storage.get(name))
    data[3000] ^= 4
    storage.put(name, data, if_absent=False)

    found = [not check(storage, tmp_path, 3).ok for _ in range(6)]

    first = found.index(True)
    assert first < 3
    assert all(found[first:])
    report = check(storage, tmp_path, 3)
    assert report.sample is not None
    assert report.sample.percent < 100
