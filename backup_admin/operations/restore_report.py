"""What the host does in a restore, and how one ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from backup_admin.core.clock import Clock
    from backup_admin.core.ids import RestoreId
    from backup_admin.core.progress import Reporter
    from backup_admin.core.state import StateFolder
    from backup_admin.operations.databases import CheckLine
    from backup_admin.sources.postgres.source import PostgresSource


@dataclass(frozen=True, slots=True)
class RestoreHooks:
    """What the host does in a restore. `maintenance(True)` keeps writers out.

    `servers` give the passwords of PostgreSQL databases to whoever goes on after a crash.
    """

    maintenance: Callable[[bool], None] = lambda _: None
    checks: tuple[tuple[str, Callable[[], str]], ...] = ()
    drain_seconds: float = 0.0
    servers: tuple[PostgresSource, ...] = ()


@dataclass(frozen=True, slots=True)
class RestoreTools:
    """What a restore works with besides plan, repository and targets."""

    state: StateFolder
    reporter: Reporter
    clock: Clock
    hooks: RestoreHooks = field(default_factory=RestoreHooks)
    undo_hours: float = 24.0


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """How a restore ended: `restored`, `rolled_back`, `undone` or `needs_attention`."""

    restore_id: RestoreId
    outcome: str
    message: str
    checks: tuple[CheckLine, ...] = ()
    safety_snapshot: str = ""
    undo_until: datetime | None = None
    notices: tuple[str, ...] = field(default=())
    error_code: str = ""
    exit_code: int = 0
