"""Prune: what no snapshot needs goes, everything else stays, wherever it is stopped."""

from __future__ import annotations

import hashlib
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.clock import format_time
from backup_admin.core.errors import (
    BackupAdminError,
    Damaged,
    HistoryChanged,
    StorageDenied,
    StorageError,
    UsageError,
)
from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations.captured import check_content
from backup_admin.operations.check import check_repository
from backup_admin.operations.extract import extract
from backup_admin.operations.prune import PruneOptions, PruneReport, prune
from backup_admin.storage.memory import MemoryStorage
from tests.factories import (
    CLOCK,
    file_sources,
    make_storage,
    noise,
    open_test_repository,
    prose,
    run_backup,
    write_tree,
)
from tests.fakes import Act, Fault, FaultyStorage, SteppingClock, clone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.core.ids import SnapshotId
    from backup_admin.storage.base import Storage


@dataclass
class Site:
    """A folder with snapshots, and what each of them held when it was made."""

    folder: Path
    storage: MemoryStorage
    held: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def files(self) -> Path:
        return self.folder / "files"

    def back_up(self, storage: Storage | None = None, state: str = "state") -> SnapshotId:
        repository = open_test_repository(storage or self.storage, self.folder / state)
        result = run_backup(repository, file_sources(self.files), self.folder / state)
        self.held[result.snapshot.id] = digests(self.files)
        return result.snapshot.id

    def forget(self, *snapshots: SnapshotId) -> None:
        repository = open_test_repository(self.storage, self.folder / "state")
        repository.record("forget", {"ids": list(snapshots)}, actor="tests")
        for snapshot in snapshots:
            del self.held[snapshot]

    def prune(
        self, options: PruneOptions | None = None, storage: Storage | None = None, state: str = "state"
    ) -> PruneReport:
        return run_prune(storage or self.storage, self.folder / state, options)

    def names(self, prefix: str) -> set[str]:
        return {info.name for info in self.storage.list_objects(prefix)}


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def run_prune(storage: Storage, state: Path, options: PruneOptions | None = None) -> PruneReport:
    return prune(
        open_test_repository(storage, state),
        options or PruneOptions(max_unused_percent=0),
        actor="tests",
        state=StateFolder(state),
        reporter=QuietReporter(),
        clock=CLOCK,
    )


def assert_whole(storage: Storage, folder: Path, held: dict[str, dict[str, str]]) -> None:
    """Restore every snapshot with a fresh state folder and compare each file with what it was."""
    shutil.rmtree(folder, ignore_errors=True)
    repository = open_test_repository(storage, folder / "state")
    assert set(repository.snapshot_ids()) == set(held)
    for snapshot in repository.snapshot_ids():
        target = folder / snapshot
        report = extract(repository, snapshot, target, reporter=QuietReporter())
        assert report.ok, report.problems
        assert digests(target / "files" / "uploads") == held[snapshot]
    check = check_repository(repository, read_data=True, reporter=QuietReporter())
    assert check.problems == ()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path, MemoryStorage())
    make_storage(made.storage)
    write_tree(made.files)
    return made


def change(site: Site, number: int) -> None:
    """Change some files, so that the snapshot before needs what the next does not."""
    write_tree(
        site.files,
        {
            f"day/{number % 3}.jpg": b"\xff\xd8\xff" + noise(40_000 + number, seed=900 + number),
            "text/long.txt": prose(60_000, seed=50 + number),
            f"small/{number:02d}.txt": prose(700, seed=300 + number),
        },
    )


def days(site: Site, count: int) -> list[SnapshotId]:
    made = []
    for number in range(count):
        change(site, number)
        made.append(site.back_up())
    return made


def test_what_no_snapshot_needs_is_deleted_and_the_rest_restores(site: Site) -> None:
    made = days(site, 5)
    before = sum(info.size for info in site.storage.list_objects("packs/"))
    site.forget(*made[:3])

    report = site.prune()

    after = sum(info.size for info in site.storage.list_objects("packs/"))
    assert report.snapshots == 2
    assert after == before - report.bytes_freed
    assert report.bytes_freed > 0
    assert report.objects_left == 0
    assert report.notices == []
    assert site.names("manifests/") == {f"manifests/{snapshot}" for snapshot in made[3:]}
    assert_whole(site.storage, site.folder / "proof", site.held)


