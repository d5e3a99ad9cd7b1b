"""A repository and sources, backed up and asked whether a backup has to be made again."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from backup_admin.core.clock import SystemClock
from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations.changes import ChangeOptions
from backup_admin.operations.look_for_changes import look_for_changes
from tests.factories import make_storage, open_test_repository, run_backup

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from backup_admin.operations.changes import Decision
    from backup_admin.operations.results import BackupResult, SourceSet
    from backup_admin.repository.repository import Repository


class LaterClock(SystemClock):
    """The clock of the machine, put forward as far as a test wants."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.ahead


@dataclass(slots=True)
class Watched:
    """What is protected, and its repository."""

    sources: SourceSet
    state: Path
    options: ChangeOptions = field(default_factory=ChangeOptions)
    clock: LaterClock = field(default_factory=LaterClock)
    repository: Repository = field(init=False)

    def __post_init__(self) -> None:
        storage = make_storage(clock=self.clock)
        self.repository = open_test_repository(storage, self.state, clock=self.clock)

    def back_up(self) -> BackupResult:
        return run_backup(self.repository, self.sources, self.state, clock=self.clock)

    def look(self) -> Decision:
        return look_for_changes(
            self.repository,
            self.sources,
            options=self.options,
            state=StateFolder(self.state),
            reporter=QuietReporter(),
            clock=self.clock,
        )

    def says_run(self) -> str:
        """Return why a backup has to be made; fail when none has to."""
        decision = self.look()
        assert decision.run, decision
        return decision.reason

    def says_skip(self) -> str:
        """Return why none has to be made; fail when one has to."""
        decision = self.look()
        assert not decision.run, decision
        return decision.reason
