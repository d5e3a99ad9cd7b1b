"""The authenticator of a person: enrolled, checked once per code, and its spare codes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import os
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import pyotp
import segno
from limits import RateLimitItemPerMinute
from limits.errors import StorageError as LimitsUnavailable
from limits.strategies import MovingWindowRateLimiter
from sqlalchemy import Update, delete, literal, update

from backup_admin.access.secrets_at_rest import Place, seal, seal_anew, unseal
from backup_admin.core.errors import NotPermitted
from backup_admin.core.secret import Secret
from backup_admin.records import RecoveryCode, SecondFactor

if TYPE_CHECKING:
    from limits.storage import Storage as LimitsStorage
    from sqlalchemy.orm import Session

    from backup_admin.core.clock import Clock

STEP_SECONDS = 30
WINDOW = 1
WINDOW_MINUTES = 15
FAILURES_PER_PERSON = 5
FAILURES_PER_ADDRESS = 20
RECOVERY_CODES = 10

_CODE = re.compile(r"[0-9]{6}", re.ASCII)
_RECOVERY_CODE = re.compile(r"[A-Z2-7]{16}", re.ASCII)
_WRONG = "This code is not right, was used already, or is too old."


class Proof(StrEnum):
    """What a person proved the second factor with."""

    AUTHENTICATOR = "authenticator"
    RECOVERY_CODE = "recovery code"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a person needs once to set up an authenticator."""

    secret: Secret
    address: Secret
    """The otpauth:// address; it holds the secret."""
    qr_svg: Secret
    """The same as a picture."""


class Attempts:
    """Counts tries, so that codes cannot be guessed.

    A try counts before the code is looked at: many at once gain nothing.
    """

    def __init__(self, storage: LimitsStorage) -> None:
        self._limiter = MovingWindowRateLimiter(storage)
        self._person = RateLimitItemPerMinute(FAILURES_PER_PERSON, WINDOW_MINUTES)
        self._address = RateLimitItemPerMinute(FAILURES_PER_ADDRESS, WINDOW_MINUTES)

    def take(self, user_id: str, address: str) -> None:
        """Count one try; raise `NotPermitted` when there were too many."""
        try:
            allowed = self._limiter.hit(self._person, "person", user_id) and self._limiter.hit(
                self._address, "address", address or "unknown"
            )
        except LimitsUnavailable as error:
            raise NotPermitted("Codes cannot be checked now: the queue server does not answer.") from error
        if not allowed:
            raise NotPermitted(f"Too many codes were tried; wait {WINDOW_MINUTES} minutes.")

    def forget(self, user_id: str) -> None:
        """Begin anew for a person who gave a right code; the address stays counted."""
        self._limiter.clear(self._person, "person", user_id)


@dataclass(frozen=True, slots=True)
class Authenticators:
    """What checking codes needs."""

    key: Secret
    clock: Clock
    attempts: Attempts


def is_enrolled(session: Session, user_id: str) -> bool:
    """Say whether a person has an authenticator that a code has confirmed."""
    factor = session.get(SecondFactor, user_id)
    return factor is not None and factor.confirmed_at is not None


def begin_enrolment(
    session: Session, tools: Authenticators, *, user_id: str, account: str, issuer: str
) -> Enrolment:
    """Make a secret that becomes active with its first code.

    An authenticator in use stays in use until then; who replaces one must have
    proved it first (see `step_up`). Beginning again makes a new secret.
    """
    secret = Secret(pyotp.random_base32(32))
    factor = session.get(SecondFactor, user_id)
    if factor is None:
        factor = SecondFactor(user_id=user_id, sealed_secret="", created_at=tools.clock.now())
        session.add(factor)
    factor.pending_secret = seal(tools.key, secret, _place("pending_secret", user_id))
    session.commit()
    address = pyotp.TOTP(secret.reveal()).provisioning_uri(name=account, issuer_name=issuer)
    return Enrolment(secret, Secret(address), Secret(_qr_svg(address)))


def confirm_enrolment(
    session: Session, tools: Authenticators, *, user_id: str, address: str, code: str
) -> tuple[Secret, ...]:
    """Make the pending secret active by its first code; return the recovery codes.

    They are shown this once. Raises `NotPermitted` when the code is wrong.
    """
    tools.attempts.take(user_id, address)
    factor = session.get(SecondFactor, user_id)
    if factor is None or not factor.pending_secret:
        raise NotPermitted("No authenticator waits for a code; begin the set-up again.")
    secret = unseal(tools.key, factor.pending_secret, _place("pending_secret", user_id))
    step = _matching_step(secret, tools.clock, code)
    if step is None:
        raise NotPermitted(_WRONG)
    _activate(session, factor, seal(tools.key, secret, _place("sealed_secret", user_id)), step, tools.clock)
    codes = _new_recovery_codes(session, user_id)
    session.commit()
    tools.attempts.forget(user_id)
    return codes