def test_a_pruned_repository_holds_about_what_a_fresh_one_does(site: Site) -> None:
    made = days(site, 6)
    site.forget(*made[:-1])
    site.prune()
    fresh = Site(site.folder / "fresh", MemoryStorage())
    make_storage(fresh.storage)
    shutil.copytree(site.files, fresh.files, symlinks=True)
    fresh.back_up()

    pruned, made_anew = (
        sum(info.size for info in one.storage.list_objects("packs/")) for one in (site, fresh)
    )

    assert pruned <= made_anew * 1.25


def test_a_second_prune_finds_nothing_to_do(site: Site) -> None:
    site.forget(*days(site, 4)[:2])
    site.prune()
    before = dict(site.storage._objects)

    report = site.prune()

    assert (report.packs_taken, report.objects_deleted) == (0, 0)
    assert site.storage._objects == before


def test_nothing_forgotten_nothing_deleted(site: Site) -> None:
    days(site, 2)
    before = dict(site.storage._objects)

    report = site.prune(PruneOptions())

    assert report.packs_taken == 0
    assert site.storage._objects == before


def test_a_dry_run_says_what_would_go_and_changes_nothing(site: Site) -> None:
    site.forget(*days(site, 5)[:3])
    before = dict(site.storage._objects)

    planned = site.prune(PruneOptions(max_unused_percent=0, dry_run=True))

    assert site.storage._objects == before
    done = site.prune()
    assert (planned.packs_taken, planned.packs_rewritten) == (done.packs_taken, done.packs_rewritten)
    assert planned.bytes_taken == done.bytes_taken
    assert abs(planned.bytes_freed - done.bytes_freed) < 0.3 * done.bytes_taken


def test_all_snapshots_forgotten_leaves_no_data(site: Site) -> None:
    site.forget(*days(site, 2))

    site.prune()

    assert {name.partition("/")[0] for name in site.names("")} == {"config", "keys", "chain"}
    site.back_up()
    assert_whole(site.storage, site.folder / "proof", site.held)


def test_less_is_written_anew_when_more_may_stay_unused(site: Site) -> None:
    site.forget(*days(site, 5)[:2])

    report = site.prune(PruneOptions(max_unused_percent=100))

    assert report.packs_rewritten == 0
    assert report.bytes_unused > 0
    assert_whole(site.storage, site.folder / "proof", site.held)
    assert site.prune().packs_rewritten > 0
    assert_whole(site.storage, site.folder / "proof", site.held)


@pytest.mark.parametrize("percent", [-1, 101, float("nan")])
def test_an_impossible_percentage_is_refused(site: Site, percent: float) -> None:
    days(site, 1)

    with pytest.raises(UsageError):
        site.prune(PruneOptions(max_unused_percent=percent))


def test_many_small_packs_and_index_objects_become_few(site: Site) -> None:
    for number in range(70):
        write_tree(site.files, {"counter": str(number).encode()})
        site.back_up()
    packs, indexes = len(site.names("packs/")), len(site.names("index/"))

    site.prune()

    assert packs >= 70
    assert indexes >= 70
    assert len(site.names("packs/")) < 10
    assert len(site.names("index/")) < 5
    some = dict(list(site.held.items())[::10])
    open_test_repository(site.storage, site.folder / "state").record(
        "forget", {"ids": [one for one in site.held if one not in some]}, actor="tests"
    )
    assert_whole(site.storage, site.folder / "proof", some)


def test_a_repository_that_is_not_the_one_seen_before_is_not_pruned(site: Site) -> None:
    made = days(site, 2)
    old = clone(site.storage)
    site.forget(made[0])
    before = dict(old._objects)

    with pytest.raises(HistoryChanged):
        site.prune(storage=old)

    assert old._objects == before


# --- what nothing names ----------------------------------------------------------


def leave_litter(site: Site) -> set[str]:
    """Let a backup die before its commit; return what it left."""
    before = site.names("")
    change(site, 77)
    broken = FaultyStorage(site.storage)

    def die(method: str, name: str) -> None:
        if method == "put" and name.startswith("chain/"):
            raise StorageError("died")

    broken.before = die
    with pytest.raises(StorageError):
        run_backup(
            open_test_repository(broken, site.folder / "elsewhere"),
            file_sources(site.files),
            site.folder / "elsewhere",
        )
    return site.names("") - before


def prune_at(site: Site, clock: SteppingClock, options: PruneOptions | None = None) -> PruneReport:
    return prune(
        open_test_repository(site.storage, site.folder / "state"),
        options or PruneOptions(),
        actor="tests",
        state=StateFolder(site.folder / "state"),
        reporter=QuietReporter(),
        clock=clock,
    )


