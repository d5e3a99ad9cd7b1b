"""The first contact with a storage: is it reached, does it know us, is the place there, may we list."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from backup_admin.core.errors import StorageDenied, StorageError, StorageUnavailable
from backup_admin.storage.base import CanBeMade, Hurdle, NamesHurdles
from backup_admin.storage.storage_report import Finding, Step, StepOutcome, StorageReport

if TYPE_CHECKING:
    from backup_admin.core.clock import Clock
    from backup_admin.storage.base import Storage

_STEPS = {
    Hurdle.REACH: Step.REACH,
    Hurdle.NO_CREDENTIALS: Step.CREDENTIALS,
    Hurdle.CREDENTIALS: Step.CREDENTIALS,
    Hurdle.CLOCK: Step.CLOCK,
    Hurdle.PLACE: Step.PLACE,
    Hurdle.RIGHTS: Step.LIST,
}
_NO_CREDENTIALS = Finding(Step.CREDENTIALS, StepOutcome.SKIPPED, "none are needed here")


def first_contact(storage: Storage, name: str, *, make_missing: bool) -> tuple[Finding, ...]:
    """List an object that is not there, and tell from how that fails what is in the way.

    A place that is missing is made only with `make_missing`.
    """
    try:
        list_one(storage, name)
    except StorageError as error:
        hurdle = _hurdle(storage, error)
        if hurdle is Hurdle.PLACE:
            return _without_place(storage, name, error, make_missing=make_missing)
        found = _stopped(storage, failed(_STEPS[hurdle], error))
        return _without_reach(found) if hurdle is Hurdle.NO_CREDENTIALS else found
    return _met(storage, "is there")


def report_not_opened(label: str, error: StorageError, *, clock: Clock) -> StorageReport:
    """Report on a storage that cannot even be opened: its name leads nowhere, or there are no keys."""
    step = Step.CREDENTIALS if isinstance(error, StorageDenied) else Step.REACH
    found = {step: failed(step, error)}
    return StorageReport(label, clock.now(), tuple(found.get(each, skipped(each, step)) for each in Step))


def failed(step: Step, error: StorageError, note: str = "") -> Finding:
    """Return the finding of a step that failed; its value is the code of the error."""
    return Finding(step, StepOutcome.FAILED, f"{error}{note}", error.code)


def skipped(step: Step, needs: Step) -> Finding:
    """Return the finding of a step there was no point in trying."""
    return Finding(step, StepOutcome.SKIPPED, f"needs the step {needs.words}")


def list_one(storage: Storage, name: str) -> list[int]:
    """Return the sizes under which a list shows an object: one, or none when it is not there."""
    return [info.size for info in storage.list_objects(name) if info.name == name]


def _met(storage: Storage, place: str) -> tuple[Finding, ...]:
    is_asked = isinstance(storage, NamesHurdles)
    return (
        _reached(storage),
        Finding(Step.CREDENTIALS, StepOutcome.OK, "are accepted") if is_asked else _NO_CREDENTIALS,
        Finding(Step.PLACE, StepOutcome.OK, place),
        Finding(Step.LIST, StepOutcome.OK, "works"),
    )


def _reached(storage: Storage) -> Finding:
    answers = isinstance(storage, NamesHurdles)
    return Finding(Step.REACH, StepOutcome.OK, "it answers" if answers else "it is on this machine")


def _hurdle(storage: Storage, error: StorageError) -> Hurdle:
    if isinstance(storage, NamesHurdles):
        return storage.hurdle_of(error) or Hurdle.RIGHTS
    if isinstance(error, StorageUnavailable):
        return Hurdle.PLACE if _would_be_made(storage) else Hurdle.REACH
    return Hurdle.RIGHTS


def _would_be_made(storage: Storage) -> bool:
    with suppress(StorageError):
        return isinstance(storage, CanBeMade) and not storage.is_made()
    return False


def _without_place(
    storage: Storage, name: str, error: StorageError, *, make_missing: bool
) -> tuple[Finding, ...]:
    would_be_made = _would_be_made(storage)
    if not (would_be_made and make_missing and isinstance(storage, CanBeMade)):
        note = " `init` would make it." if would_be_made else " `init` would not make it."
        return _stopped(storage, failed(Step.PLACE, error, note))
    try:
        storage.make()
        list_one(storage, name)
    except StorageError as again:
        return _stopped(storage, failed(Step.PLACE, again))
    return _met(storage, "was missing and was made, as the address asks")


def _stopped(storage: Storage, finding: Finding) -> tuple[Finding, ...]:
    """Return what a first contact shows that failed at one step: what comes behind it has no point."""
    found = {finding.step: finding}
    if finding.step is Step.REACH:
        found[Step.CREDENTIALS] = skipped(Step.CREDENTIALS, Step.REACH)
    else:
        found[Step.REACH] = _reached(storage)
        is_asked = isinstance(storage, NamesHurdles)
        found.setdefault(Step.CREDENTIALS, _unknown(Step.CREDENTIALS) if is_asked else _NO_CREDENTIALS)
    if finding.step is Step.LIST:
        found[Step.PLACE] = _unknown(Step.PLACE)
    for step in (Step.PLACE, Step.LIST):
        found.setdefault(step, skipped(step, finding.step))
    return tuple(found.values())


def _without_reach(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Take back that the storage was reached: without credentials nothing was sent."""
    return (
        *(finding for finding in findings if finding.step is not Step.REACH),
        skipped(Step.REACH, Step.CREDENTIALS),
    )


def _unknown(step: Step) -> Finding:
    return Finding(step, StepOutcome.UNKNOWN, "nothing was said about that")
