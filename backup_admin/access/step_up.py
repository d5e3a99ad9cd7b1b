"""Proof of presence just before a dangerous act: short-lived, bound, used once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import Select, delete, select, update

from backup_admin.access import second_factor
from backup_admin.access.audit import AuditLog, AuditOutcome
from backup_admin.core.errors import NotPermitted
from backup_admin.records import StepUp

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from backup_admin.access.permissions import Actor
    from backup_admin.access.second_factor import Authenticators
    from backup_admin.core.clock import Clock

LIFETIME = timedelta(minutes=5)
_KEPT = timedelta(days=1)


class Purpose(StrEnum):
    """What a step-up is good for; one never serves the other."""

    RESTORE = "restore"
    UNDO = "undo"
    SECOND_FACTOR = "second_factor"
    STORAGE = "storage"
    KEYS = "keys"


@dataclass(frozen=True, slots=True)
class Act:
    """What exactly is to be confirmed."""

    purpose: Purpose
    digest: str = ""
    """Digest of the plan a person saw; another plan needs another step-up."""


def login_id(session_token: str) -> str:
    """Return the digest under which a login is remembered."""
    return hashlib.sha256(b"backup_admin/login/" + session_token.encode()).hexdigest()


def prove(
    session: Session, tools: Authenticators, audit: AuditLog, *, actor: Actor, act: Act, code: str
) -> None:
    """Check a code of the second factor and remember that it was given.

    Raises `NotPermitted`; both ends are in the audit log.
    """
    if not actor.login_id:
        raise NotPermitted("A step-up needs a login; sign in again.")
    details = {"purpose": act.purpose.value, "plan": act.digest}
    try:
        proof = second_factor.check_code(session, tools, user_id=actor.id, address=actor.address, code=code)
    except NotPermitted as error:
        audit.append(actor, "step_up.prove", outcome=AuditOutcome.DENIED, reason=str(error), details=details)
        raise
    audit.append(actor, "step_up.prove", details={**details, "with": proof.value})
    _grant(session, tools.clock, actor, act)


def is_proved(session: Session, clock: Clock, *, actor: Actor, act: Act) -> bool:
    """Say whether a step-up waits to be used; it may be gone a moment later."""
    return session.scalar(_usable(clock, actor, act).limit(1)) is not None


def consume(session: Session, clock: Clock, *, actor: Actor, act: Act) -> None:
    """Use the step-up of this person, login, purpose and plan; it works once.

    Raises `NotPermitted` when there is none, it expired or was used.
    """
    found = session.scalar(_usable(clock, actor, act).limit(1))
    if found is not None:
        unused = update(StepUp).where(StepUp.id == found, StepUp.used_at.is_(None))
        won = session.execute(unused.values(used_at=clock.now()).returning(StepUp.id)).all()
        session.commit()
        if won:
            return
    raise NotPermitted("Confirm with a fresh code: none was given for this in the last five minutes.")


def _grant(session: Session, clock: Clock, actor: Actor, act: Act) -> None:
    now = clock.now()
    session.execute(delete(StepUp).where(StepUp.expires_at < now - _KEPT))
    session.add(
        StepUp(
            user_id=actor.id,
            login_id=actor.login_id,
            purpose=act.purpose.value,
            plan_digest=act.digest,
            created_at=now,
            expires_at=now + LIFETIME,
        )
    )
    session.commit()


def _usable(clock: Clock, actor: Actor, act: Act) -> Select[int]:
    return (
        select(StepUp.id)
        .where(
            StepUp.user_id == actor.id,
            StepUp.login_id == actor.login_id,
            StepUp.purpose == act.purpose.value,
            StepUp.plan_digest == act.digest,
            StepUp.used_at.is_(None),
            StepUp.expires_at > clock.now(),
        )
        .order_by(StepUp.id.desc())
    )
