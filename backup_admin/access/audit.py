"""Who did what: a file that only grows, each entry sealed to the one before."""

from __future__ import annotations

import fcntl
import hmac
import json
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from backup_admin.core.clock import Clock, format_time, parse_time
from backup_admin.core.durable import make_folders, rename_new, sync_folder, write_all
from backup_admin.core.errors import BackupAdminError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from backup_admin.access.permissions import Actor

_FIRST = "0" * 64
_MAX_TEXT = 2000
_MAX_DETAILS = 10
_MAX_LINE = 1 << 18
_BLOCK = 1 << 16


class AuditFailed(BackupAdminError):
    """The audit log cannot be written or read; what it should hold must not begin."""

    code = "audit"


class AuditOutcome(StrEnum):
    """How an audited act ended."""

    DONE = "done"
    DENIED = "denied"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act of one person."""

    seq: int
    at: datetime
    actor: str
    actor_name: str
    address: str
    action: str
    object: str
    outcome: AuditOutcome
    reason: str = ""
    login: str = ""
    request: str = ""
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """Whether the chain of entries is whole, and else where it breaks."""

    entries: int
    first_bad: int
    """Number of the first bad line, counted from one; zero when all are good."""
    message: str

    @property
    def ok(self) -> bool:
        """Say whether every entry is as it was written."""
        return self.first_bad == 0


class AuditLog:
    """The audit log of one state folder. Any number of processes may append."""

    def __init__(self, path: Path, key: bytes, clock: Clock) -> None:
        self.path = path
        self._key = key
        self._clock = clock

    def append(
        self,
        actor: Actor,
        action: str,
        *,
        target: str = "",
        outcome: AuditOutcome = AuditOutcome.DONE,
        reason: str = "",
        details: Mapping[str, str] | None = None,
    ) -> int:
        """Write one entry durably and return its number.

        Raises `AuditFailed`; then nothing may go on as if it had been written.
        """
        fields = {
            "actor": actor.id,
            "actor_name": actor.name,
            "address": actor.address,
            "login": actor.login_id,
            "request": actor.request_id,
            "action": action,
            "object": target,
            "outcome": outcome.value,
            "reason": reason,
        }
        record: dict[str, Any] = {name: text[:_MAX_TEXT] for name, text in fields.items()}
        record["details"] = {
            str(k): str(v)[:_MAX_TEXT] for k, v in list((details or {}).items())[:_MAX_DETAILS]
        }
        try:
            return self._append(record)
        except OSError as error:
            raise AuditFailed(f"The audit log cannot be written: {error.strerror}.") from error

    def read_page(
        self,
        *,
        before: int | None = None,
        limit: int = 50,
        actor: str = "",
        action: str = "",
        outcome: str = "",
    ) -> tuple[AuditEntry, ...]:
        """Return entries, newest first, older than number `before`.

        `actor` matches id or part of the name, `action` its beginning. Lines
        that are no entries are left out here; `verify` names them.
        """
        page: list[AuditEntry] = []
        for line in self._lines_backwards():
            entry = _entry(line)
            if entry is None or (before is not None and entry.seq >= before):
                continue
            if _matches(entry, actor, action, outcome):
                page.append(entry)
            if len(page) == limit:
                break
        return tuple(page)

    def verify(self) -> AuditCheck:
        """Read the whole log and name the first line that is not as written."""
        before, number = _FIRST, 0
        try:
            with self.path.open("rb") as file:
                while line := file.readline(_MAX_LINE):
                    record = _parsed(line)
                    problem = self._problem(record, before, number + 1)
                    if problem or record is None:
                        return AuditCheck(number, number + 1, f"Line {number + 1}: {problem}.")
                    before, number = record["mac"], number + 1
        except FileNotFoundError:
            return AuditCheck(0, 0, "The log is empty.")
        except OSError as error:
            raise AuditFailed(f"The audit log cannot be read: {error.strerror}.") from error
        return AuditCheck(number, 0, f"Verified up to entry {number}.")

    def put_away(self) -> str:
        """Give a log that is whole another name, so that the next entry begins a new one; return it.

        Raises `AuditFailed` when it is not as it was written.
        """
        check = self.verify()
        if not check.ok:
            raise AuditFailed(f"{self.path} is not as it was written and was left alone: {check.message}")
        name = self.path.with_name(f"audit-until-{self._clock.now():%Y%m%dT%H%M%S}.jsonl")
        rename_new(self.path, name)
        sync_folder(name.parent)
        return name.name

    def _append(self, record: dict[str, Any]) -> int:
        with _locked(self.path) as handle:
            last = self._last(handle)
            record["seq"] = last["seq"] + 1 if last else 1
            record["prev"] = last["mac"] if last else _FIRST
            record["at"] = format_time(self._clock.now())
            record["mac"] = self._mac(record)
            end = os.lseek(handle, 0, os.SEEK_END)
            try:
                write_all(handle, _line(record) + b"\n")
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, end)  # half a line would break the chain
                raise
            if not last:
                sync_folder(self.path.parent)
            return int(record["seq"])

    def _last(self, handle: int) -> dict[str, Any] | None:
        """Return the newest entry, and drop a line that a power cut left half written.

        A half line was never acknowledged: its `append` did not return.
        """
        end = os.lseek(handle, 0, os.SEEK_END)
        start = max(0, end - _MAX_LINE)
        tail = os.pread(handle, end - start, start)
        whole = tail.rfind(b"\n") + 1
        if whole == 0 and start > 0:
            raise AuditFailed(f"{self.path} does not end with an entry; move it away and look into it.")
        if start + whole < end:
            os.ftruncate(handle, start + whole)
        if whole == 0:
            return None
        line = tail[:whole].rstrip(b"\n").rsplit(b"\n", 1)[-1]
        record = _parsed(line)
        if record is None or not hmac.compare_digest(str(record["mac"]), self._mac(record)):
            raise AuditFailed(
                f"The last entry of {self.path} is not as it was written. Keep the file as "
                "evidence, move it away, and look into it: no restore can start before."
            )
        return record

    def _problem(self, record: dict[str, Any] | None, before: str, number: int) -> str:
        if record is None:
            return "this is no entry"
        if record["seq"] != number:
            return f"entry {number} is missing; here is {record['seq']}"
        if record["prev"] != before:
            return "it does not follow the entry before"
        if not hmac.compare_digest(str(record["mac"]), self._mac(record)):
            return "it was changed after it was written, or another key was in use"
        return ""

    def _mac(self, record: Mapping[str, Any]) -> str:
        body = {name: value for name, value in record.items() if name != "mac"}
        return hmac.new(self._key, _line(body), "sha256").hexdigest()

    def _lines_backwards(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as file:
                position = file.seek(0, os.SEEK_END)
                rest = b""
                while position > 0:
                    size = min(_BLOCK, position)
                    position -= size
                    file.seek(position)
                    first, *lines = (file.read(size) + rest).split(b"\n")
                    yield from (line for line in reversed(lines) if line)
                    rest = first
                if rest:
                    yield rest
        except FileNotFoundError:
            return
        except OSError as error:
            raise AuditFailed(f"The audit log cannot be read: {error.strerror}.") from error


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    make_folders(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def _line(record: Mapping[str, Any]) -> bytes:
    # Only ASCII: no line break, control or bidirectional character stays raw.
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or not {"seq", "prev", "mac", "at", "details"} <= set(record):
        return None
    return record


def _entry(line: bytes) -> AuditEntry | None:
    record = _parsed(line)
    if record is None:
        return None
    fields = {name: record.get(name, "") for name in _ENTRY_FIELDS}
    try:
        fields["at"] = parse_time(record["at"])
        fields["outcome"] = AuditOutcome(record["outcome"])
        return AuditEntry(**fields)
    except (KeyError, TypeError, ValueError):
        return None


def _matches(entry: AuditEntry, actor: str, action: str, outcome: str) -> bool:
    return (
        (not actor or actor == entry.actor or actor.lower() in entry.actor_name.lower())
        and entry.action.startswith(action)
        and (not outcome or outcome == entry.outcome)
    )


def as_dict(entry: AuditEntry) -> dict[str, Any]:
    """Return an entry as plain values, for JSON."""
    return {**asdict(entry), "at": format_time(entry.at), "outcome": entry.outcome.value}


_ENTRY_FIELDS = tuple(AuditEntry.__dataclass_fields__)