def test_what_nothing_names_goes_a_day_after_it_was_seen_first(site: Site) -> None:
    days(site, 1)
    litter = leave_litter(site)
    clock = SteppingClock()

    assert prune_at(site, clock).objects_waiting == len(litter) > 2
    clock.sleep(timedelta(hours=23).total_seconds())
    assert prune_at(site, clock).objects_waiting == len(litter)
    assert litter <= site.names("")
    clock.sleep(timedelta(hours=1).total_seconds())
    assert prune_at(site, clock).objects_waiting == 0

    assert not litter & site.names("")
    assert_whole(site.storage, site.folder / "proof", site.held)


def test_what_nothing_names_goes_at_once_when_asked(site: Site) -> None:
    days(site, 1)
    litter = leave_litter(site)

    report = site.prune(PruneOptions(every_unknown=True))

    assert litter
    assert not litter & site.names("")
    assert report.bytes_taken > 0


def test_what_a_killed_backup_here_left_waits_for_the_next_backup(site: Site) -> None:
    days(site, 1)
    leave_litter(site)
    shutil.copytree(site.folder / "elsewhere", site.folder / "state", dirs_exist_ok=True)
    packs = site.names("packs/")
    clock = SteppingClock()
    for _ in range(3):
        prune_at(site, clock)
        clock.sleep(timedelta(days=2).total_seconds())

    assert site.names("packs/") == packs
    site.back_up()
    assert_whole(site.storage, site.folder / "proof", site.held)


def test_a_pack_that_was_taken_is_never_taken_over_by_a_backup(site: Site) -> None:
    days(site, 1)
    leave_litter(site)
    litter = site.names("packs/")
    copies = {name: site.storage.get(name) for name in litter}
    site.prune(PruneOptions(every_unknown=True))
    taken = litter - site.names("packs/")
    for name in taken:  # as a put would that was under way when its sender died
        site.storage.put(name, copies[name])

    site.back_up(state="elsewhere")

    assert taken
    fresh = open_test_repository(site.storage, site.folder / "fresh")
    named = {pack.name.hex() for pack in fresh.index().packs()}
    assert not named & {name.rpartition("/")[2] for name in taken}
    assert_whole(site.storage, site.folder / "proof", site.held)


def test_unknown_packs_stay_while_snapshots_lack_chunks(site: Site) -> None:
    days(site, 2)
    litter = leave_litter(site)
    repository = open_test_repository(site.storage, site.folder / "state")
    lost = next(iter(pack.name.hex() for pack in repository.index().packs()))
    repository.record("gc-delete", {"packs": [lost], "damaged": list(site.held)}, actor="tests")

    report = site.prune(PruneOptions(every_unknown=True))

    assert "no known pack" in report.notices[0]
    assert litter <= site.names("")


# --- damage -----------------------------------------------------------------------


def test_nothing_is_deleted_when_a_manifest_cannot_be_read(site: Site) -> None:
    made = days(site, 3)
    site.forget(made[0])
    site.storage.delete(f"manifests/{made[1]}")
    before = dict(site.storage._objects)

    with pytest.raises(Damaged, match="Nothing was deleted"):
        site.prune()

    assert site.storage._objects == before


def test_nothing_is_deleted_when_an_index_object_is_lost(site: Site) -> None:
    site.forget(days(site, 3)[0])
    site.storage.delete(sorted(site.names("index/"))[0])
    before = dict(site.storage._objects)

    with pytest.raises(Damaged, match="Nothing was deleted"):
        site.prune(state="another")

    assert site.storage._objects == before


def test_a_damaged_pack_is_left_as_it_is(site: Site) -> None:
    site.forget(*days(site, 4)[:2])
    packs = {name: site.storage.get(name) for name in site.names("packs/")}
    for name, data in packs.items():
        site.storage.put(name, data[:-1] + bytes([data[-1] ^ 1]), if_absent=False)

    report = site.prune()

    assert "damaged and was left as it is" in report.notices[0]
    for name in site.names("packs/"):  # as when the disk gets well again
        site.storage.put(name, packs[name], if_absent=False)
    assert_whole(site.storage, site.folder / "proof", site.held)


# --- storages that refuse, processes that die --------------------------------------


