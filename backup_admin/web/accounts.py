"""The people of the standalone app: who they are, and how they sign in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from werkzeug.security import check_password_hash, generate_password_hash

from backup_admin.core.errors import FieldMistake, NotPermitted
from backup_admin.records import User

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from backup_admin.access.permissions import Role
    from backup_admin.control.installation import Installation

PASSWORD_LENGTH = 12
IDLE = timedelta(minutes=30)
ABSOLUTE = timedelta(hours=12)
_WRONG = "Name or password is not right."
# Checked for a name nobody has, so that both answers take the same time.
_NOBODYS_HASH = generate_password_hash("no password of anybody")


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who is signed in, as Flask-Login wants it."""

    user_id: int
    name: str
    role: str
    epoch: int
    is_authenticated: bool = True
    is_active: bool = True
    is_anonymous: bool = False

    def get_id(self) -> str:
        """Return what stands in the session; a raised epoch ends all logins."""
        return f"{self.user_id}:{self.epoch}"


def has_users(session: Session) -> bool:
    """Say whether anybody can sign in."""
    return bool(session.scalar(select(func.count(User.id))))


def create_user(session: Session, installation: Installation, name: str, password: str, role: Role) -> User:
    """Make an account; raise `FieldMistake` with what is wrong with name or password."""
    clean = name.strip()
    if not clean or len(clean) > 120 or not clean.isprintable():
        raise FieldMistake("A name has 1 to 120 characters.", "name")
    if len(password) < PASSWORD_LENGTH:
        raise FieldMistake(f"A password has at least {PASSWORD_LENGTH} characters.", "password")
    user = User(
        name=clean,
        password_hash=generate_password_hash(password),
        role=role.value,
        created_at=installation.clock.now(),
    )
    session.add(user)
    try:
        session.commit()
    except IntegrityError as error:
        session.rollback()
        raise FieldMistake(f"There is an account named {clean!r} already.", "name") from error
    return user


def authenticate(
    session: Session, installation: Installation, name: str, password: str, address: str
) -> Account:
    """Return the account that name and password belong to.

    Raises `NotPermitted`, with the same words for an unknown name and a wrong
    password. Each try counts before the password is looked at.
    """
    key = f"sign-in/{name.strip().casefold()[:120]}"
    try:
        installation.attempts.take(key, address)
    except NotPermitted as error:
        raise NotPermitted("Too many tries; wait a quarter of an hour.") from error
    user = session.scalar(select(User).where(User.name == name.strip()))
    known_hash = user.password_hash if user is not None else _NOBODYS_HASH
    right = check_password_hash(known_hash, password)
    if user is None or not right or not user.active:
        raise NotPermitted(_WRONG)
    installation.attempts.forget(key)
    user.last_login_at = installation.clock.now()
    session.commit()
    return _account(user)


def find_account(session: Session, stored: str) -> Account | None:
    """Return the account of a session, unless it was closed or its logins were ended."""
    user_id, _, epoch = stored.partition(":")
    if not (user_id.isascii() and user_id.isdigit() and epoch.isascii() and epoch.isdigit()):
        return None
    user = session.get(User, int(user_id))
    if user is None or not user.active or user.auth_epoch != int(epoch):
        return None
    return _account(user)


def end_logins(session: Session, user_id: int) -> None:
    """End all logins of a person, in every browser."""
    raised = update(User).where(User.id == user_id).values(auth_epoch=User.auth_epoch + 1)
    session.execute(raised)
    session.commit()


def is_fresh(began: datetime, seen: datetime, now: datetime) -> bool:
    """Say whether a login may go on: not idle for long, and not older than half a day."""
    return now - seen <= IDLE and now - began <= ABSOLUTE


def _account(user: User) -> Account:
    return Account(user.id, user.name, user.role, user.auth_epoch)
