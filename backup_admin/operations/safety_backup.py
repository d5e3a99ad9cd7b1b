"""What is kept before anything live changes: a snapshot of it, with other backups kept out meanwhile."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from backup_admin.core.errors import Busy, SourceError
from backup_admin.core.progress import WithinStage
from backup_admin.operations.backup import back_up_locked
from backup_admin.operations.results import BackupOptions, Outcome, SourceSet
from backup_admin.repository.types import SAFETY
from backup_admin.sources.postgres.source import PostgresSource
from backup_admin.sources.sqlite import SqliteSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from backup_admin.core.ids import RestoreId
    from backup_admin.operations.restore_parts import DatabasePart
    from backup_admin.operations.restore_report import RestoreTools
    from backup_admin.repository.repository import Repository
    from backup_admin.sources.files import FileSource

_Source = TypeVar("_Source", "FileSource", SqliteSource, PostgresSource)
_WAIT_SECONDS = 600.0
_WAIT_STEP = 1.0


@dataclass(frozen=True, slots=True)
class Safety:
    """The safety snapshot, empty when there was nothing to keep, and what it lacks.

    `usable` tells of each database whether its live state could be kept beside it as well. `absent` are the
    folders and databases that were not there: nothing of them was to be kept.
    """

    snapshot: str
    notices: tuple[str, ...]
    usable: dict[str, bool]
    absent: SourceSet = field(default_factory=SourceSet)


def keep_safe(
    repository: Repository, sources: SourceSet, *, restore_id: RestoreId, actor: str, tools: RestoreTools
) -> Safety:
    """Make a safety backup of sources; the caller keeps other backups out."""
    if not sources.files and not sources.database_names():
        return Safety("", (), {})
    result = back_up_locked(
        repository,
        sources,
        options=BackupOptions(label=f"before restore {restore_id}", kind=SAFETY, actor=actor),
        state=tools.state,
        reporter=WithinStage(tools.reporter),
        clock=tools.clock,
    )
    notices: list[str] = []
    if result.outcome is Outcome.DEGRADED:
        notices += [f"The safety backup lacks: {warning}" for warning in result.warnings[:20]]
        notices += [f"The safety backup: {problem}" for problem in result.lock_problems]
    return Safety(result.snapshot.id, tuple(notices), {})


def keep_what_can_be(
    repository: Repository,
    targets: SourceSet,
    databases: Sequence[DatabasePart],
    *,
    restore_id: RestoreId,
    actor: str,
    tools: RestoreTools,
) -> Safety:
    """Make a safety backup of all targets that can be read, and keep each database beside its live place.

    What is live may be the very thing that is broken: that is left out and told of. So is what is not there,
    of which there is nothing to tell.
    """
    notices: list[str] = []
    usable = {part.name: part.keep_old() for part in databases}
    absent = _absent(targets, usable)
    found = SourceSet(
        _readable("folder", _without(targets.files, absent.files), _check_root, notices),
        _readable("database", _without(targets.databases, absent.databases), SqliteSource.check, notices),
        _readable("database", _without(targets.postgres, absent.postgres), PostgresSource.check, notices),
    )
    # Only a whole copy tells of damage in a SQLite database.
    lost = [one.name for one in found.databases if not usable[one.name]]
    notices += [f"The database {name} could not be kept: it is damaged." for name in lost]
    found = replace(found, databases=tuple(one for one in found.databases if one.name not in lost))
    try:
        safety = keep_safe(repository, found, restore_id=restore_id, actor=actor, tools=tools)
    except SourceError as error:
        if not found.postgres:
            raise
        notices.append(f"The safety backup lacks {', '.join(one.name for one in found.postgres)}: {error}")
        rest = replace(found, postgres=())
        safety = keep_safe(repository, rest, restore_id=restore_id, actor=actor, tools=tools)
    return replace(safety, notices=(*notices, *safety.notices), usable=usable, absent=absent)


@contextmanager
def no_backups(tools: RestoreTools) -> Iterator[None]:
    """Keep backups out while live data is exchanged; wait for one that runs."""
    deadline = tools.clock.monotonic() + _WAIT_SECONDS
    entered = False
    while True:
        try:
            with tools.state.lock("backup"):
                entered = True
                yield
                return
        except Busy:
            if entered or tools.clock.monotonic() > deadline:
                raise
            tools.reporter.check_cancelled()
            tools.clock.sleep(_WAIT_STEP)


def _absent(targets: SourceSet, usable: dict[str, bool]) -> SourceSet:
    """Return the targets that are not there; of a database on a server `usable` tells that."""
    return SourceSet(
        tuple(source for source in targets.files if not os.path.lexists(source.root)),
        tuple(source for source in targets.databases if not os.path.lexists(source.path)),
        tuple(source for source in targets.postgres if not usable[source.name]),
    )


def _without(sources: Sequence[_Source], left_out: Sequence[_Source]) -> tuple[_Source, ...]:
    return tuple(source for source in sources if source not in left_out)


def _readable(
    kind: str, sources: Sequence[_Source], check: Callable[[_Source], None], notices: list[str]
) -> tuple[_Source, ...]:
    found = []
    for source in sources:
        try:
            check(source)
            found.append(source)
        except SourceError as error:
            notices.append(f"The {kind} {source.name} could not be kept: {error}")
    return tuple(found)


def _check_root(source: FileSource) -> None:
    source.check_root()
