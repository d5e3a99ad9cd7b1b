"""One app with backup_admin in it: its settings, database, hooks and tools."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from backup_admin.access.audit import AuditLog
from backup_admin.access.second_factor import Attempts, Authenticators
from backup_admin.access.secrets_at_rest import application_key, derive_key
from backup_admin.core.errors import BackupAdminError, ConfigurationError
from backup_admin.core.state import StateFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backup_admin.core.clock import Clock
    from backup_admin.core.secret import Secret
    from backup_admin.core.settings import Settings
    from backup_admin.records import Database

BACKUP_JOB = "backup_admin.jobs.run_backup"
VERIFY_JOB = "backup_admin.jobs.run_verify"
CLUSTER_JOB = "backup_admin.jobs.run_cluster"
RESTORE_JOB = "backup_admin.jobs.run_restore"
PLAN_JOB = "backup_admin.jobs.run_plan"
UNDO_JOB = "backup_admin.jobs.run_undo"
STORAGE_TEST_JOB = "backup_admin.jobs.run_storage_test"


class QueueUnavailable(BackupAdminError):
    """The queue server does not answer; what was asked for waits in the database."""

    code = "queue_unavailable"
    exit_code = 75


class JobQueue(Protocol):
    """Hands work to a worker. The database row stays the truth, never the queue."""

    def enqueue(self, job: str, row_id: str) -> None:
        """Hand on one row by its id; twice is the same as once. Raise `QueueUnavailable`."""
        ...

    def knows(self, row_id: str) -> bool:
        """Say whether the row waits in the queue or runs. Raise `QueueUnavailable`."""
        ...


@dataclass(slots=True)
class Hooks:
    """What the host app plugs in."""

    settings_provider: Callable[[], Mapping[str, object]] | None = None
    maintenance: list[Callable[[bool], None]] = field(default_factory=list)
    restore_checks: list[tuple[str, Callable[[], str]]] = field(default_factory=list)
    after_restore: list[Callable[[str], None]] = field(default_factory=list)

    def set_maintenance(self, on: bool) -> None:
        """Tell the host that writers must stop, or may go on."""
        for hook in self.maintenance:
            hook(on)


@dataclass(frozen=True, slots=True)
class Installation:
    """What the functions of this layer work with, the same in web, worker and commands."""

    settings: Settings
    database: Database
    hooks: Hooks
    clock: Clock
    attempts: Attempts
    queue: JobQueue | None = None

    @property
    def state(self) -> StateFolder:
        """Return the state folder."""
        return StateFolder(self.settings.state_dir)

    def key(self) -> Secret:
        """Return the application key; raise `ConfigurationError` without a good one."""
        return application_key(self.settings)

    def audit(self) -> AuditLog:
        """Return the audit log; it needs the application key."""
        return AuditLog(self.state.audit, derive_key(self.key(), "audit"), self.clock)

    def authenticators(self) -> Authenticators:
        """Return what checking a second factor needs."""
        return Authenticators(self.key(), self.clock, self.attempts)

    def require_private_state(self) -> None:
        """Raise `ConfigurationError` while others can read the state folder."""
        folder = self.settings.state_dir
        if folder.is_dir() and stat.S_IMODE(folder.stat().st_mode) & 0o077:
            raise ConfigurationError(f"{folder} is open to others; run: chmod 700 {folder}")

    def require_queue(self) -> JobQueue:
        """Return the queue; raise `ConfigurationError` where none is set."""
        if self.queue is None:
            raise ConfigurationError(
                "There is no queue: set BACKUP_ADMIN_REDIS_URL and start `flask backup worker`."
            )
        return self.queue

    def require_writable(self) -> None:
        """Raise `ConfigurationError` where the deployment only shows."""
        if self.settings.read_only:
            raise ConfigurationError("BACKUP_ADMIN_READ_ONLY is set: nothing can be changed here.")
