"""The verb that mends a damaged repository."""

from __future__ import annotations

import getpass
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from backup_admin.cli.given import find_secrets
from backup_admin.cli.named_sources import make_sources
from backup_admin.cli.opening import (
    Surroundings,
    actor,
    open_given,
    open_outside,
    open_place,
    repository_options,
)
from backup_admin.core.errors import Damaged, HistoryChanged, NotARepository, RepositoryError, WrongKey
from backup_admin.core.shown import count_of
from backup_admin.operations.answers import Answer
from backup_admin.operations.key_slots import check_slots
from backup_admin.operations.rebuild import RepairReport, repair
from backup_admin.operations.reopen import mend_opening, plan_opening
from backup_admin.operations.repair import Finder, RepairPlan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.core.state import StateFolder
    from backup_admin.repository.repository import Repository

_DAMAGED = 4
_STOPPED = "Nothing was deleted; run repair again to finish."


@dataclass(frozen=True, slots=True)
class _Opening:
    """How the repository could be opened, and what had to be done, or would have to be."""

    repository: Repository | None
    state: StateFolder
    found: tuple[str, ...] = ()
    done: tuple[str, ...] = ()


@click.command("repair")
@click.argument("storage")
@click.option("--files", multiple=True, metavar="NAME=DIR", help="A folder that may still hold what is lost.")
@click.option("--sqlite", multiple=True, metavar="NAME=FILE", help="A database that may; both as for `run`.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="As for `run`.")
@click.option("--history", is_flag=True, help="Also write a damaged history anew.")
@click.option("--dry-run", is_flag=True, help="Say what was found and would be done; change nothing.")
@repository_options
@click.pass_obj
def repair_verb(  # noqa: PLR0913  one parameter for each option
    surroundings: Surroundings,
    *,
    storage: str,
    files: tuple[str, ...],
    sqlite: tuple[str, ...],
    exclude: tuple[str, ...],
    history: bool,
    dry_run: bool,
    key_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Mend what is damaged or missing, as far as it can be; deletes nothing.

    Reads everything. Ends with 0 when every snapshot is whole, with 4 when some stay
    damaged: they are kept, and what they lack is named.
    """
    make_sources(files, sqlite, exclude=exclude)
    opening = _open(surroundings, storage, key_file, state_dir, history=history, dry_run=dry_run)
    repository, state = opening.repository, opening.state
    if repository is None:
        return _answer_unopened(opening)
    with surroundings.reporting(_STOPPED) as reporter:
        if dry_run:
            plan = Finder(repository, state.scratch, reporter).find()
            return _answer_plan(repository, plan, opening)
        pinned = [path.absolute() for path in (state.root, key_file) if path is not None]
        report = repair(
            repository,
            make_sources(files, sqlite, exclude=exclude, pinned=pinned),
            actor=actor(),
            state=state,
            reporter=reporter,
            clock=surroundings.clock,
        )
    return _answer_report(repository, report, opening)


def _open(
    surroundings: Surroundings,
    address: str,
    key_file: Path | None,
    state_dir: Path | None,
    *,
    history: bool,
    dry_run: bool,
) -> _Opening:
    """Open the repository; where that fails, mend what keeps it from opening."""
    try:
        repository, state = open_given(surroundings, address, key_file, state_dir)
        repository.require_history()
        return _Opening(repository, state)
    except (NotARepository, Damaged, WrongKey, HistoryChanged) as error:
        failure = error
    storage = open_place(surroundings, address, state_dir)
    state = open_outside(surroundings, storage, state_dir)
    secrets = [given.secret for given in find_secrets(key_file, surroundings.environment, _ask(surroundings))]
    opening = plan_opening(storage, secrets, failure, state=state, clock=surroundings.clock)
    if dry_run:
        return _Opening(None, state, tuple(opening.found()))
    done = mend_opening(storage, opening, history=history, state=state)
    repository, _ = open_given(surroundings, address, key_file, state_dir)
    return _Opening(repository, state, tuple(opening.found()), tuple(done))


def _answer_unopened(opening: _Opening) -> Answer:
    return Answer(
        result={"dry_run": True, "found": list(opening.found), "done": [], "damaged": [], "problems": []},
        lines=["The repository cannot be opened before this is mended. Nothing was changed.", *opening.found],
        exit_code=_DAMAGED,
    )


def _answer_plan(repository: Repository, plan: RepairPlan, opening: _Opening) -> Answer:
    found = [*opening.found, *describe_found(plan)]
    line = "Nothing is damaged." if not found and not plan.damaged else "This is what a repair would mend:"
    work = [
        *found,
        *_describe_work(plan),
        *(["Nothing was changed."] if found or plan.damaged else []),
    ]
    return _answer(repository, plan, found, dry_run=True, done=(), lines=[line, *work])


def _answer_report(repository: Repository, report: RepairReport, opening: _Opening) -> Answer:
    found = [*opening.found, *describe_found(report.found)]
    done = [*opening.done, *report.done]
    lines = [*(f"Found: {text}" for text in found), *(f"Done: {text}" for text in done)]
    if not found and not done:
        lines = ["Nothing is damaged." if report.ok else "Nothing more can be mended."]
    elif report.ok:
        lines.append("Every snapshot is whole.")
    return _answer(repository, report.left, found, dry_run=False, done=done, lines=lines)


def _answer(
    repository: Repository,
    plan: RepairPlan,
    found: list[str],
    *,
    dry_run: bool,
    done: list[str] | tuple[str, ...],
    lines: list[str],
) -> Answer:
    problems = _other_problems(repository)
    if plan.damaged:
        one = len(plan.damaged) == 1
        stay = "would stay" if dry_run else "stays" if one else "stay"
        kept = "it is kept, and all else in it" if one else "they are kept, and all else in them"
        lines.append(
            f"{count_of(len(plan.damaged), 'snapshot')} {stay} damaged; {kept}"
            " can "
            "be restored. A folder or database that still holds what is lost heals them: --files, --sqlite."
        )
    lost = [text for snapshot, losses in plan.damaged.items() for text in losses.lines(snapshot)]
    return Answer(
        result={
            "repository": repository.repo_id,
            "dry_run": dry_run,
            "found": found,
            "done": list(done),
            "damaged": [_describe_losses(snapshot, plan) for snapshot in plan.damaged],
            "problems": problems,
        },
        lines=lines,
        exit_code=_DAMAGED if plan.damaged or problems or (dry_run and plan.is_needed) else 0,
        notes=[f"problem: {text}" for text in (*problems, *lost)],
    )


def describe_found(plan: RepairPlan) -> Iterator[str]:
    """Say what is damaged, object by object."""
    yield from plan.lost_indexes.values()
    for pack in plan.bad:
        chunks = sum(len(frame.spans) for frame in pack.frames)
        kept = (
            f" {len(pack.saved):,} of its {count_of(chunks, 'chunk')} can be saved." if pack.is_there else ""
        )
        yield f"{pack.message.removesuffix('.')}.{kept}"
    if plan.returned:
        yield f"{count_of(len(plan.returned), 'pack')} given up before can be read again."


def _describe_work(plan: RepairPlan) -> Iterator[str]:
    if plan.lost_indexes or plan.adopted:
        yield f"Would list {count_of(len(plan.adopted), 'whole pack')} in a new index object."
    if plan.bad:
        yield (
            f"Would copy what is there of {count_of(len(plan.bad), 'damaged pack')} to quarantine/, store "
            "its sound chunks anew, and take it off the books."
        )
    if plan.is_needed and set(plan.damaged) != plan.noted:
        yield "Would note which snapshots stay damaged, so that no backup builds on them."


def _describe_losses(snapshot: str, plan: RepairPlan) -> dict[str, Any]:
    losses = next(losses for name, losses in plan.damaged.items() if name == snapshot)
    return {
        "snapshot": snapshot,
        "count": losses.count,
        "losses": [{"what": loss.what, "why": loss.why} for loss in losses.named],
    }


def _other_problems(repository: Repository) -> list[str]:
    """Return what a repair cannot mend: keys are made by who holds the secrets."""
    problems = [
        f"{text} `keys add` makes a new one, `keys remove` takes it away." for text in check_slots(repository)
    ]
    try:
        repository.verify_history()
    except RepositoryError as error:
        problems.append(f"{error} Later entries hold all that is needed; only the past cannot be proven.")
    return problems


def _ask(surroundings: Surroundings) -> Any:
    if not surroundings.is_terminal:
        return None
    return lambda: getpass.getpass("Application key or recovery key: ", stream=sys.stderr)
