"""What a running backup, verification or restore looks like right now."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from backup_admin.control.destinations import MIRROR_STAGE
from backup_admin.control.planning import is_planning
from backup_admin.control.rows_ended import is_rows
from backup_admin.records import ACTIVE_RESTORES, ACTIVE_RUNS, BackupRun, RestoreOperation, RunKind
from backup_admin.web.formats import count, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backup_admin.control.restores import RestoreProgress

_SILENT_AFTER = timedelta(seconds=60)
CHANGES_PLACES = ("swap", "check", "reopen")


@dataclass(frozen=True, slots=True)
class Step:
    """A stage of an operation: its name, its words and its share of the time."""

    name: str
    title: str
    weight: int


BACKUP = (
    Step("databases", "Read the databases", 15),
    Step("files", "Read the files, store and read back what is new", 70),
    Step("settings", "Read the settings", 2),
    Step("commit", "Store the manifest", 3),
    Step("verify", "Prove that all is stored", 10),
)
LOOK = Step("changes", "See whether anything changed", 10)
MIRRORED = (*BACKUP, Step(MIRROR_STAGE, "Copy it to the other storages", 40))
VERIFY = (Step("verify", "Read every byte and compare it", 100),)
CLUSTER = (
    Step("databases", "Copy the server, store and read back what is new", 85),
    Step("commit", "Store the manifest", 5),
    Step("verify", "Prove that all is stored", 10),
)
_STEPS = {RunKind.VERIFY: VERIFY, RunKind.CLUSTER: CLUSTER}
RESTORE = (
    Step("stage", "Build the new state beside the live one", 40),
    Step("verify", "Compare it with the manifest", 15),
    Step("maintenance", "Stop writers", 2),
    Step("safety_backup", "Make a safety backup of the present state", 25),
    Step("swap", "Change places", 3),
    Step("check", "Check the live state", 13),
    Step("reopen", "Open the app again", 2),
)
ROWS = (
    Step("safety_backup", "Make a safety backup of the database", 60),
    Step("swap", "Write the rows in one transaction, and the files that follow them", 40),
)
PLAN = (Step("plan", "Compare the backup with what is live", 100),)
PLAN_ROWS = (Step("plan", "Do all of it in one transaction of the database, and take it back", 100),)
UNDO_ROWS = (Step("swap", "Put the rows back as they were, in one transaction, and the files", 100),)
UNDO = (
    Step("maintenance", "Stop writers", 10),
    Step("swap", "Put back what was there before", 50),
    Step("check", "Check the live state", 40),
)


@dataclass(frozen=True, slots=True)
class Stage:
    """One line of the list of stages. `state` is done, now, fail or wait."""

    title: str
    state: str


@dataclass(frozen=True, slots=True)
class Progress:
    """What the progress component shows."""

    id: str
    kind: str
    title: str
    status: str
    finished: bool
    percent: int | None
    text: str
    current: str
    stages: tuple[Stage, ...]
    poll_seconds: int
    silent_since: datetime | None
    can_cancel: bool
    cancel_requested: bool
    until: str = ""
    """Until when a restore can be cancelled; `afterwards` is what is true from then on."""
    afterwards: str = ""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a row, or a journal, says about a job."""

    id: str
    kind: str
    title: str
    status: str
    stage: str
    bytes_done: int
    bytes_total: int
    items_done: int
    items_total: int
    current: str
    begun: bool
    since: datetime
    silent_since: datetime | None
    finished: bool
    can_cancel: bool
    cancel_requested: bool


def of_run(run: BackupRun, now: datetime) -> Progress:
    """Describe a backup or a verification."""
    titles = {RunKind.VERIFY: "Verification", RunKind.CLUSTER: "Base backup"}
    finished = run.status not in ACTIVE_RUNS
    facts = _facts(run, run.kind.value, titles.get(run.kind, "Backup"), now, finished=finished)
    is_mirrored = run.stage == MIRROR_STAGE or len(run.storages or ()) > 1
    steps = _STEPS.get(run.kind) or (MIRRORED if is_mirrored else BACKUP)
    return _describe(facts, (LOOK, *steps) if run.if_changed else steps, now)


def of_plan(operation: RestoreOperation, now: datetime) -> Progress:
    """Describe the plan that a draft waits for."""
    finished = not is_planning(operation)
    begun = operation.heartbeat_at is not None
    facts = replace(
        _facts(operation, "plan", "Plan", now, finished=finished),
        status="done" if finished else "running" if begun else "queued",
        begun=begun,
        since=operation.updated_at or operation.created_at,
        can_cancel=False,
    )
    return _describe(facts, PLAN_ROWS if is_rows(operation) else PLAN, now)


