"""Undo a finished restore: put the state from before it back, keep the other."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from backup_admin.core.clock import Clock, parse_time
from backup_admin.core.errors import (
    BackupAdminError,
    NeedsAttention,
    RestoreRefused,
    SourceMissing,
    UsageError,
)
from backup_admin.core.shown import show_moment, show_time
from backup_admin.core.telling import telling
from backup_admin.operations import restore_parts as parts
from backup_admin.operations.attempts import newest_attempt
from backup_admin.operations.journal import (
    Journal,
    Step,
    open_journal,
    open_journals,
    refuse_earlier,
    refuse_unfinished,
)
from backup_admin.operations.maintenance import close, reopen
from backup_admin.operations.postgres_part import PostgresPart
from backup_admin.operations.put_back import (
    clear,
    is_away,
    journal_parts,
    kept_until,
    tell_kept,
    unswap_all,
    was_absent,
    what_next,
)
from backup_admin.operations.restore_report import RestoreHooks, RestoreReport
from backup_admin.operations.rows_undo import (
    is_beneath_another,
    is_rows_journal,
    place_of,
    remove_rows_record,
    restored_at,
    undo_rows,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from backup_admin.core.ids import RestoreId
    from backup_admin.core.progress import Reporter
    from backup_admin.core.state import StateFolder
    from backup_admin.sources.postgres.source import PostgresSource

_STANDS = "Nothing was undone; the restore stands as it was. Mend that, then undo again."
_WHY_NOT = {
    Step.ROLLED_BACK: "failed and left everything as it was",
    Step.UNDONE: "was taken back already",
}


@dataclass(frozen=True, slots=True)
class Undoable:
    """A restore that can still be undone."""

    restore_id: RestoreId
    restored_at: datetime
    until: datetime
    places: tuple[str, ...]
    tables: tuple[str, ...] | None = None
    """What a restore of tables or rows did to each; None for one of whole databases and folders."""
    new_places: tuple[str, ...] = ()
    """Those of the places in which there was nothing before the restore: an undo takes away what it made."""


def undoable(state: StateFolder, clock: Clock) -> tuple[Undoable, ...]:
    """Return the restores that can be undone now, newest first."""
    found: list[Undoable] = []
    taken: set[str] = set()
    journals = list(open_journals(state, clock))
    for journal in reversed(journals):
        if journal.step is not Step.COMMITTED:
            continue
        if is_rows_journal(journal):
            if _until(journal) > clock.now() and not is_beneath_another(journal, journals):
                found.append(_undoable_rows(journal))
            continue
        whole = journal_parts(journal)
        places = tuple(part.live for part in whole)
        until = _until(journal)
        if until > clock.now() and taken.isdisjoint(places):
            made = tuple(part.live for part in whole if was_absent(journal, part))
            time = journal.lines[-1].time
            found.append(Undoable(journal.restore_id, time, until, places, new_places=made))
        taken.update(places)
    return tuple(found)


def _undoable_rows(journal: Journal) -> Undoable:
    tables = (journal.find(Step.COMMITTED) or {}).get("tables", ())
    done = tuple(f"{table}: {words}" for table, words in tables)
    return Undoable(journal.restore_id, restored_at(journal), _until(journal), (place_of(journal),), done)


def find_undoable(state: StateFolder, beginning: str, clock: Clock) -> Undoable:
    """Return the restore that can be undone and whose id begins so; without that, the newest one.

    Raises `RestoreRefused` when there is none, or an id is needed since the newest restore is not the one
    that would be undone; `Busy`, and `UsageError` when the beginning of an id fits several.
    """
    if not beginning:
        refuse_earlier(state, clock)
        return _newest(state, clock)
    found = [choice for choice in undoable(state, clock) if choice.restore_id.startswith(beginning)]
    if not found:
        raise RestoreRefused(
            f"There is no restore {beginning!r} in {state.root} that can be undone. Nothing was touched."
        )
    if len(found) > 1:
        raise UsageError(f"{len(found)} restores begin with {beginning!r}; give more of the id.")
    return found[0]


def _newest(state: StateFolder, clock: Clock) -> Undoable:
    """Return the newest restore; refuse to take an older one for it, which nobody may mean."""
    started = {journal.restore_id: journal for journal in open_journals(state, clock)}
    choices = sorted(undoable(state, clock), key=lambda one: started[one.restore_id].lines[0].time)
    if not choices:
        raise RestoreRefused(f"There is no restore in {state.root} that can be undone. Nothing was touched.")
    choice = choices[-1]
    newest = max(started.values(), key=lambda journal: journal.lines[0].time)
    failed = newest_attempt(state)
    if failed is not None and failed > newest.lines[0].time:
        why = f"The newest restore, of {show_time(failed)}, changed nothing"
    elif newest.restore_id != choice.restore_id:
        happened = _WHY_NOT.get(newest.step, "can no longer be undone")
        why = f"The newest restore, {newest.restore_id} of {show_time(newest.lines[0].time)}, {happened}"
    else:
        return choice
    raise RestoreRefused(
        f"{why}; the one before is {choice.restore_id} of {show_time(choice.restored_at)}, onto "
        f"{', '.join(choice.places)}. Name it to undo it. Nothing was touched."
    )


def undo_restore(
    state: StateFolder,
    restore_id: str | None,
    *,
    hooks: RestoreHooks,
    reporter: Reporter,
    clock: Clock,
) -> RestoreReport:
    """Put back what was live before a restore, the newest one by default.

    What was written since the restore is not merged: databases as they are now
    are kept beside the live ones until the restore's undo time is over. Of a restore of rows exactly those
    rows are put back, and only if nobody changed them since. Raises
    `RestoreRefused` when there is nothing to undo, a newer restore of the same place stands
    in between, or the newest is not the one that would be undone; `SourceError` when a
    server cannot be reached, and `Busy`.
    """
    with state.lock("restore"), state.lock("backup"):
        refuse_unfinished(state, clock)
        journal = _choose(state, restore_id, clock)
        if is_rows_journal(journal):
            reporter.stage("swap")
            with telling(_STANDS, (SourceMissing,)):
                return undo_rows(journal, state, hooks.servers)
        with telling(_STANDS):
            for part in journal_parts(journal, hooks.servers):
                if not isinstance(part, parts.TreePart):
                    part.check()
        reporter.stage("maintenance")
        journal.write(Step.UNDOING, kept_at=_until(journal).isoformat())
        return finish_undo(journal, state, hooks=hooks, reporter=reporter, clock=clock)


def finish_undo(
    journal: Journal, state: StateFolder, *, hooks: RestoreHooks, reporter: Reporter, clock: Clock
) -> RestoreReport:
    """Carry out an undo that the journal says was begun; safe to repeat."""
    try:
        close(state, journal.restore_id, hooks.maintenance)
        clock.sleep(hooks.drain_seconds)
        found = journal_parts(journal, hooks.servers)
        databases = [part for part in found if not isinstance(part, parts.TreePart)]
        for database in databases:
            database.keep_undone()
        reporter.stage("swap")
        unswap_all(journal, hooks.servers)
    except (BackupAdminError, OSError) as error:
        away = is_away(journal, hooks.servers)
        journal.write(Step.UNDOING, failed=str(error), away=away)
        return RestoreReport(
            journal.restore_id,
            "needs_attention",
            f"The restore could not be undone: {error} {what_next(state, away=away)}",
            error_code="needs_attention",
            exit_code=1,
        )
    reporter.stage("check")
    checks = tuple(line for part in databases for line in part.compare_with_old())
    kept = [part.undone_place() for part in databases if isinstance(part, PostgresPart)]
    journal.write(Step.UNDONE, checks=[asdict(line) for line in checks])
    reopen(state, hooks.maintenance)
    back = f"Everything is as it was before the restore of {show_moment(journal.lines[0].time)}."
    told = tell_kept("now", [place for place in kept if place], _until(journal))
    made = [part for part in found if was_absent(journal, part)]
    unchecked = [
        part
        for part in found
        if part not in made and not any(line.topic.startswith(f"{part.name}: ") for line in checks)
    ]
    gone = _name("Taken away, because it was not there before the restore", made)
    trusted = _name("Put back as it stood aside, without comparing it", unchecked)
    text = " ".join(filter(None, (back, told, gone, trusted)))
    return RestoreReport(journal.restore_id, "undone", text, checks)


def _name(what: str, found: Sequence[parts.Part]) -> str:
    """Say what became of some parts; nothing without any."""
    names = (f"{'folder' if isinstance(part, parts.TreePart) else 'database'} {part.name}" for part in found)
    return f"{what}: {', '.join(names)}." if found else ""


def remove_expired(
    state: StateFolder, clock: Clock, servers: Sequence[PostgresSource] = ()
) -> tuple[RestoreId, ...]:
    """Remove what restores keep beside the live state and nobody needs: their undo time is over.

    The same goes for what a restore that was put back could not remove. What still cannot be, on a server
    that is not there or by another's fault, is left for the next time and keeps nothing else.
    """
    removed = []
    with state.lock("restore"):
        for journal in open_journals(state, clock):
            if _keeps_in_vain(journal, clock):
                with suppress(BackupAdminError, OSError):
                    if is_rows_journal(journal):
                        remove_rows_record(journal, state)
                    _remove_kept(journal, clock, servers)
                    removed.append(journal.restore_id)
    return tuple(removed)


def _remove_kept(journal: Journal, clock: Clock, servers: Sequence[PostgresSource]) -> None:
    rolled_back = journal.step is Step.ROLLED_BACK
    kept: list[str] = []
    if rolled_back:
        left, kept = clear(journal, servers)
        if left:
            raise NeedsAttention(left[0])
    if not kept or kept_until(journal) <= clock.now():
        kept = []
        for part in journal_parts(journal, servers):
            parts.remove_staging(part)
    if rolled_back:  # it says how the restore ended, and goes on to
        journal.write(Step.ROLLED_BACK, left=[], kept=kept)
    else:
        journal.write(Step.CLEANED)


def _keeps_put_back(journal: Journal) -> bool:
    return bool((journal.find(Step.ROLLED_BACK) or {}).get("kept"))


def _keeps_in_vain(journal: Journal, clock: Clock) -> bool:
    if journal.step is Step.ROLLED_BACK:
        left = bool((journal.find(Step.ROLLED_BACK) or {}).get("left"))
        return left or (_keeps_put_back(journal) and kept_until(journal) <= clock.now())
    return journal.step in (Step.COMMITTED, Step.UNDONE) and _until(journal) <= clock.now()


def _choose(state: StateFolder, restore_id: str | None, clock: Clock) -> Journal:
    if restore_id is None:
        return open_journal(state, _newest(state, clock).restore_id, clock)
    journal = open_journal(state, restore_id, clock)
    if restore_id not in {choice.restore_id for choice in undoable(state, clock)}:
        raise RestoreRefused(
            f"Restore {restore_id} cannot be undone: it is {journal.step.value.replace('_', ' ')}, its time "
            "is over, or a newer restore of the same place must be undone first. Nothing was touched."
        )
    return journal


def _until(journal: Journal) -> datetime:
    return parse_time(str((journal.find(Step.COMMITTED) or {})["undo_until"]))