def test_a_storage_that_may_not_delete_is_told_and_the_next_prune_finishes(site: Site) -> None:
    site.forget(*days(site, 5)[:3])
    faulty = FaultyStorage(site.storage)

    def refuse(method: str, name: str) -> None:
        if method == "delete":
            raise StorageDenied(f"{name} may not be deleted.")

    faulty.before = refuse
    report = site.prune(storage=faulty)

    assert report.objects_deleted == 0
    assert "could not be deleted" in report.notices[0]
    assert_whole(site.storage, site.folder / "proof", site.held)
    finished = site.prune()
    assert finished.objects_deleted == report.objects_left
    assert_whole(site.storage, site.folder / "proof", site.held)
    history = open_test_repository(site.storage, site.folder / "state").history
    assert not history.collected | history.doomed


def test_objects_that_are_locked_stay_and_the_others_go(site: Site) -> None:
    site.forget(*days(site, 5)[:3])
    faulty = FaultyStorage(site.storage)

    def refuse(method: str, name: str) -> None:
        if method == "delete" and name.startswith("manifests/"):
            raise StorageDenied(f"{name} is locked.")

    faulty.before = refuse
    report = site.prune(storage=faulty)

    assert report.objects_left == 3
    assert report.objects_deleted > 3
    assert open_test_repository(site.storage, site.folder / "state").history.doomed == {
        name for name in site.names("manifests/") if name.rpartition("/")[2] not in site.held
    }


class Killed(StorageError):
    """Stands for SIGKILL: from here on nothing reaches the storage."""


def calls_of_a_prune(site: Site) -> int:
    counting = FaultyStorage(clone(site.storage))
    state = site.folder / "counting"
    shutil.copytree(site.folder / "state", state)
    run_prune(counting, state)
    return len(counting.calls)


def kill_points(site: Site, step: int) -> Iterator[tuple[MemoryStorage, Path]]:
    """Yield the storage and state folder that a kill at each call of a prune leaves."""
    for number in range(0, calls_of_a_prune(site), step):
        storage, state = clone(site.storage), site.folder / f"kill-{number}"
        shutil.copytree(site.folder / "state", state)
        faulty = FaultyStorage(storage)

        def die(_method: str, _name: str, faulty: FaultyStorage = faulty, number: int = number) -> None:
            if len(faulty.calls) > number:
                raise Killed("killed")

        # Before the call on every second storage: what the call itself does is the next one's.
        setattr(faulty, "after" if number % 2 else "before", die)
        with suppress(BackupAdminError):
            run_prune(faulty, state)
        yield storage, state


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.long)])
def test_a_prune_killed_at_any_call_loses_nothing_and_the_next_finishes(site: Site, step: int) -> None:
    site.forget(*days(site, 4)[:2])
    sizes = set()
    for number, (storage, state) in enumerate(kill_points(site, step)):
        if number % 3 == 0:
            assert_whole(storage, site.folder / "proof", site.held)
        run_prune(storage, state)
        run_prune(storage, state, PruneOptions(max_unused_percent=0, every_unknown=True))
        history = open_test_repository(storage, state).history
        assert not history.collected | history.doomed | history.forgotten
        if number % 3 == 0:
            assert_whole(storage, site.folder / "proof", site.held)
        sizes.add(len(list(storage.list_objects("packs/"))))
        shutil.rmtree(state)
    assert max(sizes) - min(sizes) <= 2


FAULTS = [
    ("put", Act.FAIL),
    ("put", Act.LOSE_REPLY),
    ("get", Act.FAIL),
    ("delete", Act.FAIL),
    ("delete", Act.LOSE_REPLY),
    ("list", Act.FAIL),
    ("list", Act.LIE_TORN),
]


