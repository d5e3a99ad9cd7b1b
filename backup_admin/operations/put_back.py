"""Putting back what a restore swapped, from its journal alone."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from backup_admin.core.errors import BackupAdminError, JournalFailed, NeedsAttention
from backup_admin.operations import restore_parts as parts
from backup_admin.operations import tree_swap
from backup_admin.operations.journal import Journal, Step
from backup_admin.operations.maintenance import reopen
from backup_admin.operations.postgres_part import PostgresPart

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
    try:
        if not touched:
            _make_room(journal, hooks.servers)
        if not journal.has(Step.PUT_BACK):
            journal.write(Step.ROLLING_BACK, reason=reason)
            unswap_all(journal, hooks.servers)
            journal.write(Step.PUT_BACK)  # what putting back needs is removed from here on
        left = [text for part in journal_parts(journal, hooks.servers) for text in _remove(part)]
        journal.write(Step.ROLLED_BACK, left=left)
    except (BackupAdminError, OSError) as error:
        said = f"{error.strerror or error}." if isinstance(error, OSError) else str(error)
        with suppress(JournalFailed):
            journal.write(Step.ATTENTION, reason=said)
        return "needs_attention", " ".join(_attention(journal, state, said, touched=touched))
    reopen(state, hooks.maintenance)
    return "rolled_back", " ".join((_BACK if touched else _NOTHING, *left))


def _make_room(journal: Journal, servers: Sequence[PostgresSource]) -> None:
    """Remove what was staged beside the journal, which may have no room because of that."""
    for part in journal_parts(journal, servers):
        if isinstance(part, PostgresPart):
            part.forget_staged()


def _attention(journal: Journal, state: StateFolder, error: str, *, touched: bool) -> Iterator[str]:
    if touched and not journal.has(Step.PUT_BACK):
        yield f"It could not be put back: {error}"
    else:
        yield f"{_BACK if touched else _NOTHING} It could not be ended: {error}"
    if state.maintenance_flag.exists():
        yield "Writers are kept out; mend that, then run `backup-admin recover`."
    else:
        yield "Mend that, then run `backup-admin recover`."


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


def _parts_by_name(journal: Journal, servers: Sequence[PostgresSource]) -> dict[tuple[str, str], parts.Part]:
    return {(part["kind"], part["name"]): parts.part_from_json(part, servers) for part in _raw_parts(journal)}


def _raw_parts(journal: Journal) -> list[Mapping[str, Any]]:
    return list((journal.find(Step.STAGING) or {}).get("parts", []))


def _remove(part: parts.Part) -> list[str]:
    try:
        parts.remove_staging(part)
    except OSError as error:
        return [f"{part.work} could not be removed: {error.strerror}."]
    except BackupAdminError as error:
        return [f"What was made beside {part.live} could not be removed: {error}"]
    return []
