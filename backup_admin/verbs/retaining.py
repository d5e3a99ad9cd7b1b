"""The verbs that keep snapshots and clear up behind them: prune, pin, unpin."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from backup_admin.core.clock import parse_time
from backup_admin.core.errors import StorageDenied, UsageError
from backup_admin.core.shown import count_of, show_moment, show_size, show_text
from backup_admin.operations.answers import Answer
from backup_admin.operations.pinning import pin_snapshot, unpin_snapshot
from backup_admin.operations.prune import PruneOptions, PruneReport, prune
from backup_admin.operations.retention import parse_span
from backup_admin.verbs.base import STORAGE, Work, shared_verb

if TYPE_CHECKING:
    from collections.abc import Iterator

_STOPPED = "Snapshots are intact; the next prune finishes."
_INCOMPLETE = 3


@shared_verb(
    "prune",
    STORAGE,
    click.option(
        "--max-unused",
        default="5%",
        metavar="PERCENT",
        help="How much of the storage may stay taken by what nobody needs.  [5%]",
    ),
    click.option(
        "--unknown-now", is_flag=True, help="Do not wait a day to delete what interrupted runs left behind."
    ),
    click.option("--dry-run", is_flag=True, help="Say what would be deleted; change nothing."),
    changes=True,
)
def prune_verb(work: Work, /, *, max_unused: str, unknown_now: bool, dry_run: bool) -> Answer:
    """Delete data that no snapshot needs any more.

    Safe beside running backups and restores, and to stop at any time. Ends with 3
    when the storage did not let all of it be deleted, with 6 when it let nothing be.
    """
    options = PruneOptions(_percent(max_unused), every_unknown=unknown_now, dry_run=dry_run)
    with work.reporting(_STOPPED) as reporter:
        report = prune(
            work.repository, options, actor=work.actor, state=work.state, reporter=reporter, clock=work.clock
        )
    return Answer(
        result={
            "dry_run": report.dry_run,
            "snapshots": report.snapshots,
            "packs_deleted": report.packs_taken,
            "packs_rewritten": report.packs_rewritten,
            "packs_kept": report.packs_kept,
            "bytes_freed": report.bytes_freed,
            "bytes_unused": report.bytes_unused,
            "wal_files_deleted": report.wal_files,
            "objects_deleted": report.objects_deleted,
            "objects_left": report.objects_left,
            "objects_waiting": report.objects_waiting,
            "objects_locked": report.locked.objects,
            "bytes_locked": report.locked.bytes,
            "locked_until": report.locked.until and report.locked.until.isoformat(),
            "notices": report.notices,
        },
        lines=_prune_lines(report),
        exit_code=_status(report),
        notes=[f"note: {notice}" for notice in report.notices],
    )


def _status(report: PruneReport) -> int:
    if not report.refused:
        return 0
    return _INCOMPLETE if report.objects_deleted else StorageDenied.exit_code


def _percent(text: str) -> float:
    try:
        return float(text.removesuffix("%"))
    except ValueError as error:
        raise UsageError(f"{text!r} is no percentage; write it as 5% or 0. Nothing was changed.") from error


def _prune_lines(report: PruneReport) -> Iterator[str]:
    about = (
        f"{count_of(report.packs_taken, 'pack')}, {report.packs_rewritten} of them after their needed part"
    )
    if report.dry_run:
        yield f"{about} was stored anew, would be deleted: {show_size(report.bytes_freed)} freed. "
        yield "Nothing was changed."
    elif report.packs_taken or report.objects_deleted:
        yield f"{about} was stored anew, are not needed any more: {show_size(report.bytes_freed)} freed."
        yield f"{count_of(report.objects_deleted, 'object')} deleted."
    else:
        yield "Nothing was to be deleted."
    if report.wal_files:
        yield f"{count_of(report.wal_files, 'archived WAL file')} older than every base backup among it."
    if report.locked.until is not None:
        yield (
            f"Still locked: {count_of(report.locked.objects, 'object')} of what goes, "
            f"{show_size(report.locked.bytes)}, the last until {report.locked.until:%Y-%m-%d}. They lie "
            "in the bucket as old versions and cost money until its lifecycle rule removes them."
        )
    yield (
        f"Kept for {count_of(report.snapshots, 'snapshot')}: {count_of(report.packs_kept, 'pack')}, "
        f"in which {show_size(report.bytes_unused)} are unused."
    )
    if report.objects_waiting:
        yield (
            f"{count_of(report.objects_waiting, 'object')} that nothing names go a day after they were "
            "seen first: --unknown-now deletes them at once."
        )


@shared_verb(
    "pin",
    click.argument("snapshot"),
    STORAGE,
    click.option(
        "--until", default="", metavar="TIME", help="Keep it up to a time: 2027-01-31 or with 18:00."
    ),
    click.option("--for", "span", default="", metavar="SPAN", help="Keep it so long: 7d, 12h, 1y6m."),
    click.option("--reason", default="", metavar="TEXT", help="Why it is kept."),
    changes=True,
)
def pin_verb(work: Work, /, *, snapshot: str, until: str, span: str, reason: str) -> Answer:
    """Keep a snapshot: it cannot be forgotten until the pin runs out or is taken away.

    SNAPSHOT is an id, the beginning of one, or `latest`. Without a time it stays for ever.
    """
    if until and span:
        raise UsageError("Give --until or --for, not both. Nothing was pinned.")
    now = work.clock.now()
    end = _time(until) if until else parse_span(span).after(now) if span else None
    if end is not None and end <= now:
        raise UsageError(f"{until or span} is over already. Nothing was pinned.")
    found = work.repository.find_id(snapshot)
    pin_snapshot(work.repository, found, until=end, reason=reason, actor=work.actor)
    ends = "until it is unpinned" if end is None else f"until {show_moment(end)}"
    return Answer(
        result={"snapshot": found, "until": end and end.isoformat(), "reason": reason},
        lines=[f"Snapshot {found} is kept {ends}{': ' + show_text(reason) if reason else ''}."],
    )


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        return parse_time(moment.astimezone().isoformat())
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{text!r} is no time; write it as 2027-01-31 or 2027-01-31T18:00.") from error


@shared_verb("unpin", click.argument("snapshot"), STORAGE, changes=True)
def unpin_verb(work: Work, /, *, snapshot: str) -> Answer:
    """Take all pins of a snapshot away; it may be forgotten again."""
    found = work.repository.find_id(snapshot)
    count = unpin_snapshot(work.repository, found, actor=work.actor)
    line = f"{count_of(count, 'pin')} of snapshot {found} taken away." if count else f"{found} is not pinned."
    return Answer(result={"snapshot": found, "pins": count}, lines=[line])
