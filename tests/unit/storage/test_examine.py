"""A storage is examined step by step; each fault shows at its own step, and nothing is left behind."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.clock import SystemClock
from backup_admin.core.errors import (
    Cancelled,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from backup_admin.core.progress import QuietReporter
from backup_admin.storage.base import BucketFacts, Hurdle, Known, ObjectInfo, PutResult
from backup_admin.storage.examine import examine_storage
from backup_admin.storage.first_contact import report_not_opened
from backup_admin.storage.local import LocalStorage
from backup_admin.storage.memory import MemoryStorage
from backup_admin.storage.probe import is_left_probe
from backup_admin.storage.storage_report import Finding, Step, StepOutcome, StorageReport
from tests.fakes import SteppingClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.storage.base import Buffer, Storage

OK, WARNING, FAILED = StepOutcome.OK, StepOutcome.WARNING, StepOutcome.FAILED
SKIPPED, UNKNOWN = StepOutcome.SKIPPED, StepOutcome.UNKNOWN
BYTES_OF_A_PROBE = 4096


class Losing(MemoryStorage):
    """Says yes and keeps nothing."""

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        return PutResult.STORED


class Taken(MemoryStorage):
    """Says that each name is taken."""

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        return PutResult.EXISTS


class Garbling(MemoryStorage):
    """Gives back other bytes."""

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return bytes(len(super().get(name, offset, length)))


class WithoutParts(MemoryStorage):
    """Ignores where a part begins."""

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return super().get(name, 0, length)


class Overwriting(MemoryStorage):
    """Ignores that a name is taken."""

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        return super().put(name, data, if_absent=False)


class Looking(MemoryStorage):
    """Looks before it puts, and ignores the condition."""

    def overwrites(self, name: str, data: Buffer) -> bool:
        return self.put(name, data, if_absent=False) is PutResult.STORED


class Deceiving(MemoryStorage):
    """Overwrites and says that it did not."""

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        there = self.stat(name) is not None
        super().put(name, data, if_absent=False)
        return PutResult.EXISTS if there else PutResult.STORED


class Blind(MemoryStorage):
    """Lists nothing."""

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter(())


class Doubling(MemoryStorage):
    """Lists each object twice."""

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        found = list(super().list_objects(prefix))
        yield from found + found


class Secretive(MemoryStorage):
    """May not be listed."""

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        raise StorageDenied("You may not list.")


class Miscounting(MemoryStorage):
    """Does not know sizes."""

    def stat(self, name: str) -> ObjectInfo | None:
        info = super().stat(name)
        return info and ObjectInfo(name, info.size + 1)


class Keeping(MemoryStorage):
    """Does not delete, and does not say so."""

    def delete(self, name: str) -> None:
        """Keep the object."""


class Undeletable(MemoryStorage):
    """May not delete."""

    def delete(self, name: str) -> None:
        raise StorageDenied("You may not delete.")


class ReadOnly(MemoryStorage):
    """May only be read."""

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        raise StorageDenied("You may not write.")


class Full(MemoryStorage):
    """Has room for something small."""

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        if len(data) > BYTES_OF_A_PROBE:
            raise StorageFull("No room.")
        return super().put(name, data, if_absent=if_absent)


class GarblingLarge(MemoryStorage):
    """Gives back other bytes of a large object."""

    def get_into(self, name: str, offset: int, buffer: bytearray | memoryview) -> int:
        return len(buffer)


class Leaving(MemoryStorage):
    """Goes away after the first object was read."""

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if offset:
            raise StorageUnavailable("Gone.")
        return super().get(name, offset, length)


class Remote(MemoryStorage):
    """Is kept by others, and fails at one hurdle."""

    def __init__(self, hurdle: Hurdle | None) -> None:
        super().__init__()
        self.hurdle = hurdle

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        if self.hurdle:
            raise StorageUnavailable("You shall not pass.")
        return super().list_objects(prefix)

    def hurdle_of(self, error: StorageError) -> Hurdle | None:
        return self.hurdle


class Timely(MemoryStorage):
    """Has a clock of its own."""

    def __init__(self, ahead: float) -> None:
        super().__init__()
        self.ahead = ahead

    def tell_time(self, name: str) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead)


class Bucket(MemoryStorage):
    """Answers for a bucket; leaves the object with the wrong sum."""

    def __init__(self, facts: BucketFacts, *, locked: bool = False) -> None:
        super().__init__()
        self.facts = facts
        self.locked = locked
        self.purged: set[str] = set()

    def bucket_facts(self, name: str) -> BucketFacts:
        self.put(name, b"with a wrong sum")
        return self.facts

    def purge(self, name: str) -> bool:
        self.purged.add(name)
        return not self.locked


class Small(MemoryStorage):
    """Has little room left."""

    def free_bytes(self) -> int | None:
        return 1000


def examine(storage: Storage, *, make_missing: bool = False) -> StorageReport:
    return examine_storage(storage, clock=SystemClock(), reporter=QuietReporter(), make_missing=make_missing)


def outcomes(report: StorageReport, outcome: StepOutcome) -> set[Step]:
    return {finding.step for finding in report.findings if finding.outcome is outcome}


def names(storage: Storage) -> list[str]:
    return [info.name for info in storage.list_objects("")]


def test_a_sound_folder_is_good_and_left_as_it_was(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.put("config", b"a repository")

    report = examine(storage)

    assert outcomes(report, FAILED) == set()
    assert outcomes(report, SKIPPED) == {
        *(Step.CREDENTIALS, Step.VERSIONING, Step.OBJECT_LOCK, Step.CHECKSUMS)
    }
    assert report.finding(Step.PUT_IF_ABSENT).outcome is OK
    assert report.finding(Step.CLOCK).outcome is OK
    assert report.finding(Step.FREE_SPACE).value == pytest.approx(storage.free_bytes(), rel=0.2)
    assert [path.name for path in tmp_path.iterdir()] == ["config"]
    assert [finding.step for finding in report.findings] == list(Step)


@pytest.mark.parametrize(
    ("storage", "step", "said"),
    [
        (Losing(), Step.READ, "is not in memory"),
        (Taken(), Step.WRITE, "taken already"),
        (Garbling(), Step.READ, "other bytes"),
        (WithoutParts(), Step.READ_PART, "wrong parts"),
        (Deceiving(), Step.PUT_IF_ABSENT, "and changed it"),
        (Blind(), Step.LISTED, "right after it was written"),
        (Doubling(), Step.LISTED, "once"),
        (Miscounting(), Step.STAT, "size"),
        (Keeping(), Step.DELETE, "still has an object"),
        (Undeletable(), Step.DELETE, "may not delete"),
        (Secretive(), Step.LIST, "may not list"),
        (ReadOnly(), Step.WRITE, "may not write"),
        (Full(), Step.WRITE_SPEED, "No room"),
        (GarblingLarge(), Step.READ_SPEED, "larger object"),
        (Leaving(), Step.READ_PART, "Gone"),
        (Remote(Hurdle.REACH), Step.REACH, "shall not"),
        (Remote(Hurdle.NO_CREDENTIALS), Step.CREDENTIALS, "shall not"),
        (Remote(Hurdle.CREDENTIALS), Step.CREDENTIALS, "shall not"),
        (Remote(Hurdle.CLOCK), Step.CLOCK, "shall not"),
        (Remote(Hurdle.PLACE), Step.PLACE, "`init` would not make it"),
        (Remote(Hurdle.RIGHTS), Step.LIST, "shall not"),
    ],
)
def test_each_fault_shows_at_its_step_and_there_alone(storage: Storage, step: Step, said: str) -> None:
    report = examine(storage)

    assert outcomes(report, FAILED) == {step}
    assert said in report.finding(step).message
    assert report.outcome is FAILED
    assert report.exit_code != 0
    if step not in (Step.DELETE, Step.LIST, Step.LISTED):
        assert isinstance(storage, MemoryStorage)
        assert list(storage._objects) == []


def test_what_depends_on_a_failed_step_is_skipped() -> None:
    report = examine(Losing())

    needing = {Step.READ_PART, Step.PUT_IF_ABSENT, Step.LATENCY, Step.WRITE_SPEED, Step.READ_SPEED}
    assert needing <= outcomes(report, SKIPPED)
    assert report.finding(Step.LATENCY) == Finding(Step.LATENCY, SKIPPED, "needs the step read")


def test_nothing_is_asked_of_a_storage_that_went_away_but_to_delete() -> None:
    storage = Leaving()

    report = examine(storage)

    assert Step.STAT in outcomes(report, SKIPPED)
    assert report.finding(Step.DELETE).outcome is OK
    assert (report.exit_code, names(storage)) == (StorageUnavailable.exit_code, [])


def test_what_cannot_be_deleted_is_named_with_what_removes_it() -> None:
    storage = Undeletable()

    finding = examine(storage).finding(Step.DELETE)

    assert (finding.outcome, finding.value) == (FAILED, "storage_denied")
    assert names(storage)[0] in finding.message
    assert "storage clean" in finding.message


def test_a_storage_that_overwrites_is_fit_for_nothing() -> None:
    report = examine(Overwriting())

    assert outcomes(report, FAILED) == {Step.PUT_IF_ABSENT}
    assert "fit for no repository" in report.finding(Step.PUT_IF_ABSENT).message


def test_a_storage_for_one_writer_is_a_warning() -> None:
    report = examine(Looking())

    assert outcomes(report, WARNING) == {Step.PUT_IF_ABSENT}
    assert "one writer at a time" in report.finding(Step.PUT_IF_ABSENT).message
    assert (report.outcome, report.exit_code) == (WARNING, 3)


@pytest.mark.parametrize(
    ("ahead", "outcome", "said"),
    [(0, OK, "differs by"), (90, WARNING, "ahead of"), (-90, WARNING, "behind")],
)
def test_clocks_are_compared(ahead: float, outcome: StepOutcome, said: str) -> None:
    finding = examine(Timely(ahead)).finding(Step.CLOCK)

    assert finding.outcome is outcome
    assert said in finding.message
    assert finding.value == pytest.approx(ahead, abs=1)


def test_a_storage_without_a_clock_or_a_size_says_nothing_of_them() -> None:
    report = examine(MemoryStorage())

    assert outcomes(report, UNKNOWN) == {Step.CLOCK, Step.FREE_SPACE}
    assert report.exit_code == 0


def test_little_room_is_a_warning() -> None:
    assert examine(Small()).finding(Step.FREE_SPACE).outcome is WARNING


def test_speed_and_latency_are_what_the_clock_says() -> None:
    report = examine_storage(MemoryStorage(), clock=SteppingClock(), reporter=QuietReporter())

    assert report.finding(Step.LATENCY).value == 1000
    assert report.finding(Step.WRITE_SPEED).value == 4 << 20
    assert report.finding(Step.READ_SPEED).value == 4 << 20


def test_a_bucket_is_asked_for_its_settings_and_left_as_it_was() -> None:
    storage = Bucket(BucketFacts(Known.YES, Known.UNKNOWN, Known.NO))

    report = examine(storage)

    found = [report.finding(step) for step in (Step.VERSIONING, Step.OBJECT_LOCK, Step.CHECKSUMS)]
    assert [(one.outcome, one.value) for one in found] == [(OK, "yes"), (UNKNOWN, None), (WARNING, "no")]
    assert report.finding(Step.DELETE).outcome is OK
    assert (names(storage), len(storage.purged)) == ([], 3)


def test_a_bucket_that_keeps_old_versions_of_the_test_says_so() -> None:
    storage = Bucket(BucketFacts(Known.YES, Known.YES, Known.YES), locked=True)

    finding = examine(storage).finding(Step.DELETE)

    assert finding.outcome is WARNING
    assert "old versions" in finding.message


def test_without_credentials_nothing_is_said_to_be_reached() -> None:
    found = {
        hurdle: examine(Remote(hurdle)).finding(Step.REACH).outcome
        for hurdle in (Hurdle.NO_CREDENTIALS, Hurdle.CREDENTIALS)
    }

    assert found == {Hurdle.NO_CREDENTIALS: SKIPPED, Hurdle.CREDENTIALS: OK}


def test_a_missing_folder_is_not_made_but_told(tmp_path: Path) -> None:
    report = examine(LocalStorage(tmp_path / "missing"))

    assert outcomes(report, FAILED) == {Step.PLACE}
    assert report.finding(Step.PLACE).message.endswith("`init` would make it.")
    assert report.finding(Step.REACH).outcome is OK
    assert list(tmp_path.iterdir()) == []


def test_a_missing_place_is_made_when_that_is_asked_for(tmp_path: Path) -> None:
    report = examine(LocalStorage(tmp_path / "missing"), make_missing=True)

    assert outcomes(report, FAILED) == set()
    assert "was made" in report.finding(Step.PLACE).message


def test_a_place_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    report = examine(LocalStorage(tmp_path / "file" / "folder"), make_missing=True)

    assert outcomes(report, FAILED) == {Step.PLACE}


class Stopping(QuietReporter):
    """Is asked to stop before a step."""

    def __init__(self, step: Step) -> None:
        self.last = ""
        self.step = step

    def stage(self, name: str, *, total_bytes: int = 0, total_items: int = 0) -> None:
        self.last = name
        if name == self.step.value:
            raise Cancelled("as asked")


@pytest.mark.parametrize(
    "step", [step for step in Step if step not in (Step.CREDENTIALS, Step.PLACE, Step.LIST)]
)
def test_nothing_is_left_when_it_is_stopped_before_any_step(step: Step) -> None:
    storage = Bucket(BucketFacts(Known.NO, Known.NO, Known.YES))

    with pytest.raises(Cancelled):
        examine_storage(storage, clock=SystemClock(), reporter=Stopping(step))
    assert names(storage) == []
    assert storage.purged or step in (Step.REACH, Step.WRITE, Step.FREE_SPACE)


def test_what_a_killed_test_leaves_is_known_to_init() -> None:
    storage = Undeletable()
    examine(storage)

    probes = [info for info in storage.list_objects("") if info.size == BYTES_OF_A_PROBE]

    assert [is_left_probe(storage, info.name) for info in probes] == [True]


def test_a_storage_that_cannot_be_opened_has_a_report_too() -> None:
    unreachable = report_not_opened("s3://x", StorageUnavailable("nowhere"), clock=SystemClock())
    unknown = report_not_opened("s3://x", StorageDenied("no profile"), clock=SystemClock())

    assert (outcomes(unreachable, FAILED), unreachable.exit_code) == ({Step.REACH}, 75)
    assert (outcomes(unknown, FAILED), unknown.exit_code) == ({Step.CREDENTIALS}, 6)
    assert len(unreachable.findings) == len(Step)


def test_a_report_survives_json() -> None:
    report = examine(Bucket(BucketFacts(Known.YES, Known.UNKNOWN, Known.NO)))

    assert StorageReport.from_plain(json.loads(json.dumps(report.as_plain()))) == report


@pytest.mark.parametrize(
    "change",
    [
        {"at": "yesterday"},
        {"at": 5},
        {"storage": None},
        {"findings": None},
        {"findings": [{"step": "reach", "outcome": "ok", "message": "x"}]},
        {"findings": [{"step": "fly", "outcome": "ok", "message": "x", "value": None}]},
        {"findings": [{"step": "reach", "outcome": "fine", "message": "x", "value": None}]},
        {"findings": [{"step": "reach", "outcome": "ok", "message": 5, "value": None}]},
        {"findings": [{"step": "reach", "outcome": "ok", "message": "x", "value": []}]},
    ],
)
def test_what_is_no_report_is_refused(change: dict[str, object]) -> None:
    plain = examine(MemoryStorage()).as_plain()

    with pytest.raises(ValueError):  # noqa: PT011  the message is for logs
        StorageReport.from_plain(plain | change)
