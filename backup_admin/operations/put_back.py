"""Putting back what a restore swapped, from its journal alone."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from backup_admin.core.errors import BackupAdminError, JournalFailed, NeedsAttention
from backup_admin.core.shown import show_moment
from backup_admin.operations import restore_parts as parts
from backup_admin.operations import tree_swap
from backup_admin.operations.journal import Journal, Step
from backup_admin.operations.maintenance import reopen
from backup_admin.operations.postgres_part import PostgresPart

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from backup_admin.core.state import StateFolder
    from backup_admin.operations.restore_report import RestoreHooks
    from backup_admin.sources.postgres.source import PostgresSource

_NOTHING = "Nothing live was changed."
_BACK = "Everything is as it was before the restore."


def put_back(journal: Journal, state: StateFolder, hooks: RestoreHooks, *, reason: str) -> tuple[str, str]:
    """Undo every swap of an unfinished restore and remove what was staged.

    Returns outcome and sentence: `rolled_back`, or `needs_attention` when a swap
    could not be undone or the journal not be written; then writers that were
    kept out stay out. Safe to repeat, also after a crash of itself at any point.
    """
    touched = bool(swaps(journal))
    lost: list[str] = []
    try:
        if not touched:
            _make_room(journal, hooks.servers)
        if not journal.has(Step.PUT_BACK):
            journal.write(Step.ROLLING_BACK, reason=reason)
            lost = _keep_undone(journal, hooks.servers)
            unswap_all(journal, hooks.servers)
            journal.write(Step.PUT_BACK)  # what putting back needs is removed from here on
        left, kept = clear(journal, hooks.servers)
        journal.write(Step.ROLLED_BACK, left=left, kept=kept)
    except (BackupAdminError, OSError) as error:
        said = f"{error.strerror or error}." if isinstance(error, OSError) else str(error)
        away = is_away(journal, hooks.servers)
        with suppress(JournalFailed):
            journal.write(Step.ATTENTION, reason=said, away=away)
        end = what_next(state, away=away)
        return "needs_attention", " ".join((*_attention(journal, said, touched=touched), end))
    reopen(state, hooks.maintenance)
    told = (*_tell_kept(journal, kept), *lost, *left)
    return "rolled_back", " ".join((_BACK if touched else _NOTHING, *told))


def ended(reason: object, message: str) -> str:
    """Return why a restore ended and what `put_back` said of it, nothing twice."""
    said = str(reason)
    return f"{said.removesuffix(f' {_NOTHING}') if _NOTHING in message else said} {message}"


def clear(journal: Journal, servers: Sequence[PostgresSource]) -> tuple[list[str], list[str]]:
    """Remove what a restore that was put back does not need; return what could not be, and what is kept.

    Kept are databases that had been put in the place of others: programs may have written there. Raises
    `NeedsAttention` when what was live does not stand in its place.
    """
    left: list[str] = []
    kept: list[str] = []
    for part in journal_parts(journal, servers):
        try:
            place = part.keep_put_back() if isinstance(part, PostgresPart) else ""
            if place:
                kept.append(place)
            elif isinstance(part, PostgresPart):
                parts.remove_work(part)
            else:
                parts.remove_staging(part)
        except NeedsAttention:
            raise
        except OSError as error:
            left.append(f"{part.work} could not be removed: {error.strerror}.")
        except BackupAdminError as error:
            left.append(f"What was made beside {part.live} could not be removed: {error}")
    return left, kept


def kept_until(journal: Journal) -> datetime:
    """Return until when a restore that was put back keeps what it had put in the place of others."""
    line = next(line for line in reversed(journal.lines) if line.step is Step.PUT_BACK)
    planned = journal.find(Step.PLANNED) or {}
    return line.time + timedelta(hours=float(planned.get("undo_hours", 0)))


def is_away(journal: Journal, servers: Sequence[PostgresSource]) -> bool:
    """Say whether a server that a restore needs does not answer now."""
    try:
        found = journal_parts(journal, servers)
    except NeedsAttention:
        return False
    return not all(part.is_reachable() for part in found if isinstance(part, PostgresPart))


def tell_kept(when: str, places: Sequence[str], until: datetime) -> str:
    """Say where what was live is kept, how long, and who removes it; nothing without any place."""
    if not places:
        return ""
    return (
        f"What was live until {when} is kept as {', '.join(places)} until {show_moment(until)}; then "
        "`backup-admin recover`, or an app's worker, removes it."
    )


def _tell_kept(journal: Journal, kept: Sequence[str]) -> list[str]:
    return [tell_kept("then", kept, kept_until(journal))] if kept else []


def _keep_undone(journal: Journal, servers: Sequence[PostgresSource]) -> list[str]:
    """Keep what is live before it is put back, as far as that can be; return what could not be."""
    swapped = {(data["kind"], data["name"]) for data in swaps(journal)}
    lost = []
    for part in journal_parts(journal, servers):
        if isinstance(part, PostgresPart) and (parts.kind_of(part), part.name) in swapped:
            try:
                part.keep_undone()
            except (BackupAdminError, OSError) as error:
                lost.append(f"What was live in {part.live} until then could not be kept: {error}")
    return lost


def _make_room(journal: Journal, servers: Sequence[PostgresSource]) -> None:
    """Remove what was staged beside the journal, which may have no room because of that."""
    for part in journal_parts(journal, servers):
        if isinstance(part, PostgresPart):
            part.forget_staged()


def _attention(journal: Journal, error: str, *, touched: bool) -> Iterator[str]:
    if touched and not journal.has(Step.PUT_BACK):
        yield f"It could not be put back: {error}"
    else:
        yield f"{_BACK if touched else _NOTHING} It could not be ended: {error}"


def what_next(state: StateFolder, *, away: bool) -> str:
    """Say what a restore that stopped waits for, and who goes on."""
    kept_out = state.maintenance_flag.exists()
    if away:
        goes_on = (
            "When the server answers again, an app's worker goes on by itself, or `backup-admin recover`."
        )
        return f"Writers are kept out. {goes_on}" if kept_out else goes_on
    return f"{'Writers are kept out; mend' if kept_out else 'Mend'} that, then run `backup-admin recover`."


def unswap_all(journal: Journal, servers: Sequence[PostgresSource]) -> None:
    """Undo every swap the journal holds, the last first; raise when one cannot be."""
    by_name = _parts_by_name(journal, servers)
    usable = (journal.find(Step.SAFETY_BACKUP) or {}).get("usable", {})
    for data in reversed(swaps(journal)):
        part = by_name[data["kind"], data["name"]]
        if isinstance(part, parts.TreePart):
            tree_swap.unswap_tree(part, tree_swap.tree_swap_from_json(data))
        else:
            part.unswap(live_usable=usable[part.name])


def swap_again(journal: Journal, servers: Sequence[PostgresSource]) -> None:
    """Carry out every swap the journal holds once more; those that are done stay so."""
    by_name = _parts_by_name(journal, servers)
    usable = (journal.find(Step.SAFETY_BACKUP) or {}).get("usable", {})
    for data in swaps(journal):
        part = by_name[data["kind"], data["name"]]
        if isinstance(part, parts.TreePart):
            tree_swap.swap_tree(part, tree_swap.tree_swap_from_json(data))
        else:
            part.swap_again(live_usable=usable[part.name])


def swaps(journal: Journal) -> list[Mapping[str, Any]]:
    """Return what was written before each swap, in order, without those known not to have happened."""
    untouched = {
        (line.data["kind"], line.data["name"]) for line in journal.lines if line.step is Step.NOT_SWAPPED
    }
    begun = [line.data for line in journal.lines if line.step is Step.SWAPPING]
    return [data for data in begun if (data["kind"], data["name"]) not in untouched]


def journal_parts(journal: Journal, servers: Sequence[PostgresSource] = ()) -> list[parts.Part]:
    """Return the parts a restore staged; raise `NeedsAttention` for an unknown kind."""
    try:
        return [parts.part_from_json(part, servers) for part in _raw_parts(journal)]
    except (KeyError, TypeError) as error:
        raise NeedsAttention(f"{journal.path} names a part this version does not know.") from error


def was_absent(journal: Journal, part: parts.Part) -> bool:
    """Say whether there was nothing in the place of a part before the restore."""
    absent = (journal.find(Step.SAFETY_BACKUP) or {}).get("absent", ())
    return [parts.kind_of(part), part.name] in absent


def _parts_by_name(journal: Journal, servers: Sequence[PostgresSource]) -> dict[tuple[str, str], parts.Part]:
    return {(part["kind"], part["name"]): parts.part_from_json(part, servers) for part in _raw_parts(journal)}


def _raw_parts(journal: Journal) -> list[Mapping[str, Any]]:
    return list((journal.find(Step.STAGING) or {}).get("parts", []))
