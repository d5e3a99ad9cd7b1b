"""Restores: confirm, start, follow, cancel and undo. Nothing here touches live data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from backup_admin.access.allowlist import AllowDecision
    from backup_admin.access.permissions import Actor
    from backup_admin.control.installation import Installation
    from backup_admin.records import RestoreOperation, RestoreStatus


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from, as the server saw it."""

    peer: str
    forwarded_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What a person gave to confirm a restore; the step-up lies in the database."""

    actor: Actor
    origin: Origin
    typed_name: str
    reason: str


@dataclass(frozen=True, slots=True)
class RestoreProgress:
    """What a person is shown of a restore; the journal counts before the row."""

    id: str
    status: RestoreStatus
    stage: str
    stage_index: int
    bytes_done: int
    bytes_total: int
    current: str
    message: str
    updated_at: datetime | None
    silent: bool
    can_cancel: bool
    can_undo: bool
    undo_until: datetime | None
    checks: tuple[Any, ...]
    journal_state: str


def allow_decision(installation: Installation, origin: Origin) -> AllowDecision:
    """Say whether a restore may be started from where the request came from."""
    raise NotImplementedError


def start(
    session: Session, installation: Installation, operation_id: str, confirmation: Confirmation
) -> RestoreOperation:
    """Start a planned restore.

    Needs the permission `restore.execute`, an address on the allow-list, an
    unused step-up for the digest of exactly this plan, the typed name of the
    app, a reason, and a plan that still validates. Raises `NotPermitted`,
    `UsageError`, `RestoreRefused`, `Busy` or `AuditFailed`; each refusal is audited.
    """
    raise NotImplementedError


def progress(session: Session, installation: Installation, operation_id: str) -> RestoreProgress:
    """Return where a restore stands: from its journal first, from its row second."""
    raise NotImplementedError


def cancel(session: Session, installation: Installation, operation_id: str, actor: Actor) -> None:
    """Ask a restore to stop; it does so only while nothing live was changed."""
    raise NotImplementedError


def undo(
    session: Session, installation: Installation, operation_id: str, confirmation: Confirmation
) -> RestoreOperation:
    """Put the state before a restore back; needs a step-up of its own (`Purpose.UNDO`, the id)."""
    raise NotImplementedError
