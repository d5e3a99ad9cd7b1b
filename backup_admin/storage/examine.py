"""Is this storage any good? Each thing a repository needs of it is tried, and told by itself.

What is written has names of its own (`probe-…`) beside whatever is there, and is deleted again,
also when a step fails or somebody interrupts.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from backup_admin.core.errors import StorageError, StorageUnavailable
from backup_admin.core.ids import new_ulid
from backup_admin.core.shown import show_size
from backup_admin.storage.base import (
    AnswersMore,
    BucketFacts,
    Known,
    KnowsFreeSpace,
    LooksBeforePut,
    PutResult,
    TellsTime,
    get_into,
)
from backup_admin.storage.first_contact import failed, first_contact, list_one, skipped
from backup_admin.storage.probe import PREFIX
from backup_admin.storage.storage_report import Finding, Step, StepOutcome, StorageReport, Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from backup_admin.core.clock import Clock
    from backup_admin.core.progress import Reporter
    from backup_admin.storage.base import Storage

# The bytes by which `init` knows what a killed probe left.
_CONTENT = bytes(range(256)) * 16
_OTHER = b"another object of the same name"
_PART = (100, 300)
SPEED_BYTES = 4 << 20
_SMALL_READS = 7
_LARGEST_SKEW_SECONDS = 60.0
_LOW_SPACE = 1_000_000_000

_OK, _WARNING, _FAILED = StepOutcome.OK, StepOutcome.WARNING, StepOutcome.FAILED
_UNKNOWN, _SKIPPED = StepOutcome.UNKNOWN, StepOutcome.SKIPPED

_NEEDS = {
    Step.WRITE: (Step.PLACE,),
    Step.READ: (Step.WRITE,),
    Step.READ_PART: (Step.READ,),
    Step.LISTED: (Step.LIST, Step.READ),
    Step.STAT: (Step.READ,),
    Step.PUT_IF_ABSENT: (Step.READ,),
    Step.CLOCK: (Step.WRITE,),
    Step.LATENCY: (Step.READ,),
    Step.WRITE_SPEED: (Step.READ,),
    Step.READ_SPEED: (Step.WRITE_SPEED,),
    Step.VERSIONING: (Step.WRITE,),
    Step.OBJECT_LOCK: (Step.WRITE,),
    Step.CHECKSUMS: (Step.WRITE,),
    Step.DELETE: (Step.PLACE,),
    Step.FREE_SPACE: (Step.PLACE,),
}


class _Found(NamedTuple):
    outcome: StepOutcome
    message: str
    value: Value = None


def examine_storage(
    storage: Storage, *, clock: Clock, reporter: Reporter, make_missing: bool = False
) -> StorageReport:
    """Try a storage step by step; never raises `StorageError`, and `Cancelled` between two steps.

    A repository in it is left alone. A place that is missing is made only with `make_missing`.
    """
    examination = _Examination(storage, clock)
    try:
        reporter.stage(Step.REACH.value)
        examination.meet(make_missing=make_missing)
        for step, look in examination.steps():
            reporter.check_cancelled()
            reporter.stage(step.value)
            examination.take(step, look)
        return examination.report()
    finally:
        examination.tidy()


class _Examination:
    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        self._at = clock.now()
        self._name = self._new_name()
        self._speed_data = b""
        self._left: list[str] = []
        self._found: dict[Step, Finding] = {}
        self._is_gone = False
        self._keeps_versions = False
        self._facts = BucketFacts(Known.UNKNOWN, Known.UNKNOWN, Known.UNKNOWN)

    def steps(self) -> tuple[tuple[Step, Callable[[], _Found]], ...]:
        """Return what to try after a first contact, in order."""
        return (
            (Step.WRITE, self._write),
            (Step.READ, self._read),
            (Step.READ_PART, self._read_part),
            (Step.LISTED, self._listed),
            (Step.STAT, self._stat),
            (Step.PUT_IF_ABSENT, self._put_if_absent),
            (Step.CLOCK, self._compare_clocks),
            (Step.LATENCY, self._latency),
            (Step.WRITE_SPEED, self._write_speed),
            (Step.READ_SPEED, self._read_speed),
            (Step.VERSIONING, self._versioning),
            (Step.OBJECT_LOCK, self._object_lock),
            (Step.CHECKSUMS, self._checksums),
            (Step.DELETE, self._delete),
            (Step.FREE_SPACE, self._free_space),
        )

    def meet(self, *, make_missing: bool) -> None:
        """Make a first contact."""
        for finding in first_contact(self._storage, self._name, make_missing=make_missing):
            self._found[finding.step] = finding

    def take(self, step: Step, look: Callable[[], _Found]) -> None:
        """Try one step and keep how it came out."""
        if step in self._found:
            return
        missing = next((need for need in _NEEDS[step] if self._lacks(need)), None)
        if missing is None and self._is_gone and step is not Step.DELETE:
            missing = Step.REACH
        if missing is not None:
            self._found[step] = skipped(step, missing)
            return
        try:
            self._found[step] = Finding(step, *look())
        except StorageError as error:
            self._found[step] = failed(step, error)
            self._is_gone = self._is_gone or isinstance(error, StorageUnavailable)

    def report(self) -> StorageReport:
        """Return all findings in the order of the steps."""
        return StorageReport(self._storage.label, self._at, tuple(self._found[step] for step in Step))

    def tidy(self) -> None:
        """Delete what is still there; what cannot be is told by the step `delete`."""
        for name in self._left:
            with suppress(StorageError):
                self._storage.delete(name)
                if isinstance(self._storage, AnswersMore):
                    self._storage.purge(name)

    def _lacks(self, step: Step) -> bool:
        return self._found[step].outcome in (_FAILED, _SKIPPED)

    def _new_name(self) -> str:
        return PREFIX + new_ulid(self._clock.now())

    # --- objects -----------------------------------------------------------------

    def _write(self) -> _Found:
        self._left.append(self._name)
        if self._storage.put(self._name, _CONTENT) is not PutResult.STORED:
            raise StorageError(f"{self._storage.label} says that a new name is taken already.")
        return _Found(_OK, "works")

    def _read(self) -> _Found:
        if self._storage.get(self._name) != _CONTENT:
            raise StorageError(f"{self._storage.label} gave back other bytes than were written.")
        return _Found(_OK, "gives back what was written")

    def _read_part(self) -> _Found:
        offset, length = _PART
        if self._storage.get(self._name, offset, length) != _CONTENT[offset : offset + length]:
            raise StorageError(f"{self._storage.label} gives back wrong parts of an object.")
        return _Found(_OK, "gives back a part")

    def _listed(self) -> _Found:
        if list_one(self._storage, self._name) != [len(_CONTENT)]:
            raise StorageError(
                f"{self._storage.label} does not list an object, once and with its size, right after it was "
                "written. `check` and `prune` would take it for lost."
            )
        return _Found(_OK, "a new object is listed at once")

    def _stat(self) -> _Found:
        info = self._storage.stat(self._name)
        if info is None or info.size != len(_CONTENT):
            raise StorageError(f"{self._storage.label} does not know the size of an object it holds.")
        return _Found(_OK, "knows name and size")

    def _put_if_absent(self) -> _Found:
        said = self._storage.put(self._name, _OTHER)
        is_same = self._storage.get(self._name) == _CONTENT
        if said is PutResult.EXISTS and not is_same:
            raise StorageError(f"{self._storage.label} says that it kept an object, and changed it.")
        storage = self._storage
        if said is PutResult.STORED:
            raise StorageError(
                f"{storage.label} overwrites what it was told to keep: it is fit for no repository."
            )
        if isinstance(storage, LooksBeforePut) and storage.overwrites(self._name, _OTHER):
            return _Found(
                _WARNING, "one writer at a time: it ignores that a name is taken, so writers take turns"
            )
        return _Found(_OK, "a taken name is refused")

    def _delete(self) -> _Found:
        if self._lacks(Step.WRITE) and all(self._is_absent(name) for name in self._left):
            self._left.clear()
            return _Found(_SKIPPED, "nothing was written")
        for name in tuple(self._left):
            self._delete_one(name)
            self._left.remove(name)
        if self._keeps_versions:
            return _Found(_WARNING, "works, but the bucket keeps what was deleted as old versions")
        return _Found(_OK, "works; nothing is left")

    def _is_absent(self, name: str) -> bool:
        return self._storage.stat(name) is None

    def _delete_one(self, name: str) -> None:
        advice = f"{name} is left. `storage clean` removes it later; without deleting, `prune` frees nothing."
        try:
            self._storage.delete(name)
        except StorageError as error:
            raise type(error)(f"{error} {advice}") from error
        is_listed = not self._lacks(Step.LIST) and list_one(self._storage, name)
        if is_listed or not self._is_absent(name):
            raise StorageError(f"{self._storage.label} still has an object after it was deleted. {advice}")
        if isinstance(self._storage, AnswersMore) and self._facts.versioning is Known.YES:
            self._keeps_versions |= not self._storage.purge(name)

    # --- what it is like -----------------------------------------------------------

    def _compare_clocks(self) -> _Found:
        if not isinstance(self._storage, TellsTime):
            return _Found(_UNKNOWN, "no clock of its own can be asked")
        before = self._clock.now()
        shown = self._storage.tell_time(self._name)
        middle = before + (self._clock.now() - before) / 2
        skew = round((shown - middle).total_seconds(), 1)
        if abs(skew) <= _LARGEST_SKEW_SECONDS:
            return _Found(_OK, f"differs by {abs(skew):.1f} s", skew)
        direction = "ahead of" if skew > 0 else "behind"
        return _Found(
            _WARNING,
            f"the storage's clock is {abs(skew):,.0f} s {direction} this machine's; set both, by NTP best",
            skew,
        )

    def _latency(self) -> _Found:
        seconds = sorted(self._timed(self._read_small) for _ in range(_SMALL_READS))
        median = round(seconds[_SMALL_READS // 2] * 1000, 2)
        return _Found(_OK, f"{median:,.1f} ms for a small read", median)

    def _read_small(self) -> None:
        self._storage.get(self._name, 0, len(_OTHER))

    def _write_speed(self) -> _Found:
        self._speed_data = os.urandom(SPEED_BYTES)
        name = self._new_name()
        self._left.append(name)
        return self._speed(self._timed(lambda: self._storage.put(name, self._speed_data)))

    def _read_speed(self) -> _Found:
        buffer = bytearray(SPEED_BYTES)
        found = self._speed(self._timed(lambda: get_into(self._storage, self._left[-1], 0, buffer)))
        if buffer != self._speed_data:
            raise StorageError(f"{self._storage.label} gave back other bytes of a larger object.")
        return found

    def _speed(self, seconds: float) -> _Found:
        speed = int(SPEED_BYTES / max(seconds, 1e-6))
        return _Found(_OK, f"{show_size(speed)}/s, measured with {show_size(SPEED_BYTES)}", speed)

    def _timed(self, act: Callable[[], object]) -> float:
        began = self._clock.monotonic()
        act()
        return self._clock.monotonic() - began

    def _free_space(self) -> _Found:
        free = self._storage.free_bytes() if isinstance(self._storage, KnowsFreeSpace) else None
        if free is None:
            return _Found(_UNKNOWN, "is not told by this kind of storage")
        return _Found(_WARNING if free < _LOW_SPACE else _OK, f"{show_size(free)} free", free)

    # --- what a bucket does --------------------------------------------------------

    def _versioning(self) -> _Found:
        if not isinstance(self._storage, AnswersMore):
            return _Found(_SKIPPED, "is a matter of buckets")
        name = self._new_name()
        self._left.append(name)
        self._facts = self._storage.bucket_facts(name)
        on = "on: what is deleted stays, and is paid for, until a rule of the bucket removes old versions"
        return _fact(self._facts.versioning, on, "off")

    def _object_lock(self) -> _Found:
        if not isinstance(self._storage, AnswersMore):
            return _Found(_SKIPPED, "is a matter of buckets")
        on = "on: what is locked cannot be freed by `prune` before its time is over"
        return _fact(self._facts.object_lock, on, "off")

    def _checksums(self) -> _Found:
        if not isinstance(self._storage, AnswersMore):
            return _Found(_SKIPPED, "is a matter of buckets")
        if self._facts.compares_sums is Known.NO:
            return _Found(
                _WARNING,
                "a body with a wrong CRC32 is accepted: what is damaged on the way is found by reading "
                "back only",
                Known.NO.value,
            )
        return _fact(self._facts.compares_sums, "a body with a wrong CRC32 is refused", "")


def _fact(known: Known, yes: str, no: str) -> _Found:
    if known is Known.UNKNOWN:
        return _Found(_UNKNOWN, "the service does not tell")
    return _Found(_OK, yes if known is Known.YES else no, known.value)
