"""The verbs that clear a storage of what interrupted work left, and build the local index anew."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from backup_admin.cli.opening import Surroundings, open_given, open_place, plain_options, repository_options
from backup_admin.core.clock import format_time
from backup_admin.core.errors import Damaged
from backup_admin.core.shown import columns, count_of, show_size, show_text, show_time
from backup_admin.operations.answers import INCOMPLETE, Answer
from backup_admin.operations.cleaning import CleaningPlan, clean, plan_cleaning
from backup_admin.operations.reindexing import ReindexReport, reindex

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.repository.repository import Repository
    from backup_admin.storage.base import Leftover

_PART_CLEANED = "What was removed is gone; run it again for the rest."


@click.command("clean")
@click.argument("storage")
@click.option(
    "--older-than",
    "hours",
    type=click.FloatRange(min=0),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="Remove what was begun so long ago. What runs now may be writing: 0 only when nothing does.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be removed; remove nothing.")
@plain_options
@click.pass_obj
def clean_verb(
    surroundings: Surroundings,
    *,
    storage: str,
    hours: float,
    dry_run: bool,
    state_dir: Path | None,
) -> Answer:
    """Remove what interrupted writes left: unfinished uploads, temporary files, objects of tests.

    Needs no key, and never touches an object of a repository: data that no snapshot
    needs any more is deleted by `prune`. Ends with 3 when something could not be removed.
    """
    place = open_place(surroundings, storage, state_dir)
    plan = plan_cleaning(place, now=surroundings.clock.now(), older_than=timedelta(hours=hours))
    left: tuple[Leftover, ...] = ()
    if not dry_run:
        with surroundings.reporting(_PART_CLEANED) as reporter:
            left = clean(place, plan, reporter=reporter)
    return Answer(
        result={
            "storage": place.label,
            "dry_run": dry_run,
            "removed": [_describe(one) for one in plan.remove if not dry_run and one not in left],
            "planned": [_describe(one) for one in plan.remove],
            "young": [_describe(one) for one in plan.young],
            "left": [_describe(one) for one in left],
        },
        lines=_clean_lines(plan, left, dry_run=dry_run),
        exit_code=INCOMPLETE if left else 0,
        notes=_clean_notes(plan, left),
    )


def _describe(leftover: Leftover) -> dict[str, Any]:
    return {"name": leftover.name, "size": leftover.size, "since": format_time(leftover.since)}


def _clean_lines(plan: CleaningPlan, left: tuple[Leftover, ...], *, dry_run: bool) -> Iterator[str]:
    rows = [(show_size(one.size), show_time(one.since), show_text(one.name)) for one in plan.remove]
    yield from columns(rows, right=(0,))
    if not plan.remove:
        yield "Nothing is left over."
    elif dry_run:
        what = f"{count_of(len(plan.remove), 'leftover')} ({show_size(plan.size)})"
        yield f"Would remove {what}. Nothing was removed."
    else:
        size = plan.size - sum(one.size for one in left)
        gone = count_of(len(plan.remove) - len(left), "leftover")
        yield f"Removed {gone} ({show_size(size)})."


def _clean_notes(plan: CleaningPlan, left: tuple[Leftover, ...]) -> list[str]:
    notes = [f"problem: {show_text(one.name)} could not be removed." for one in left]
    if plan.young:
        notes.append(f"note: {count_of(len(plan.young), 'leftover')} too young, maybe still being written.")
    if plan.strange:
        notes.append(f"note: {count_of(len(plan.strange), 'leftover')} not ours, and left alone.")
    return notes


@click.command("reindex")
@click.argument("storage")
@repository_options
@click.pass_obj
def reindex_verb(
    surroundings: Surroundings, *, storage: str, key_file: Path | None, state_dir: Path | None
) -> Answer:
    """Build the local copy of the index anew from the storage, and compare both.

    Changes nothing in the storage. What is damaged there is mended by `repair`, which
    also makes an index from the packs. The list of backups that an app shows is learnt
    anew by `flask backup reindex`. Ends with 4 when something that is named is missing.
    """
    repository, state = open_given(surroundings, storage, key_file, state_dir)
    with surroundings.reporting() as reporter:
        report = reindex(repository, state=state, reporter=reporter)
    return Answer(
        result={
            "repository": repository.repo_id,
            "indexes": report.indexes,
            "packs": report.packs,
            "chunks": report.chunks,
            "lost_indexes": [
                {"name": name, "message": message} for name, message in report.lost_indexes.items()
            ],
            "missing_packs": list(report.missing_packs),
            "unnamed_indexes": report.unnamed_indexes,
            "unnamed_packs": report.unnamed_packs,
        },
        lines=_reindex_lines(repository, report),
        exit_code=0 if report.ok else Damaged.exit_code,
        notes=_reindex_notes(report),
    )


def _reindex_lines(repository: Repository, report: ReindexReport) -> Iterator[str]:
    about = (
        f"{count_of(report.indexes, 'index object')}, {count_of(report.packs, 'pack')}, "
        f"{count_of(report.chunks, 'chunk')}"
    )
    yield f"The local index of {repository.label} was built anew: {about}."
    if not report.ok:
        yield "The storage lacks what its index names. Look with: backup-admin repair STORAGE --dry-run"
    yield "To learn the list of backups of an app anew: flask backup reindex"


def _reindex_notes(report: ReindexReport) -> list[str]:
    notes = [f"problem: {message}" for message in report.lost_indexes.values()]
    notes += [f"problem: Pack {pack} is missing or cut short." for pack in report.missing_packs]
    if report.unnamed_indexes or report.unnamed_packs:
        way = "`prune` deletes them in a day" if report.ok else "`repair` takes back what is needed"
        notes.append(
            f"note: {count_of(report.unnamed_indexes, 'index object')} and "
            f"{count_of(report.unnamed_packs, 'pack')} named by nothing; {way}."
        )
    return notes