def of_restore(operation: RestoreOperation, now: datetime, state: RestoreProgress | None = None) -> Progress:
    """Describe a restore; what its journal says counts before its row."""
    status = state.status if state is not None else operation.status
    undoing = operation.action == "undo"
    facts = _facts(
        operation, "restore", "Undo" if undoing else "Restore", now, finished=status not in ACTIVE_RESTORES
    )
    if state is not None:
        facts = replace(
            facts,
            status=state.status.value,
            stage=state.stage,
            bytes_done=state.bytes_done,
            bytes_total=state.bytes_total,
            current=state.current,
            can_cancel=state.can_cancel and not operation.cancel_requested,
        )
    if is_rows(operation):
        shown = _describe(facts, UNDO_ROWS if undoing else ROWS, now)
        return replace(shown, until="the rows are written", afterwards="All of it happens, or nothing.")
    shown = _describe(facts, UNDO if undoing else RESTORE, now)
    afterwards = "If a check fails, everything goes back by itself."
    return replace(shown, until="the parts change places", afterwards=afterwards)


def _facts(
    job: BackupRun | RestoreOperation, kind: str, title: str, now: datetime, *, finished: bool
) -> _Facts:
    return _Facts(
        id=job.id,
        kind=kind,
        title=title,
        status=job.status.value,
        stage=job.stage,
        bytes_done=job.bytes_done,
        bytes_total=job.bytes_total,
        items_done=job.items_done,
        items_total=job.items_total,
        current=job.current,
        begun=job.started_at is not None,
        since=job.started_at or job.created_at,
        silent_since=_silent_since(job.heartbeat_at, now, finished=finished),
        finished=finished,
        can_cancel=not finished and job.stage not in CHANGES_PLACES and not job.cancel_requested,
        cancel_requested=job.cancel_requested,
    )


def _describe(facts: _Facts, steps: Sequence[Step], now: datetime) -> Progress:
    at = _position(facts.stage, steps)
    return Progress(
        id=facts.id,
        kind=facts.kind,
        title=facts.title,
        status=facts.status,
        finished=facts.finished,
        percent=_percent(facts, steps, at),
        text=_text(facts, steps, at),
        current=facts.current,
        stages=_stages(facts, steps, at),
        poll_seconds=_poll_seconds(facts.since, now),
        silent_since=facts.silent_since,
        can_cancel=facts.can_cancel,
        cancel_requested=facts.cancel_requested,
    )


def _position(stage: str, steps: Sequence[Step]) -> int:
    names = [step.name for step in steps]
    return names.index(stage) if stage in names else -1


def _percent(facts: _Facts, steps: Sequence[Step], at: int) -> int | None:
    if at < 0:
        return None
    whole = sum(step.weight for step in steps[:at]) + steps[at].weight * _fraction(facts)
    return min(99, int(100 * whole / sum(step.weight for step in steps)))


def _fraction(facts: _Facts) -> float:
    done, total = facts.bytes_done, facts.bytes_total
    if not total:
        done, total = facts.items_done, facts.items_total
    return min(1.0, done / total) if total else 0.0


def _text(facts: _Facts, steps: Sequence[Step], at: int) -> str:
    if facts.cancel_requested:
        return "Stopping at the next safe place."
    if at < 0:
        return "Starting." if facts.begun else "Waiting for a worker."
    parts = [steps[at].title]
    if facts.bytes_total:
        parts.append(f"{size(facts.bytes_done)} of {size(facts.bytes_total)}")
    elif facts.bytes_done:
        parts.append(size(facts.bytes_done))
    if facts.items_done:
        parts.append(count(facts.items_done, "item"))
    return ", ".join(parts) + "."


def _stages(facts: _Facts, steps: Sequence[Step], at: int) -> tuple[Stage, ...]:
    good = facts.finished and facts.status in ("completed", "degraded", "restored", "undone")
    if facts.finished and not good and at < 0:
        return ()
    states = (_state(index, at, finished=facts.finished, good=good) for index in range(len(steps)))
    return tuple(Stage(step.title, state) for step, state in zip(steps, states, strict=True))


def _state(index: int, at: int, *, finished: bool, good: bool) -> str:
    if good or index < at:
        return "done"
    if index > at:
        return "wait"
    return "fail" if finished else "now"


def _poll_seconds(since: datetime, now: datetime) -> int:
    """Ask often while a person still waits for the first movement, then less."""
    age = (now - since).total_seconds()
    if age < 10:
        return 1
    return 2 if age < 60 else 5


def _silent_since(heartbeat: datetime | None, now: datetime, *, finished: bool) -> datetime | None:
    if finished or heartbeat is None or now - heartbeat < _SILENT_AFTER:
        return None
    return heartbeat
