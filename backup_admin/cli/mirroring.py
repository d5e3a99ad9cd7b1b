"""The verb that keeps a second copy of a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from backup_admin.cli.opening import Surroundings, open_outside, open_place, plain_options
from backup_admin.core.shown import count_of, show_size
from backup_admin.operations.answers import INCOMPLETE, Answer
from backup_admin.operations.mirror import MirrorOptions, MirrorReport, mirror, why_kept
from backup_admin.operations.mirror_plan import MirrorPlan, plan_mirror

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.storage.base import Storage

_STOPPED = "The mirror is as it was before, or newer; run mirror again to finish."
_MOST_LISTED = 1000


@click.command("mirror")
@click.argument("storage")
@click.option("--to", "address", required=True, metavar="ADDRESS", help="The storage that holds the mirror.")
@click.option("--keep-removed", is_flag=True, help="Delete nothing in the mirror.")
@click.option("--remove-all", is_flag=True, help="Delete also what the history does not account for.")
@click.option("--read-back", is_flag=True, help="Read every copied pack once more, from the mirror.")
@click.option("--dry-run", is_flag=True, help="Say what would be copied and deleted; change nothing.")
@plain_options
@click.pass_obj
def mirror_verb(  # noqa: PLR0913  one parameter for each option
    surroundings: Surroundings,
    *,
    storage: str,
    address: str,
    keep_removed: bool,
    remove_all: bool,
    read_back: bool,
    dry_run: bool,
    state_dir: Path | None,
) -> Answer:
    """Copy a repository to a second storage, or what is new in it.

    The mirror is the same repository: every snapshot restores from its address alone. Needs no
    key. Ends with 3 when something could not be copied or must be looked at.
    """
    options = MirrorOptions(keep_removed=keep_removed, read_back=read_back, remove_all=remove_all)
    source = open_place(surroundings, storage, state_dir)
    target = open_place(surroundings, address, state_dir)
    with surroundings.reporting(_STOPPED) as reporter:
        plan = plan_mirror(source, target)
        if dry_run:
            return _answer_plan(source, target, plan, options)
        open_outside(surroundings, target, state_dir)
        state = open_outside(surroundings, source, state_dir)
        report = mirror(source, target, plan, reporter=reporter, state=state, options=options)
    return _answer(target, plan.repo_id, report, _lines(source, target, report), dry_run=False)


def _answer_plan(source: Storage, target: Storage, plan: MirrorPlan, options: MirrorOptions) -> Answer:
    doubt = why_kept(plan, source, target, options)
    kept = len(plan.gone) if doubt or options.keep_removed else 0
    would = MirrorReport(
        len(plan.objects) + len(plan.entries),
        plan.bytes,
        plan.behind,
        plan.mirror_head,
        len(plan.gone) - kept,
        kept,
        (doubt,) if doubt else (),
    )
    return _answer(target, plan.repo_id, would, _plan_lines(target, plan, would), dry_run=True)


def _answer(
    target: Storage, repo_id: str, report: MirrorReport, lines: Iterator[str], *, dry_run: bool
) -> Answer:
    shown = report.problems[:_MOST_LISTED]
    return Answer(
        result={
            "repository": repo_id,
            "mirror": target.label,
            "dry_run": dry_run,
            "objects": report.objects,
            "bytes": report.bytes_copied,
            "entries_behind": report.entries_behind,
            "head": report.head_seq,
            "deleted": report.deleted,
            "kept": report.kept,
            "problems": list(shown),
        },
        lines=lines,
        exit_code=0 if report.ok else INCOMPLETE,
        notes=[f"problem: {problem}" for problem in shown],
    )


def _plan_lines(target: Storage, plan: MirrorPlan, would: MirrorReport) -> Iterator[str]:
    if plan.in_sync and not would.deleted:
        yield f"{target.label} has all that the source has. Nothing would be done."
        return
    made = "would be made as a mirror" if plan.is_first else f"is {count_of(plan.behind, 'commit')} behind"
    yield f"{target.label} {made}. Nothing was changed."
    yield f"  Would copy {count_of(would.objects, 'object')} ({show_size(would.bytes_copied)})."
    if would.deleted:
        yield f"  Would delete {count_of(would.deleted, 'object')} that the source has no more."


def _lines(source: Storage, target: Storage, report: MirrorReport) -> Iterator[str]:
    copied = f"{count_of(report.objects, 'object')} ({show_size(report.bytes_copied)}) copied"
    if report.ok:
        yield f"{target.label} is a mirror of {source.label}: {copied}, {report.deleted:,} deleted."
    else:
        yield f"{target.label} needs attention: {copied}, {count_of(len(report.problems), 'problem')}."
    yield f"  History: {report.entries_behind:,} behind before, now at entry {report.head_seq:,}."
    if report.kept:
        yield f"  {count_of(report.kept, 'object')} that the source has no more stay."
