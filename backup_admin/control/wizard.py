"""The first four steps of a restore: a draft on the server, nothing touched."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, TypeVar

from sqlalchemy import delete

from backup_admin.control import catalogue, engine
from backup_admin.control.restore_from import open_for_restore
from backup_admin.control.rows_choice import Held, RowsChoice, held_of, issues_of, problems_of
from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.errors import SnapshotMissing, UsageError
from backup_admin.core.ids import SnapshotId, new_ulid
from backup_admin.core.progress import QuietReporter
from backup_admin.operations.issues import Issue, Level
from backup_admin.operations.plan_restore import plan_restore
from backup_admin.operations.plans import RestorePlan, Selection
from backup_admin.operations.restore_rows import plan_rows
from backup_admin.operations.rows_plan import KIND, RowsPlan
from backup_admin.operations.validate import look_for_lacking, validate_restore
from backup_admin.records import RestoreOperation, RestoreStatus

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from typing import Any

    from sqlalchemy.orm import Session

    from backup_admin.access.permissions import Actor
    from backup_admin.control.installation import Installation
    from backup_admin.core.progress import Reporter
    from backup_admin.operations.rows_plan import RowsSelection
    from backup_admin.repository.repository import Repository

AnyPlan = RestorePlan | RowsPlan
PlanT_co = TypeVar("PlanT_co", bound=AnyPlan, covariant=True)
DRAFT_LIFETIME = timedelta(hours=24)


class RestoreType(StrEnum):
    """What a restore brings back."""

    FULL = "full"
    PARTIAL = "partial"
    DATABASE_ONLY = "database_only"
    FILES_ONLY = "files_only"
    ROWS = KIND


@dataclass(frozen=True, slots=True)
class Choice:
    """What a person ticked in step 3 of a partial restore, by names of sources."""

    files: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    settings: bool = False


@dataclass(frozen=True, slots=True)
class Available:
    """What a snapshot holds and this deployment can take back.

    Settings are kept in a snapshot to be read, not to be put back by us.
    """

    files: tuple[str, ...]
    databases: tuple[str, ...]
    settings: bool


@dataclass(frozen=True, slots=True)
class Review(Generic[PlanT_co]):
    """What a person confirms: the plan, what speaks against it, and its digest."""

    plan: PlanT_co
    issues: tuple[Issue, ...]
    digest: str

    @property
    def short_digest(self) -> str:
        """Return the eight characters shown on the page."""
        return self.digest[:8]

    @property
    def blocked(self) -> bool:
        """Say whether something forbids the restore."""
        return any(issue.level is Level.BLOCK for issue in self.issues)


def create_draft(session: Session, installation: Installation, actor: Actor) -> RestoreOperation:
    """Begin a restore; drafts older than a day are dropped."""
    installation.require_writable()
    now = installation.clock.now()
    row = RestoreOperation
    old = (row.status == RestoreStatus.DRAFT, row.created_at < now - DRAFT_LIFETIME)
    session.execute(delete(row).where(*old))
    operation = row(
        id=new_ulid(now),
        created_at=now,
        restored_by=actor.id,
        restored_by_name=actor.name,
    )
    session.add(operation)
    session.commit()
    return operation


def find_operation(session: Session, operation_id: str) -> RestoreOperation:
    """Return a restore by its id; raise `UsageError` when there is none."""
    operation = session.get(RestoreOperation, operation_id)
    if operation is None:
        raise UsageError(f"There is no restore {operation_id[:40]!r}.")
    return operation


def choose_snapshot(
    session: Session, installation: Installation, operation_id: str, snapshot_id: str
) -> None:
    """Step 1: which snapshot. Makes an earlier plan void when it is another."""
    operation = _draft(session, operation_id)
    known = catalogue.find_row(session, snapshot_id)
    if known is None or not known.present:
        raise SnapshotMissing(f"There is no backup {snapshot_id[:40]!r} to restore.")
    if operation.snapshot_id != snapshot_id:
        operation.snapshot_id = snapshot_id
        operation.source_backup_id = known.backup_run_id
        void_plan(operation)
    operation.step = max(operation.step, 2)
    _save(session, installation, operation)


def choose_type(
    session: Session, installation: Installation, operation_id: str, restore_type: RestoreType
) -> None:
    """Step 2: how much of it. Makes an earlier plan void when it is another."""
    operation = _draft(session, operation_id)
    if operation.restore_type != restore_type.value:
        operation.restore_type = restore_type.value
        operation.selection = {}
        void_plan(operation)
    operation.step = max(operation.step, 3)
    _save(session, installation, operation)


def available(session: Session, installation: Installation, operation_id: str) -> Available:
    """Return what can be chosen in step 3; reads the manifest from the storage."""
    operation = _draft(session, operation_id)
    manifest = open_for_restore(session, installation)[0].manifest(operation.snapshot_id)
    targets = engine.source_set(session, installation)
    live_files = {source.name for source in targets.files}
    live_databases = set(targets.database_names())
    return Available(
        files=tuple(root.name for root in manifest.files if root.name in live_files),
        databases=tuple(entry.name for entry in manifest.databases if entry.name in live_databases),
        settings=manifest.settings is not None,
    )


def choose_components(
    session: Session, installation: Installation, operation_id: str, choice: Choice
) -> None:
    """Step 3: which parts. Raises `UsageError` when nothing is chosen."""
    operation = _draft(session, operation_id)
    if operation.restore_type == RestoreType.ROWS:
        raise UsageError("This is a restore of tables or rows; choose those.")
    if operation.restore_type == RestoreType.PARTIAL and not (choice.files or choice.databases):
        raise UsageError("Choose at least one database or folder.")
    selection = {"files": list(choice.files), "databases": list(choice.databases)}
    if operation.selection != selection:
        operation.selection = selection
        void_plan(operation)
    operation.step = max(operation.step, 4)
    _save(session, installation, operation)


def held_rows(session: Session, installation: Installation, operation_id: str) -> Held:
    """Return the tables that can be chosen in step 3; reads the manifest from the storage."""
    operation = _draft(session, operation_id)
    manifest = open_for_restore(session, installation)[0].manifest(operation.snapshot_id)
    return held_of(manifest, engine.source_set(session, installation))


def choose_rows(
    session: Session, installation: Installation, operation_id: str, choice: RowsChoice, held: Held
) -> dict[str, str]:
    """Step 3 for tables and rows: keep what was asked for; return by field what is wrong with it."""
    operation = _draft(session, operation_id)
    if operation.restore_type != RestoreType.ROWS:
        raise UsageError("This restore is not one of tables or rows; choose the type first.")
    selection = choice.to_plain()
    if operation.selection != selection:
        operation.selection = selection
        void_plan(operation)
    problems = problems_of(choice, held)
    if not problems:
        operation.step = max(operation.step, 4)
    _save(session, installation, operation)
    return problems


def review(session: Session, installation: Installation, operation_id: str) -> Review[AnyPlan]:
    """Step 4: make the plan anew, validate it, and keep it with its digest."""
    operation = draft_to_plan(session, operation_id)
    found = find_review(session, installation, operation, QuietReporter())
    keep_review(operation, found, installation.clock.now())
    operation.step = 4
    _save(session, installation, operation)
    return found


def draft_to_plan(session: Session, operation_id: str) -> RestoreOperation:
    """Return a draft of which a plan can be made; raise `UsageError`."""
    operation = _draft(session, operation_id)
    if not operation.snapshot_id:
        raise UsageError("Choose a backup first.")
    if operation.restore_type == RestoreType.ROWS:
        RowsChoice.from_plain(operation.selection).selection()
    return operation


def find_review(
    session: Session, installation: Installation, operation: RestoreOperation, reporter: Reporter
) -> Review[AnyPlan]:
    """Make the plan of a draft and validate it; keeps nothing."""
    repository, why_mirror = open_for_restore(session, installation)
    snapshot_id = SnapshotId(operation.snapshot_id)
    found: Review[AnyPlan]
    if operation.restore_type == RestoreType.ROWS:
        rows = RowsChoice.from_plain(operation.selection).selection()
        found = make_rows_review(session, installation, repository, snapshot_id, rows, reporter)
    else:
        selection = selection_of(operation)
        found = make_review(session, installation, repository, snapshot_id, selection, reporter)
    if why_mirror:
        found = replace(found, issues=(Issue(Level.WARN, "storage", why_mirror), *found.issues))
    return found


def make_review(
    session: Session,
    installation: Installation,
    repository: Repository,
    snapshot_id: SnapshotId,
    selection: Selection,
    reporter: Reporter,
) -> Review[RestorePlan]:
    """Plan a restore onto what the app protects, and validate it; keeps nothing."""
    targets = engine.source_set(session, installation)
    session.commit()  # hold no transaction while files are compared
    state = installation.state
    plan = plan_restore(repository, snapshot_id, targets, selection, state=state, reporter=reporter)
    issues = validate_restore(plan, repository, targets, state=installation.state, clock=installation.clock)
    lacking = look_for_lacking(repository.manifest(snapshot_id), targets, selection)
    return Review(plan, (*issues, *lacking), plan.digest)


def make_rows_review(
    session: Session,
    installation: Installation,
    repository: Repository,
    snapshot_id: SnapshotId,
    selection: RowsSelection,
    reporter: Reporter,
) -> Review[RowsPlan]:
    """Try a restore of tables or rows out and take it back; keeps nothing, and nothing live has changed."""
    targets = engine.source_set(session, installation)
    session.commit()  # hold no transaction while the other database works
    state = installation.state
    plan = plan_rows(repository, snapshot_id, targets, selection, state=state, reporter=reporter)
    return Review(plan, issues_of(plan, repository, targets, installation), plan.digest)


def keep_review(operation: RestoreOperation, review: Review[AnyPlan], now: datetime) -> None:
    """Write a plan and what was found into its row; the caller commits."""
    for name, value in review_values(review, now).items():
        setattr(operation, name, value)


def review_values(review: Review[AnyPlan], now: datetime) -> dict[str, Any]:
    """Return what a row says of a plan."""
    return {
        "plan": dump_canonical(review.plan.to_json()).decode(),
        "plan_digest": review.digest,
        "planned_at": now,
        "issues": [{**asdict(issue), "level": issue.level.value} for issue in review.issues],
        "error_message": "",
    }


def stored_review(operation: RestoreOperation) -> Review[AnyPlan] | None:
    """Return what `review` kept; None when there is no plan or it was made void."""
    if not operation.plan:
        return None
    issues = tuple(
        Issue(Level(issue["level"]), issue["topic"], issue["message"]) for issue in operation.issues
    )
    return Review(stored_plan(operation), issues, operation.plan_digest)


def read_plan(value: Mapping[str, Any]) -> AnyPlan:
    """Read a plan of either kind; raise `KeyError`, `TypeError` or `ValueError`."""
    return RowsPlan.from_json(value) if value.get("kind") == KIND else RestorePlan.from_json(value)


def stored_plan(operation: RestoreOperation) -> AnyPlan:
    """Return the plan of a restore; raise `UsageError` when the row was tampered with."""
    try:
        plan = read_plan(load_strict(operation.plan.encode()))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"The plan of restore {operation.id} cannot be read; make it again.") from error
    if plan.digest != operation.plan_digest:
        raise UsageError(f"The plan of restore {operation.id} is not the one that was reviewed.")
    return plan


def selection_of(operation: RestoreOperation) -> Selection:
    """Return which parts a draft selects; None in it means: all there is."""
    kind = RestoreType(operation.restore_type)
    if kind is RestoreType.FULL:
        return Selection()
    if kind is RestoreType.DATABASE_ONLY:
        return Selection(files=())
    if kind is RestoreType.FILES_ONLY:
        return Selection(databases=())
    chosen = operation.selection
    return Selection(files=tuple(chosen.get("files", ())), databases=tuple(chosen.get("databases", ())))


def _draft(session: Session, operation_id: str) -> RestoreOperation:
    operation = find_operation(session, operation_id)
    if operation.status is not RestoreStatus.DRAFT:
        raise UsageError(f"This restore is {operation.status.value}; it can no longer be changed.")
    return operation


def void_plan(operation: RestoreOperation) -> None:
    """Forget the plan of a draft, and one that is being made."""
    operation.action, operation.error_message = "restore", ""
    operation.plan, operation.plan_digest, operation.planned_at, operation.issues = "", "", None, []


def _save(session: Session, installation: Installation, operation: RestoreOperation) -> None:
    operation.updated_at = installation.clock.now()
    session.commit()