def check_code(session: Session, tools: Authenticators, *, user_id: str, address: str, code: str) -> Proof:
    """Accept a code of the authenticator, or a recovery code, exactly once.

    Raises `NotPermitted` with a message that does not tell what was wrong.
    """
    tools.attempts.take(user_id, address)
    factor = session.get(SecondFactor, user_id)
    if factor is None or factor.confirmed_at is None:
        raise NotPermitted("Set up an authenticator first; a restore needs one.")
    if _use_recovery_code(session, user_id, code, tools.clock):
        proof = Proof.RECOVERY_CODE
    else:
        secret = unseal(tools.key, factor.sealed_secret, _place("sealed_secret", user_id))
        _use_step(session, user_id, _matching_step(secret, tools.clock, code))
        proof = Proof.AUTHENTICATOR
    session.commit()
    tools.attempts.forget(user_id)
    return proof


def recovery_codes_left(session: Session, user_id: str) -> int:
    """Return how many recovery codes a person has not used."""
    return session.query(RecoveryCode).filter_by(user_id=user_id, used_at=None).count()


def remove(session: Session, user_id: str) -> None:
    """Take the authenticator of a person away; a restore is refused from then on."""
    session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
    session.execute(delete(SecondFactor).where(SecondFactor.user_id == user_id))
    session.commit()


def _place(column: str, user_id: str) -> Place:
    return Place(SecondFactor.__tablename__, column, user_id)


def _qr_svg(address: str) -> str:
    picture = io.BytesIO()
    segno.make(address, micro=False).save(
        picture, kind="svg", scale=5, border=4, xmldecl=False, svgns=True, light="#fff"
    )
    return picture.getvalue().decode()


def _matching_step(secret: Secret, clock: Clock, code: str) -> int | None:
    """Return the time step a code belongs to, the newest first."""
    clean = code.strip()
    if not _CODE.fullmatch(clean):
        return None
    generator = pyotp.TOTP(secret.reveal())
    now = int(clock.now().timestamp()) // STEP_SECONDS
    steps = range(now + WINDOW, now - WINDOW - 1, -1)
    fitting = [step for step in steps if hmac.compare_digest(generator.generate_otp(step), clean)]
    return fitting[0] if fitting else None


def _use_step(session: Session, user_id: str, step: int | None) -> None:
    if step is None:
        raise NotPermitted(_WRONG)
    newer = update(SecondFactor).where(SecondFactor.user_id == user_id, SecondFactor.last_step < step)
    if _changed(session, newer.values(last_step=step)) != 1:
        session.rollback()
        raise NotPermitted(_WRONG)


def _activate(session: Session, factor: SecondFactor, sealed: str, step: int, clock: Clock) -> None:
    """Swap the secrets, unless another request did it just now."""
    unchanged = SecondFactor.pending_secret == factor.pending_secret
    change = update(SecondFactor).where(SecondFactor.user_id == factor.user_id, unchanged)
    values = {
        "sealed_secret": sealed,
        "pending_secret": "",
        "confirmed_at": clock.now(),
        "last_step": step,
    }
    if _changed(session, change.values(values)) != 1:
        session.rollback()
        raise NotPermitted(_WRONG)


def reseal(session: Session, old: Secret, new: Secret) -> int:
    """Seal every authenticator under a new application key; return how many were not yet.

    The caller commits. Raises `BadSecret` when one opens with neither key.
    """
    changed = 0
    for factor in session.query(SecondFactor):
        for column in ("sealed_secret", "pending_secret"):
            place, sealed = _place(column, factor.user_id), getattr(factor, column)
            anew = seal_anew(old, new, sealed, place) if sealed else ""
            if anew != sealed:
                setattr(factor, column, anew)
                changed += 1
    return changed


def _new_recovery_codes(session: Session, user_id: str) -> tuple[Secret, ...]:
    session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
    codes = [base64.b32encode(os.urandom(10)).decode("ascii") for _ in range(RECOVERY_CODES)]
    for code in codes:
        salt = os.urandom(16).hex()
        session.add(RecoveryCode(user_id=user_id, salt=salt, hash=_hashed(salt, code)))
    return tuple(Secret("-".join(code[at : at + 4] for at in range(0, 16, 4))) for code in codes)


def _use_recovery_code(session: Session, user_id: str, code: str, clock: Clock) -> bool:
    clean = code.replace("-", "").replace(" ", "").upper()
    if not _RECOVERY_CODE.fullmatch(clean):
        return False
    for row in session.query(RecoveryCode).filter_by(user_id=user_id, used_at=None):
        if hmac.compare_digest(row.hash, _hashed(row.salt, clean)):
            unused = update(RecoveryCode).where(RecoveryCode.id == row.id, RecoveryCode.used_at.is_(None))
            return _changed(session, unused.values(used_at=clock.now())) == 1
    return False


def _hashed(salt: str, code: str) -> str:
    # A plain hash will do: 80 random bits cannot be guessed.
    return hashlib.sha256(f"{salt}/{code}".encode()).hexdigest()


def _changed(session: Session, statement: Update) -> int:
    """Return how many rows an UPDATE changed: the one that wins sees 1."""
    return len(session.execute(statement.returning(literal(1))).all())
