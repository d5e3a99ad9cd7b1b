"""First steps: where backups go, a repository, and a recovery key that is really kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from backup_admin.access.permissions import Actor
    from backup_admin.control.installation import Installation
    from backup_admin.core.secret import Secret


@dataclass(frozen=True, slots=True)
class SetUp:
    """How far the set-up is; nothing counts as protected before `complete`."""

    key_problem: str
    """Why there is no usable application key; empty when there is one."""
    has_sources: bool
    storage: str
    storage_pinned: bool
    """True when the deployment sets the storage, so the page cannot."""
    has_repository: bool
    recovery_asked: tuple[int, ...]
    """Numbers (from one) of the groups to type back; empty when none waits."""
    recovery_confirmed: bool
    has_schedule: bool
    has_verified_backup: bool

    @property
    def complete(self) -> bool:
        """Say whether backups can run and be restored without this server."""
        return not self.key_problem and self.has_repository and self.recovery_confirmed


@dataclass(frozen=True, slots=True)
class NewRecoveryKey:
    """A recovery key, to be shown this once."""

    key: Secret
    groups: tuple[Secret, ...]
    asked: tuple[int, ...]
    """Numbers (from one) of the groups to type back."""
    repo_id: str


def look(session: Session, installation: Installation) -> SetUp:
    """Return how far the set-up is, from the control database alone."""
    raise NotImplementedError


def choose_storage(session: Session, installation: Installation, address: str, actor: Actor) -> str:
    """Set where backups go, after writing, reading back and deleting an object there.

    Returns the address as it is kept. Raises `StorageError`, `UsageError` or
    `ConfigurationError`.
    """
    raise NotImplementedError


def make_repository(session: Session, installation: Installation, actor: Actor) -> NewRecoveryKey:
    """Make the repository with a slot for the application key and one for a recovery key."""
    raise NotImplementedError


def renew_recovery_key(session: Session, installation: Installation, actor: Actor) -> NewRecoveryKey:
    """Add another recovery key to an existing repository: the old one stays valid."""
    raise NotImplementedError


def confirm_recovery_key(
    session: Session, installation: Installation, typed: tuple[str, ...], actor: Actor
) -> None:
    """Compare the groups a person typed back, in the order asked; raise `BadSecret`."""
    raise NotImplementedError
