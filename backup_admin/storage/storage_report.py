"""What an examination of a storage found: plain data, kept and shown as it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from backup_admin.core.clock import format_time, parse_time
from backup_admin.core.errors import (
    BadObjectName,
    NotDurable,
    ObjectMissing,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

WITH_WARNINGS = 3
_KINDS = (
    StorageError,
    StorageUnavailable,
    StorageFull,
    NotDurable,
    StorageDenied,
    ObjectMissing,
    BadObjectName,
)
_EXIT_CODES = {kind.code: kind.exit_code for kind in _KINDS}


class Step(StrEnum):
    """What is examined, in this order."""

    REACH = "reach"
    CREDENTIALS = "credentials"
    PLACE = "place"
    LIST = "list"
    WRITE = "write"
    READ = "read"
    READ_PART = "read_part"
    LISTED = "listed"
    STAT = "stat"
    PUT_IF_ABSENT = "put_if_absent"
    CLOCK = "clock"
    LATENCY = "latency"
    WRITE_SPEED = "write_speed"
    READ_SPEED = "read_speed"
    VERSIONING = "versioning"
    OBJECT_LOCK = "object_lock"
    CHECKSUMS = "checksums"
    DELETE = "delete"
    FREE_SPACE = "free_space"

    @property
    def words(self) -> str:
        """Return its name for people."""
        return self.value.replace("_", " ")


class StepOutcome(StrEnum):
    """How a step came out. `unknown`: it could not be told; `skipped`: there was no point in trying."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


Value = str | int | float | None


@dataclass(frozen=True, slots=True)
class Finding:
    """How one step came out.

    `value` is what was measured: seconds the clock differs by, milliseconds of latency, bytes a
    second, free bytes, `yes` or `no`; of a step that failed it is the code of the error.
    """

    step: Step
    outcome: StepOutcome
    message: str
    value: Value = None


@dataclass(frozen=True, slots=True)
class StorageReport:
    """All that one examination found, step by step. Safe to keep: no secret is in it."""

    storage: str
    at: datetime
    findings: tuple[Finding, ...]

    @property
    def outcome(self) -> StepOutcome:
        """Say how it stands: failed, with warnings, or ok."""
        found = {finding.outcome for finding in self.findings}
        worst = (StepOutcome.FAILED, StepOutcome.WARNING)
        return next((outcome for outcome in worst if outcome in found), StepOutcome.OK)

    @property
    def exit_code(self) -> int:
        """Return the status of a command: that of the first error, 3 with warnings, else 0."""
        for finding in self.findings:
            if finding.outcome is StepOutcome.FAILED:
                return _EXIT_CODES.get(str(finding.value), StorageError.exit_code)
        return WITH_WARNINGS if self.outcome is StepOutcome.WARNING else 0

    def finding(self, step: Step) -> Finding:
        """Return what was found at a step."""
        return next(finding for finding in self.findings if finding.step is step)

    def as_plain(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        return {
            "storage": self.storage,
            "at": format_time(self.at),
            "outcome": self.outcome.value,
            "findings": [
                asdict(finding) | {"step": finding.step.value, "outcome": finding.outcome.value}
                for finding in self.findings
            ],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> StorageReport:
        """Read what `as_plain` wrote; raise `ValueError` for anything else."""
        try:
            findings = tuple(_read_finding(row) for row in plain["findings"])
            return cls(_text(plain["storage"]), parse_time(plain["at"]), findings)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("this is no report of a storage") from error


def _read_finding(row: Mapping[str, Any]) -> Finding:
    value = row["value"]
    if value is not None and (isinstance(value, bool) or not isinstance(value, str | int | float)):
        raise ValueError(f"{value!r} is nothing that was measured")
    return Finding(Step(row["step"]), StepOutcome(row["outcome"]), _text(row["message"]), value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value
