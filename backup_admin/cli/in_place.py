"""Restores onto what is live, and taking them back. They need no app, queue or database."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backup_admin.cli.named_sources import make_sources
from backup_admin.cli.opening import (
    Surroundings,
    actor,
    choose,
    open_given,
    open_state,
    plain_options,
)
from backup_admin.cli.printing import say
from backup_admin.core.errors import Busy, Cancelled, NeedsAttention, RestoreRefused, SourceDenied, UsageError
from backup_admin.core.ids import RestoreId, new_ulid
from backup_admin.core.telling import telling
from backup_admin.operations.answers import (
    Answer,
)
from backup_admin.operations.attempts import attempting
from backup_admin.operations.journal import refuse_earlier
from backup_admin.operations.layout import check_layout
from backup_admin.operations.plan_restore import plan_restore
from backup_admin.operations.plans import Selection
from backup_admin.operations.recover import recover
from backup_admin.operations.restore import carry_out
from backup_admin.operations.restore_answers import (
    answer_dry_run,
    answer_report,
    blocks,
    describe_plan,
    issue_lines,
    plan_lines,
    refusal,
    undo_lines,
)
from backup_admin.operations.restore_report import RestoreHooks, RestoreTools
from backup_admin.operations.results import SourceSet
from backup_admin.operations.undo import find_undoable, remove_expired, undo_restore
from backup_admin.operations.validate import validate_restore
from backup_admin.sources.files import FileSource
from backup_admin.storage.open import local_folder

if TYPE_CHECKING:
    from backup_admin.core.state import StateFolder
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import Manifest, Snapshot

_COMMAND = "backup-admin"
_STOPPED_LIVE = "Nothing live was changed."
_YES = frozenset({"y", "yes"})


@dataclass(frozen=True, slots=True)
class Request:
    """A restore in place as it was asked for; `places` are folders, SQLite files and addresses of servers."""

    snapshot: str
    at: str
    storage: str
    places: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    as_superuser: bool
    yes: bool
    dry_run: bool
    key_file: Path | None
    state_dir: Path | None


@dataclass(frozen=True, slots=True)
class _Consent:
    """How far a restore in place may go: ask before it acts, or never act."""

    ask: bool
    dry_run: bool


def restore_in_place(surroundings: Surroundings, request: Request) -> Answer:
    """Restore onto the named folders and databases, after a plan was shown and agreed to."""
    given = make_sources(*request.places)
    servers = tuple(replace(one, as_superuser=request.as_superuser) for one in given.postgres)
    if not any(request.places):
        raise UsageError(
            "Name what is to be restored: --files NAME=DIR, --sqlite NAME=FILE, --postgres NAME=ADDRESS."
        )
    if not (request.yes or request.dry_run or surroundings.is_terminal):
        raise UsageError("There is no terminal to ask for consent: give --yes. Nothing was touched.")
    repository, state = open_given(surroundings, request.storage, request.key_file, request.state_dir)
    with nullcontext() if request.dry_run else attempting(state, surroundings.clock):
        return _restore_from(surroundings, request, replace(given, postgres=servers), repository, state)


def _restore_from(
    surroundings: Surroundings,
    request: Request,
    given: SourceSet,
    repository: Repository,
    state: StateFolder,
) -> Answer:
    if not request.dry_run:
        refuse_earlier(state, surroundings.clock)
    found = repository.snapshot(choose(surroundings, repository, request.snapshot, request.at))
    pinned = [request.key_file, local_folder(repository.storage), state.root]
    targets = _targets(
        repository.manifest(found.id),
        given,
        [path for path in pinned if path is not None],
    )
    consent = _Consent(ask=not request.yes, dry_run=request.dry_run)
    return _restore_in_place(surroundings, repository, found, targets, state, consent)


def _targets(manifest: Manifest, given: SourceSet, pinned: list[Path]) -> SourceSet:
    """Return the live targets with what must stay where it is.

    What the backup left out stays as it is now. So does each database the snapshot
    holds by itself: it goes back as a database, never as a file of a folder.
    """
    databases = [Path(entry.path) for entry in manifest.databases if entry.tree is None]
    databases += [source.path for source in given.databases]
    trees = []
    for source in given.files:
        root = manifest.files_root(source.name)
        inside = [] if root is None else _moved(databases, Path(root.path), source.root)
        exclude = () if root is None else root.excluded
        trees.append(FileSource(source.name, source.root, exclude, (*pinned, *databases, *inside)))
    return SourceSet(files=tuple(trees), databases=given.databases, postgres=given.postgres)


def _moved(databases: list[Path], before: Path, now: Path) -> list[Path]:
    """Return where databases lie now when their folder was moved as a whole."""
    return [now / path.relative_to(before) for path in databases if path.is_relative_to(before)]


def _restore_in_place(
    surroundings: Surroundings,
    repository: Repository,
    snapshot: Snapshot,
    targets: SourceSet,
    state: StateFolder,
    consent: _Consent,
) -> Answer:
    check_layout(repository.storage, targets)
    selection = Selection(
        files=tuple(source.name for source in targets.files),
        databases=tuple(targets.database_names()),
    )
    with surroundings.reporting(_STOPPED_LIVE) as reporter:
        plan = plan_restore(repository, snapshot.id, targets, selection, state=state, reporter=reporter)
        issues = validate_restore(plan, repository, targets, state=state, clock=surroundings.clock)
    if consent.dry_run:
        return answer_dry_run(plan, issues, snapshot)
    for line in (*plan_lines(plan, snapshot), *issue_lines(issues)):
        say(line)
    if blocks(issues):
        refuse_earlier(state, surroundings.clock)  # who waits for another restore is told so by the status
        raise RestoreRefused(refusal(issues))
    if consent.ask:
        ask("Restore this now?")
    with surroundings.reporting(_STOPPED_LIVE, patient=True) as reporter:
        tools = RestoreTools(state, reporter, surroundings.clock)
        restore_id = RestoreId(new_ulid(surroundings.clock.now()))
        report = carry_out(plan, repository, targets, restore_id=restore_id, actor=actor(), tools=tools)
    return answer_report(report, describe_plan(plan, issues, dry_run=False), _COMMAND)


def ask(question: str) -> None:
    """Ask a person, who has to type yes; raise `Cancelled`."""
    say(f"{question} Type yes to go on:")
    try:
        answer = input()
    except EOFError:
        answer = ""
    if answer.strip().lower() not in _YES:
        raise Cancelled("Not confirmed. Nothing was touched.")


# --- undo and recover --------------------------------------------------------


_servers = click.option(
    "--postgres",
    multiple=True,
    metavar="NAME=ADDRESS",
    help="The password of a PostgreSQL database, when it was in the address: none is kept.",
)


@click.command("undo")
@click.argument("restore", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
@_servers
@plain_options
@click.pass_obj
def undo_verb(
    surroundings: Surroundings,
    *,
    restore: str | None,
    yes: bool,
    postgres: tuple[str, ...],
    state_dir: Path | None,
) -> Answer:
    """Take back a restore in place, the newest one by default.

    Needs neither the storage nor a key: the state from before was kept.
    """
    hooks = RestoreHooks(servers=make_sources((), (), postgres).postgres)
    if not (yes or surroundings.is_terminal):
        raise UsageError("There is no terminal to ask for consent: give --yes. Nothing was touched.")
    state = open_state(surroundings, state_dir)
    choice = find_undoable(state, restore or "", surroundings.clock)
    for line in undo_lines(choice):
        say(line)
    if not yes:
        ask("Undo this now?")
    given = telling("A password is given with --postgres NAME=ADDRESS.", (SourceDenied,))
    with surroundings.reporting(_STOPPED_LIVE, patient=True) as reporter, given:
        report = undo_restore(
            state, choice.restore_id, hooks=hooks, reporter=reporter, clock=surroundings.clock
        )
    return answer_report(report, {}, _COMMAND)


@click.command("recover")
@_servers
@plain_options
@click.pass_obj
def recover_verb(surroundings: Surroundings, *, postgres: tuple[str, ...], state_dir: Path | None) -> Answer:
    """Finish or undo a restore in place that was interrupted.

    Safe to run at any time; does nothing when there is nothing to do, or while a
    restore is at work. Needs neither the storage nor a key. Removes what is still kept
    of restores whose undo time is over.
    """
    hooks = RestoreHooks(servers=make_sources((), (), postgres).postgres)
    state = open_state(surroundings, state_dir)
    with surroundings.reporting(_STOPPED_LIVE, patient=True) as reporter:
        found = recover(state, hooks=hooks, reporter=reporter, clock=surroundings.clock)
    removed = _remove_kept(state, surroundings, hooks)
    attention = any(one.outcome == "needs_attention" for one in found)
    return Answer(
        result={
            "restores": [
                {"restore": one.restore_id, "outcome": one.outcome, "message": one.message} for one in found
            ],
            "removed": list(removed),
        },
        lines=[
            *[f"{one.restore_id}  {one.outcome}  {one.message}" for one in found],
            *[f"{one}  removed what was kept of it; it can no longer be undone" for one in removed],
        ]
        or ["Nothing was interrupted; nothing was touched."],
        exit_code=NeedsAttention.exit_code if attention else 0,
    )


def _remove_kept(
    state: StateFolder, surroundings: Surroundings, hooks: RestoreHooks
) -> tuple[RestoreId, ...]:
    try:
        return remove_expired(state, surroundings.clock, hooks.servers)
    except Busy:
        return ()
