"""The first four steps of a restore: a draft on the server, nothing touched."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from backup_admin.access.permissions import Actor
    from backup_admin.control.installation import Installation
    from backup_admin.operations.types import Issue, RestorePlan
    from backup_admin.records import RestoreOperation


class RestoreType(StrEnum):
    """What a restore brings back."""

    FULL = "full"
    PARTIAL = "partial"
    DATABASE_ONLY = "database_only"
    FILES_ONLY = "files_only"


@dataclass(frozen=True, slots=True)
class Choice:
    """What a person ticked in step 3 of a partial restore, by names of sources."""

    files: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    settings: bool = False


@dataclass(frozen=True, slots=True)
class Available:
    """What a snapshot holds and this deployment can take back."""

    files: tuple[str, ...]
    databases: tuple[str, ...]
    settings: bool


@dataclass(frozen=True, slots=True)
class Review:
    """What a person confirms: the plan, what speaks against it, and its digest."""

    plan: RestorePlan
    issues: tuple[Issue, ...]
    digest: str

    @property
    def short_digest(self) -> str:
        """Return the eight characters shown on the page."""
        return self.digest[:8]

    @property
    def blocked(self) -> bool:
        """Say whether something forbids the restore."""
        return any(issue.level == "block" for issue in self.issues)


def create_draft(session: Session, installation: Installation, actor: Actor) -> RestoreOperation:
    """Begin a restore; drafts older than a day are dropped."""
    raise NotImplementedError


def find_operation(session: Session, operation_id: str) -> RestoreOperation:
    """Return a restore by its id; raise `UsageError` when there is none."""
    raise NotImplementedError


def choose_snapshot(
    session: Session, installation: Installation, operation_id: str, snapshot_id: str
) -> None:
    """Step 1: which snapshot. Makes an earlier plan void when it is another."""
    raise NotImplementedError


def choose_type(
    session: Session, installation: Installation, operation_id: str, restore_type: RestoreType
) -> None:
    """Step 2: how much of it. Makes an earlier plan void when it is another."""
    raise NotImplementedError


def available(session: Session, installation: Installation, operation_id: str) -> Available:
    """Return what can be chosen in step 3; reads the manifest from the storage."""
    raise NotImplementedError


def choose_components(
    session: Session, installation: Installation, operation_id: str, choice: Choice
) -> None:
    """Step 3: which parts. Raises `UsageError` when nothing is chosen."""
    raise NotImplementedError


def review(session: Session, installation: Installation, operation_id: str) -> Review:
    """Step 4: make the plan anew, validate it, and keep it with its digest."""
    raise NotImplementedError
