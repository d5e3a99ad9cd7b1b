"""Pins: kept until they run out or are taken away, and never in the way of a restore."""

from __future__ import annotations

import errno
import threading
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.clock import parse_time
from backup_admin.core.errors import ForgetRefused, SnapshotMissing, StorageDenied
from backup_admin.core.progress import QuietReporter
from backup_admin.operations.collecting import is_restoring
from backup_admin.operations.forget import forget_named
from backup_admin.operations.pinning import pin_snapshot, pinned, pinned_meanwhile, unpin_snapshot
from backup_admin.operations.retention import parse_span
from backup_admin.repository import chain
from tests.factories import CLOCK, open_test_repository, protected_folder
from tests.fakes import FarStorage, FaultyStorage

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.repository.history import Head
    from backup_admin.repository.repository import Repository
    from tests.factories import Protected


class Heard(QuietReporter):
    """A reporter that keeps warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def place(tmp_path: Path) -> Protected:
    return protected_folder(tmp_path / "files", tmp_path / "state")


@pytest.fixture
def repository(place: Protected, tmp_path: Path) -> Repository:
    return open_test_repository(place.storage, tmp_path / "state")


def test_a_pinned_snapshot_cannot_be_forgotten_until_it_is_unpinned(repository: Repository) -> None:
    (snapshot,) = repository.snapshot_ids()
    pin_snapshot(repository, snapshot, until=None, reason="court case", actor="tests")
    pin_snapshot(repository, snapshot, until=CLOCK.now() + timedelta(days=1), reason="", actor="tests")

    with pytest.raises(ForgetRefused, match="is pinned"):
        forget_named(repository, [snapshot], force=True, actor="tests", clock=CLOCK)
    assert unpin_snapshot(repository, snapshot, actor="tests") == 2
    forget_named(repository, [snapshot], force=True, actor="tests", clock=CLOCK)

    assert repository.snapshot_ids() == ()


def test_a_snapshot_that_is_forgotten_meanwhile_cannot_be_pinned(place: Protected, tmp_path: Path) -> None:
    faulty = FaultyStorage(place.storage)
    repository = open_test_repository(faulty, tmp_path / "state")
    (snapshot,) = repository.snapshot_ids()
    other = open_test_repository(place.storage, tmp_path / "other")

    def before(method: str, name: str) -> None:
        if method == "put" and name.startswith("chain/") and other.snapshot_ids():
            other.record("forget", {"ids": [snapshot]}, actor="other")

    faulty.before = before
    with pytest.raises(SnapshotMissing, match="Nothing was pinned"):
        pin_snapshot(repository, snapshot, until=None, reason="", actor="tests")


def test_what_is_read_is_pinned_as_long_as_it_is(repository: Repository) -> None:
    (snapshot,) = repository.snapshot_ids()
    heard = Heard()
    with pinned(repository, snapshot, actor="tests", clock=CLOCK, warn=heard.warn):
        (pin,) = repository.history.pins.values()
        assert is_restoring(repository.history, CLOCK.now())
    with (
        pytest.raises(RuntimeError, match="cut short"),
        pinned(repository, snapshot, actor="tests", clock=CLOCK, warn=heard.warn),
    ):
        raise RuntimeError("cut short")

    assert (pin.snapshot, pin.reason) == (snapshot, "restore")
    assert timedelta(hours=1) < parse_time(pin.until) - CLOCK.now() <= timedelta(hours=24)
    assert repository.history.pins == {}
    assert heard.warnings == []


def test_who_may_not_write_reads_without_a_pin_and_is_told(place: Protected, tmp_path: Path) -> None:
    faulty = FaultyStorage(place.storage)

    def before(method: str, name: str) -> None:
        if method == "put":
            raise StorageDenied(f"{name} may not be written.")

    faulty.before = before
    repository, heard = open_test_repository(faulty, tmp_path / "state"), Heard()
    (snapshot,) = repository.snapshot_ids()

    with pinned(repository, snapshot, actor="tests", clock=CLOCK, warn=heard.warn):
        assert repository.manifest(snapshot).snapshot.id == snapshot

    assert "could not be pinned" in heard.warnings[0]


def test_a_pin_that_cannot_be_taken_away_runs_out_and_that_is_told(place: Protected, tmp_path: Path) -> None:
    faulty = FaultyStorage(place.storage)
    repository, heard = open_test_repository(faulty, tmp_path / "state"), Heard()
    (snapshot,) = repository.snapshot_ids()

    def before(method: str, name: str) -> None:
        if method == "put":
            raise StorageDenied(f"{name} may not be written.")

    with pinned(repository, snapshot, actor="tests", clock=CLOCK, warn=heard.warn):
        faulty.before = before

    assert "runs out by itself" in heard.warnings[0]
    later = CLOCK.now() + timedelta(days=2)
    assert not is_restoring(repository.history, later)


def test_from_far_away_a_pin_is_put_and_taken_away_while_others_work(
    place: Protected, tmp_path: Path
) -> None:
    far = FarStorage(place.storage)
    repository, heard = open_test_repository(far, tmp_path / "state"), Heard()
    (snapshot,) = repository.snapshot_ids()
    may_go_on, told, entries = Event(), Event(), [Event(), Event()]
    early: list[bool] = []

    def before(method: str, name: str) -> None:
        if method == "put":
            assert may_go_on.wait(20)
            early.append(not told.is_set())

    def after(method: str, name: str) -> None:
        if method == "put":
            next(entry for entry in entries if not entry.is_set()).set()

    far.before, far.after = before, after
    with pinned_meanwhile(repository, snapshot, actor="tests", clock=CLOCK, warn=heard.warn) as all_read:
        assert repository.manifest(snapshot).snapshot.id == snapshot  # before there is a pin
        may_go_on.set()
        assert entries[0].wait(20)
        repository.refresh()
        assert is_restoring(repository.history, CLOCK.now())
        told.set()
        all_read()
        assert entries[1].wait(20)

    assert early == [True, False]
    repository.refresh()
    assert repository.history.pins == {}
    assert heard.warnings == []


def test_a_pin_from_far_away_is_gone_when_the_work_fails(place: Protected, tmp_path: Path) -> None:
    repository = open_test_repository(FarStorage(place.storage), tmp_path / "state")
    (snapshot,) = repository.snapshot_ids()
    before = repository.head.seq

    with (
        pytest.raises(RuntimeError, match="cut short"),
        pinned_meanwhile(repository, snapshot, actor="tests", clock=CLOCK, warn=Heard().warn),
    ):
        raise RuntimeError("cut short")

    repository.refresh()
    assert repository.history.pins == {}
    assert repository.head.seq == before + 2


@pytest.mark.parametrize("fails", ["get", "put"])
def test_a_pin_that_cannot_be_put_from_far_away_is_told_and_stops_nothing(
    place: Protected, tmp_path: Path, fails: str
) -> None:
    far = FarStorage(place.storage)
    repository, heard = open_test_repository(far, tmp_path / "state"), Heard()
    (snapshot,) = repository.snapshot_ids()

    def before(method: str, name: str) -> None:
        if method == fails:
            raise StorageDenied(f"{name} is not for us.")

    far.before = before
    with pinned_meanwhile(repository, snapshot, actor="tests", clock=CLOCK, warn=heard.warn) as all_read:
        all_read()

    assert len(heard.warnings) == 1
    assert "could not be pinned" in heard.warnings[0]


@pytest.mark.parametrize("parallel_calls", [1, 4])
@pytest.mark.parametrize(("entries", "told"), [(0, "could not be pinned"), (1, "could not be taken away")])
def test_a_state_folder_without_room_is_told_and_stops_nothing(
    place: Protected,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parallel_calls: int,
    entries: int,
    told: str,
) -> None:
    far = FarStorage(place.storage)
    monkeypatch.setattr(far, "parallel_calls", parallel_calls, raising=False)
    repository, heard, put = open_test_repository(far, tmp_path / "state"), Heard(), Event()
    (snapshot,) = repository.snapshot_ids()
    newest = repository.head.seq + entries

    def write_seen(_file: Path, _repository: bytes, head: Head, _snapshots: object) -> None:
        if head.seq > newest:
            raise OSError(errno.ENOSPC, "No space left on device")
        if head.seq == newest:
            put.set()

    monkeypatch.setattr(chain, "write_seen", write_seen)
    with pinned_meanwhile(repository, snapshot, actor="tests", clock=CLOCK, warn=heard.warn) as all_read:
        assert entries == 0 or put.wait(20)
        all_read()

    assert len(heard.warnings) == 1
    assert told in heard.warnings[0]


def test_who_insists_on_stopping_does_not_wait_for_a_pin(place: Protected, tmp_path: Path) -> None:
    repository = open_test_repository(FarStorage(place.storage), tmp_path / "state")
    (snapshot,) = repository.snapshot_ids()

    with pinned_meanwhile(repository, snapshot, actor="tests", clock=CLOCK, warn=Heard().warn):
        threads = [thread for thread in threading.enumerate() if thread.name == "pin"]

        assert [thread.daemon for thread in threads] == [True]


@pytest.mark.parametrize(
    ("span", "end"),
    [
        ("7d", datetime(2026, 2, 7, 12, tzinfo=UTC)),
        ("12h", datetime(2026, 2, 1, tzinfo=UTC)),
        ("1m", datetime(2026, 2, 28, 12, tzinfo=UTC)),
        ("1y1m", datetime(2027, 2, 28, 12, tzinfo=UTC)),
    ],
)
def test_a_span_ends_where_the_calendar_says(span: str, end: datetime) -> None:
    assert parse_span(span).after(datetime(2026, 1, 31, 12, tzinfo=UTC)) == end
