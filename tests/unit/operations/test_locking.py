"""What a repository needs stays locked: what reused packs too, in few calls, and never silently not."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import ObjectMissing, StorageDenied, StorageUnavailable
from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations import known
from backup_admin.operations.changes import ChangeOptions
from backup_admin.operations.locking import Locked
from backup_admin.operations.look_for_changes import look_for_changes
from backup_admin.operations.prune import PruneOptions, PruneReport, prune
from backup_admin.operations.results import BackupResult, Outcome
from backup_admin.storage.memory import MemoryStorage
from tests.factories import file_sources, make_storage, noise, open_test_repository, run_backup, write_tree
from tests.fakes import SteppingClock

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.core.errors import StorageError
    from backup_admin.operations.changes import Decision
    from backup_admin.storage.base import Buffer, PutResult

START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 10


class LockingMemory(MemoryStorage):
    """Locks what is put, as a bucket does: a plain delete goes through, the old version stays."""

    def __init__(self, clock: SteppingClock) -> None:
        super().__init__()
        self.lock_days = DAYS
        self.locks: dict[str, datetime] = {}
        self.calls: Counter[str] = Counter()
        self.refusal: StorageError | None = None
        self._clock = clock
        self._mutex = threading.Lock()

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        result = super().put(name, data, if_absent=if_absent)
        self.locks.setdefault(name, self._end())
        return result

    def extend_lock(self, name: str) -> datetime:
        with self._mutex:
            self.calls["extend"] += 1
            if self.refusal is not None:
                raise self.refusal
            if self.stat(name) is None:
                raise ObjectMissing(name)
            self.locks[name] = max(self.locks[name], self._end())
            return self.locks[name]

    def locked_until(self, name: str) -> datetime | None:
        with self._mutex:
            self.calls["look"] += 1
            if self.stat(name) is None:
                raise ObjectMissing(name)
            return self.locks.get(name)

    def _end(self) -> datetime:
        return self._clock.now() + timedelta(days=self.lock_days)


@dataclass
class Site:
    """A folder, and a storage that locks."""

    folder: Path
    clock: SteppingClock = field(default_factory=lambda: SteppingClock(START))
    storage: LockingMemory = field(init=False)

    def __post_init__(self) -> None:
        self.storage = LockingMemory(self.clock)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def back_up(self, **files: bytes) -> BackupResult:
        write_tree(self.folder / "files", files)
        repository = open_test_repository(self.storage, self.state, clock=self.clock)
        self.storage.calls.clear()
        return run_backup(repository, file_sources(self.folder / "files"), self.state, clock=self.clock)

    def prune(self, *, dry_run: bool = False) -> PruneReport:
        return prune(
            open_test_repository(self.storage, self.state, clock=self.clock),
            PruneOptions(max_unused_percent=0, dry_run=dry_run),
            actor="tests",
            state=StateFolder(self.state),
            reporter=QuietReporter(),
            clock=self.clock,
        )

    def days_later(self, days: float) -> None:
        self.clock.moment += timedelta(days=days)

    def ends(self) -> dict[str, datetime]:
        """Return until when each object that is there is locked."""
        return {info.name: self.storage.locks[info.name] for info in self.storage.list_objects("")}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    make_storage(made.storage, clock=made.clock)
    return made


def test_what_a_later_run_reuses_is_locked_for_longer(site: Site) -> None:
    site.back_up(one=noise(90_000))
    before = site.ends()
    site.days_later(DAYS * 0.7)

    result = site.back_up(two=noise(90_000, seed=2))

    assert (result.outcome, result.lock_problems) == (Outcome.COMPLETED, ())
    after = site.ends()
    assert any(name.startswith("packs/") for name in before)
    assert {"config", *before}.issubset(after)
    enough = site.clock.now() + timedelta(days=DAYS * 0.9)
    assert [name for name, end in after.items() if end < enough] == []


def look(site: Site) -> Decision:
    """Look with times that are trusted at once, and with no age at which a backup is made anyway."""
    return look_for_changes(
        open_test_repository(site.storage, site.state, clock=site.clock),
        file_sources(site.folder / "files"),
        options=ChangeOptions(max_age=timedelta(days=365)),
        state=StateFolder(site.state),
        reporter=QuietReporter(),
        clock=site.clock,
    )


def test_what_is_skipped_stays_locked_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "SETTLE_NS", -(10**12))
    site.back_up(one=noise(90_000))
    site.days_later(DAYS * 0.7)

    assert not look(site).run

    enough = site.clock.now() + timedelta(days=DAYS * 0.9)
    assert [name for name, end in site.ends().items() if end < enough] == []


def test_nothing_is_skipped_while_locks_cannot_be_extended(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "SETTLE_NS", -(10**12))
    site.back_up(one=noise(90_000))
    site.days_later(DAYS * 0.7)
    site.storage.refusal = StorageDenied("not allowed.")

    decision = look(site)

    assert (decision.run, "could not be locked for longer" in decision.reason) == (True, True)


def test_a_lock_that_has_more_than_half_left_is_let_be(site: Site) -> None:
    site.back_up(one=noise(90_000))
    before = site.ends()
    site.days_later(DAYS * 0.4)

    site.back_up(two=noise(90_000, seed=2))

    assert site.storage.calls["extend"] == 0
    assert {name: end for name, end in site.ends().items() if name in before} == before


def test_a_run_asks_for_new_objects_alone(site: Site) -> None:
    for number in range(4):
        site.back_up(**{f"file{number}": noise(50_000, seed=number)})
    before = site.ends()

    site.back_up(last=noise(50_000, seed=99))

    assert site.storage.calls == {"look": len(site.ends()) - len(before)}


def test_longer_lock_days_are_caught_up_with(site: Site) -> None:
    site.back_up(one=noise(90_000))
    site.storage.lock_days = DAYS * 9

    site.back_up()

    enough = site.clock.now() + timedelta(days=DAYS * 8)
    assert [name for name, end in site.ends().items() if end < enough] == []


def test_lost_or_damaged_notes_cost_calls_and_nothing_else(site: Site) -> None:
    site.back_up(one=noise(90_000))
    (notes,) = site.state.rglob("locks.json")
    notes.write_bytes(b'{"config": 7')

    result = site.back_up()

    assert result.outcome is Outcome.COMPLETED
    assert site.storage.calls == {"look": len(site.ends())}


def test_what_is_off_the_books_is_locked_no_longer(site: Site) -> None:
    first = site.back_up(one=noise(90_000)).snapshot.id
    kept = set(site.ends())
    (site.folder / "files" / "one").unlink()
    site.back_up(two=noise(90_000, seed=2))
    repository = open_test_repository(site.storage, site.state, clock=site.clock)
    repository.record("forget", {"ids": [first]}, actor="tests")
    garbage = (f"packs/00/{'00' * 32}", "epochs/00099")
    for name in garbage:
        site.storage.put(name, b"left by somebody")
    repository.record("gc-delete", {"packs": [], "objects": [garbage[1]], "indexes": []}, actor="tests")
    before = [site.storage.locks[name] for name in garbage]
    site.days_later(DAYS * 0.7)

    site.back_up()

    assert [site.storage.locks[name] for name in garbage] == before
    manifest = f"manifests/{first}"
    assert manifest in kept
    assert site.storage.locks[manifest] < site.clock.now() + timedelta(days=DAYS / 2)


@pytest.mark.parametrize(
    "refusal", [StorageDenied("It may not be locked."), StorageUnavailable("Nobody answers.")]
)
def test_a_lock_that_cannot_be_extended_makes_the_run_degraded_and_loses_nothing(
    site: Site, refusal: StorageError
) -> None:
    site.back_up(one=noise(90_000))
    before = site.ends()
    site.days_later(DAYS * 0.7)
    site.storage.refusal = refusal

    result = site.back_up(two=noise(90_000, seed=2))

    assert result.outcome is Outcome.DEGRADED
    assert result.snapshot.outcome == "completed"
    (problem,) = result.lock_problems
    assert problem.startswith(f"{len(before)} objects could not be locked for longer: {refusal}")
    assert "the next run tries again" in problem
    site.storage.refusal = None
    assert site.back_up().outcome is Outcome.COMPLETED
    assert min(site.ends().values()) > site.clock.now() + timedelta(days=DAYS * 0.9)


def test_a_storage_that_always_refuses_is_not_asked_for_ever(site: Site) -> None:
    for number in range(12):
        site.back_up(**{f"file{number}": noise(20_000, seed=number)})
    site.days_later(DAYS * 2)
    site.storage.refusal = StorageDenied("It may not be locked.")
    known = len(site.ends())
    (notes,) = site.state.rglob("locks.json")
    notes.unlink()
    for name in site.storage.locks:
        site.storage.locks[name] = START

    result = site.back_up()

    assert site.storage.calls["extend"] < 20 < known
    assert result.lock_problems[0].startswith(f"{len(site.ends())} objects")


def test_an_object_that_is_gone_is_no_failure_to_lock(site: Site) -> None:
    site.back_up(one=noise(90_000))
    site.days_later(DAYS * 0.7)
    site.storage.delete(next(info.name for info in site.storage.list_objects("packs/")))

    assert site.back_up().lock_problems == ()


def test_a_storage_that_locks_nothing_is_not_asked(site: Site) -> None:
    site.storage.lock_days = 0

    site.back_up(one=noise(90_000))

    assert not site.storage.calls
    assert list(site.state.rglob("locks.json")) == []


def test_prune_tells_what_it_deleted_and_what_stays_until_its_lock_ends(site: Site) -> None:
    first = site.back_up(one=noise(90_000)).snapshot.id
    (site.folder / "files" / "one").unlink()
    site.back_up(two=noise(90_000, seed=2))
    open_test_repository(site.storage, site.state, clock=site.clock).record(
        "forget", {"ids": [first]}, actor="tests"
    )
    sizes = {info.name: info.size for info in site.storage.list_objects("")}

    foreseen = site.prune(dry_run=True)
    report = site.prune()

    packs = [name for name in set(sizes) - set(site.ends()) if name.startswith("packs/")]
    assert foreseen.locked == Locked(
        len(packs), sum(sizes[name] for name in packs), max(site.storage.locks[name] for name in packs)
    )

    gone = set(sizes) - set(site.ends())
    assert len(gone) == report.objects_deleted > 1
    assert report.locked == Locked(
        len(gone), sum(sizes[name] for name in gone), max(site.storage.locks[name] for name in gone)
    )


def test_prune_counts_no_lock_that_has_ended(site: Site) -> None:
    first = site.back_up(one=noise(90_000)).snapshot.id
    (site.folder / "files" / "one").unlink()
    site.back_up(two=noise(90_000, seed=2))
    open_test_repository(site.storage, site.state, clock=site.clock).record(
        "forget", {"ids": [first]}, actor="tests"
    )
    site.days_later(DAYS * 2)

    report = site.prune()

    assert report.objects_deleted > 1
    assert report.locked == Locked()


def test_what_probes_of_a_key_that_may_not_delete_left_goes_with_a_prune(site: Site) -> None:
    site.back_up(one=noise(90_000))
    site.storage.put("probe-1", bytes(range(256)) * 16)
    site.storage.put("probe-2", b"not ours")

    site.prune()
    assert site.storage.stat("probe-1") is not None
    site.days_later(2)
    report = site.prune()

    assert report.objects_deleted == 1
    assert [info.name for info in site.storage.list_objects("probe-")] == ["probe-2"]