@pytest.mark.parametrize(("method", "act"), FAULTS)
def test_a_prune_that_meets_an_error_loses_nothing(site: Site, method: str, act: Act) -> None:
    site.forget(*days(site, 4)[:2])
    counting = FaultyStorage(clone(site.storage))
    shutil.copytree(site.folder / "state", site.folder / "counting")
    run_prune(counting, site.folder / "counting")
    calls = counting.counts()[method]
    for number in range(1, calls + 1, max(1, calls // 3)):
        storage, state = clone(site.storage), site.folder / f"fault-{number}"
        shutil.copytree(site.folder / "state", state)
        with suppress(BackupAdminError):
            run_prune(FaultyStorage(storage, (Fault(method, number, act),)), state)
        run_prune(storage, state)
        assert_whole(storage, site.folder / "proof", site.held)


def test_what_a_killed_prune_stored_anew_is_not_stored_twice(site: Site) -> None:
    site.forget(*days(site, 5)[:3])
    faulty = FaultyStorage(site.storage)

    def die(method: str, name: str) -> None:
        if method == "put" and name.startswith("chain/"):
            raise Killed("killed")

    faulty.before = die
    with pytest.raises(Killed):
        site.prune(storage=faulty)
    stored = site.names("packs/")

    site.prune()

    assert site.names("packs/") < stored
    assert_whole(site.storage, site.folder / "proof", site.held)


# --- beside backups and other prunes -----------------------------------------------


def at_the_entry(storage: Storage, act: object, *, times: int = 1) -> FaultyStorage:
    """Return a storage in which something happens just before an entry is put."""
    faulty = FaultyStorage(storage)
    left = [times]

    def before(method: str, name: str) -> None:
        if method == "put" and name.startswith("chain/") and left[0]:
            left[0] -= 1
            act()  # type: ignore[operator]  # a plain callable

    faulty.before = before
    return faulty


def test_a_backup_that_commits_first_keeps_what_it_needs(site: Site) -> None:
    """The prune has decided to delete what the backup, without storing it again, refers to."""
    change(site, 1)
    first = site.back_up()
    kept = {path: path.read_bytes() for path in site.files.rglob("day/*")}
    for path in kept:
        path.unlink()
    site.back_up()
    site.forget(first)
    for path, data in kept.items():
        path.write_bytes(data)

    report = site.prune(storage=at_the_entry(site.storage, lambda: site.back_up(state="other")))

    assert report.snapshots == 2
    assert_whole(site.storage, site.folder / "proof", site.held)


def test_a_prune_that_commits_first_makes_the_backup_store_again(site: Site) -> None:
    change(site, 1)
    first = site.back_up()
    kept = {path: path.read_bytes() for path in site.files.rglob("day/*")}
    for path in kept:
        path.unlink()
    site.back_up()
    site.forget(first)
    for path, data in kept.items():
        path.write_bytes(data)

    site.back_up(at_the_entry(site.storage, site.prune), state="other")

    assert_whole(site.storage, site.folder / "proof", site.held)


def test_a_prune_that_only_moves_what_a_backup_needs_does_not_hold_it_up(site: Site) -> None:
    site.forget(*days(site, 5)[:3])
    change(site, 9)
    faulty = at_the_entry(site.storage, site.prune)

    site.back_up(faulty, state="other")

    manifests = [name for method, name in faulty.calls if method == "put" and name.startswith("manifests/")]
    assert len(manifests) == 1
    assert_whole(site.storage, site.folder / "proof", site.held)


def test_a_backup_whose_own_packs_were_taken_stores_them_again(site: Site) -> None:
    days(site, 1)
    change(site, 9)
    every = PruneOptions(every_unknown=True)
    faulty = at_the_entry(site.storage, lambda: site.prune(every))

    site.back_up(faulty, state="other")

    manifests = [name for method, name in faulty.calls if method == "put" and name.startswith("manifests/")]
    assert len(manifests) == 2
    assert_whole(site.storage, site.folder / "proof", site.held)


def test_a_backup_that_saw_the_entry_for_another_reason_still_looks_at_it(site: Site) -> None:
    """A pin that is recorded between the start of a run and its commit reads the chain too."""
    change(site, 1)
    first = site.back_up()
    kept = {path: path.read_bytes() for path in site.files.rglob("day/*")}
    for path in kept:
        path.unlink()
    site.back_up()
    site.forget(first)
    for path, data in kept.items():
        path.write_bytes(data)
    faulty = FaultyStorage(site.storage)
    repository = open_test_repository(faulty, site.folder / "other")
    done: list[PruneReport] = []

    def before(method: str, name: str) -> None:
        if method == "put" and name.startswith("manifests/") and not done:
            done.append(site.prune())
            pin = {"pin": "p", "snapshot": next(iter(site.held)), "until": "", "reason": "tests"}
            repository.record("pin", pin, actor="tests")

    faulty.before = before
    result = run_backup(repository, file_sources(site.files), site.folder / "other")

    site.held[result.snapshot.id] = digests(site.files)
    assert done[0].packs_taken > 0
    assert_whole(site.storage, site.folder / "proof", site.held)


def test_two_prunes_at_once_end_as_one_would(site: Site) -> None:
    site.forget(*days(site, 5)[:3])

    site.prune(storage=at_the_entry(site.storage, lambda: site.prune(state="other")))

    assert_whole(site.storage, site.folder / "proof", site.held)
    every = PruneOptions(every_unknown=True, max_unused_percent=0)
    site.prune(every)
    assert site.prune(every).packs_taken == 0


def test_a_prune_during_the_marking_of_another_moves_nothing_from_under_it(site: Site) -> None:
    site.forget(*days(site, 5)[:3])
    faulty = FaultyStorage(site.storage)
    done: list[PruneReport] = []

    def before(method: str, name: str) -> None:
        if method == "get" and name.startswith("manifests/") and not done:
            done.append(site.prune(state="other"))

    faulty.before = before
    site.prune(storage=faulty)

    assert done[0].packs_rewritten > 0
    assert_whole(site.storage, site.folder / "proof", site.held)


# --- beside restores ---------------------------------------------------------------


def test_while_a_restore_holds_a_pin_what_it_may_read_stays(site: Site) -> None:
    made = days(site, 5)
    site.forget(*made[:3])
    repository = open_test_repository(site.storage, site.folder / "restorer")
    until = format_time(CLOCK.now() + timedelta(hours=6))
    pin = {"pin": "p", "snapshot": made[4], "until": until, "reason": "restore"}
    repository.record("pin", pin, actor="tests")
    reader, manifest = repository.reader(), repository.manifest(made[4])

    report = site.prune()

    assert "A restore is under way" in report.notices[0]
    assert report.objects_left == report.packs_rewritten > 0
    contents = [e.content for e in repository.entries(manifest.files[0], reader) if e.content is not None]
    assert sum(check_content(reader, content) for content in contents) == manifest.files[0].size
    repository.record("unpin", {"pin": "p"}, actor="tests")
    assert site.prune().objects_deleted == report.objects_left
    assert_whole(site.storage, site.folder / "proof", site.held)


def test_a_pin_of_a_restore_that_ran_out_holds_nothing(site: Site) -> None:
    made = days(site, 5)
    site.forget(*made[:3])
    until = format_time(CLOCK.now() - timedelta(hours=1))
    pin = {"pin": "p", "snapshot": made[4], "until": until, "reason": "restore"}
    open_test_repository(site.storage, site.folder / "state").record("pin", pin, actor="tests")

    assert site.prune().objects_left == 0


def test_a_reader_without_a_pin_finds_what_a_prune_moved(site: Site) -> None:
    made = days(site, 5)
    site.forget(*made[:3])
    repository = open_test_repository(site.storage, site.folder / "reader")
    reader, manifest = repository.reader(), repository.manifest(made[4])

    report = site.prune()

    assert report.objects_left == 0
    contents = [e.content for e in repository.entries(manifest.files[0], reader) if e.content is not None]
    assert sum(check_content(reader, content) for content in contents) == manifest.files[0].size


def test_a_backup_whose_packs_vanish_before_it_reads_them_back_is_made_again(site: Site) -> None:
    days(site, 1)
    change(site, 9)
    every = PruneOptions(every_unknown=True)
    faulty = FaultyStorage(site.storage)
    done: list[PruneReport] = []

    def after(method: str, name: str) -> None:
        if method == "put" and name.startswith("packs/") and not done:
            done.append(site.prune(every))

    faulty.after = after
    site.back_up(faulty, state="other")

    assert done[0].packs_taken > 0
    assert_whole(site.storage, site.folder / "proof", site.held)


def test_a_backup_whose_parent_is_pruned_while_it_is_read_is_made_again(site: Site) -> None:
    made = days(site, 2)
    faulty = FaultyStorage(site.storage)
    done: list[PruneReport] = []

    def before(method: str, name: str) -> None:
        if method == "get" and name.startswith("packs/") and not done:
            site.forget(*made)
            done.append(site.prune())

    faulty.before = before
    site.back_up(faulty, state="other")

    assert done[0].packs_taken > 0
    assert_whole(site.storage, site.folder / "proof", site.held)


def test_what_a_prune_stored_anew_and_another_took_is_not_relied_on(site: Site) -> None:
    """The other one ends whole, so that the chain does not even remember what it deleted."""
    site.forget(*days(site, 5)[:3])
    every = PruneOptions(max_unused_percent=100, every_unknown=True)
    done: list[PruneReport] = []

    site.prune(storage=at_the_entry(site.storage, lambda: done.append(site.prune(every, state="other"))))

    assert done[0].packs_taken > 0
    assert_whole(site.storage, site.folder / "proof", site.held)
