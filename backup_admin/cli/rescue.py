"""The verbs of the worst day: restore, undo, recover. They need no app, queue or database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backup_admin.cli.named_sources import make_sources
from backup_admin.cli.opening import (
    Surroundings,
    actor,
    open_given,
    open_state,
    plain_options,
    repository_options,
)
from backup_admin.cli.printing import say
from backup_admin.core.errors import Cancelled, NeedsAttention, RestoreRefused, UsageError
from backup_admin.core.ids import RestoreId, new_ulid
from backup_admin.operations.answers import (
    Answer,
    answer_extract,
    answer_extract_plan,
    refuse_inside_storage,
)
from backup_admin.operations.extract import extract, plan_extract
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
    undo_lines,
)
from backup_admin.operations.restore_report import RestoreHooks, RestoreTools
from backup_admin.operations.results import SourceSet
from backup_admin.operations.undo import find_undoable, undo_restore
from backup_admin.operations.validate import validate_restore
from backup_admin.sources.files import FileSource
from backup_admin.storage.open import local_folder

if TYPE_CHECKING:
    from backup_admin.core.state import StateFolder
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import Manifest, Snapshot

_COMMAND = "backup-admin"
_STOPPED_COPY = "What was written so far is not complete; the repository was not changed."
_STOPPED_LIVE = "Nothing that is live was changed."
_YES = frozenset({"y", "yes"})


@dataclass(frozen=True, slots=True)
class _Consent:
    """How far a restore in place may go: ask before it acts, or never act."""

    ask: bool
    dry_run: bool


@click.command("restore")
@click.argument("snapshot")
@click.argument("storage")
@click.option(
    "--to", "target", type=click.Path(path_type=Path), metavar="DIR", help="Restore into this folder."
)
@click.option(
    "--only", multiple=True, metavar="PATTERN", help="With --to: only what matches; may be repeated."
)
@click.option("--allow-non-empty", is_flag=True, help="With --to: also where other things lie.")
@click.option("--in-place", is_flag=True, help="Restore onto the live folders and databases named here.")
@click.option("--files", multiple=True, metavar="NAME=DIR", help="With --in-place: a live folder.")
@click.option("--sqlite", multiple=True, metavar="NAME=FILE", help="With --in-place: a live SQLite database.")
@click.option("--yes", is_flag=True, help="With --in-place: do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@repository_options
@click.pass_obj
def restore_verb(  # noqa: PLR0913  one parameter for each option
    surroundings: Surroundings,
    *,
    snapshot: str,
    storage: str,
    target: Path | None,
    only: tuple[str, ...],
    allow_non_empty: bool,
    in_place: bool,
    files: tuple[str, ...],
    sqlite: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    key_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Restore a snapshot into a folder (--to), or onto what is live (--in-place).

    SNAPSHOT is an id, the beginning of one, or `latest`. In place, only what is
    named by --files and --sqlite is restored; the state from before is kept and
    `undo` brings it back.
    """
    if in_place == (target is not None):
        raise UsageError("Say where: either --to DIR, or --in-place with --files and --sqlite.")
    if target is not None:
        _refuse("--to", files=files, sqlite=sqlite, yes=yes)
        repository, _ = open_given(surroundings, storage, key_file, state_dir)
        found = repository.find_snapshot(snapshot)
        if dry_run:
            return answer_extract_plan(plan_extract(repository, found.id, only), target)
        return _copy(surroundings, repository, found, target.expanduser().absolute(), (only, allow_non_empty))
    _refuse("--in-place", only=only, allow_non_empty=allow_non_empty)
    make_sources(files, sqlite)
    if not files and not sqlite:
        raise UsageError("Name what is to be restored: --files NAME=DIR, --sqlite NAME=FILE.")
    if not (yes or dry_run or surroundings.is_terminal):
        raise UsageError("There is no terminal to ask for consent: give --yes. Nothing was touched.")
    repository, state = open_given(surroundings, storage, key_file, state_dir)
    found = repository.find_snapshot(snapshot)
    pinned = [path for path in (key_file, local_folder(repository.storage), state.root) if path is not None]
    targets = _targets(repository.manifest(found.id), make_sources(files, sqlite), pinned)
    consent = _Consent(ask=not yes, dry_run=dry_run)
    return _restore_in_place(surroundings, repository, found, targets, state, consent)


def _refuse(mode: str, **options: object) -> None:
    for name, value in options.items():
        if value:
            raise UsageError(f"--{name.replace('_', '-')} has no meaning with {mode}. Nothing was touched.")


# --- into a folder -----------------------------------------------------------


def _copy(
    surroundings: Surroundings,
    repository: Repository,
    snapshot: Snapshot,
    target: Path,
    options: tuple[tuple[str, ...], bool],
) -> Answer:
    only, allow_non_empty = options
    refuse_inside_storage(repository, target)
    with surroundings.reporting(_STOPPED_COPY) as reporter:
        report = extract(
            repository, snapshot.id, target, only=only, allow_non_empty=allow_non_empty, reporter=reporter
        )
    return answer_extract(report, target)


# --- in place ----------------------------------------------------------------


def _targets(manifest: Manifest, given: SourceSet, pinned: list[Path]) -> SourceSet:
    """Return the live targets with what must stay where it is.

    What the backup left out stays as it is now. So does each database the snapshot
    holds by itself: it goes back as a database, never as a file of a folder.
    """
    databases = [Path(entry.path) for entry in manifest.databases]
    databases += [source.path for source in given.databases]
    trees = []
    for source in given.files:
        root = manifest.files_root(source.name)
        inside = [] if root is None else _moved(databases, Path(root.path), source.root)
        exclude = () if root is None else root.excluded
        trees.append(FileSource(source.name, source.root, exclude, (*pinned, *databases, *inside)))
    return SourceSet(files=tuple(trees), databases=given.databases)


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
        databases=tuple(source.name for source in targets.databases),
    )
    with surroundings.reporting(_STOPPED_LIVE) as reporter:
        plan = plan_restore(repository, snapshot.id, targets, selection, state=state, reporter=reporter)
        issues = validate_restore(plan, repository, targets, state=state, clock=surroundings.clock)
    if consent.dry_run:
        return answer_dry_run(plan, issues, snapshot)
    for line in (*plan_lines(plan, snapshot), *issue_lines(issues)):
        say(line)
    for message in blocks(issues):
        raise RestoreRefused(f"{message} Nothing was touched.")
    if consent.ask:
        _ask("Restore this now?")
    with surroundings.reporting(_STOPPED_LIVE, patient=True) as reporter:
        tools = RestoreTools(state, reporter, surroundings.clock)
        restore_id = RestoreId(new_ulid(surroundings.clock.now()))
        report = carry_out(plan, repository, targets, restore_id=restore_id, actor=actor(), tools=tools)
    return answer_report(report, describe_plan(plan, issues, dry_run=False), _COMMAND)


def _ask(question: str) -> None:
    say(f"{question} Type yes to go on:")
    try:
        answer = input()
    except EOFError:
        answer = ""
    if answer.strip().lower() not in _YES:
        raise Cancelled("Not confirmed. Nothing was touched.")


# --- undo and recover --------------------------------------------------------


@click.command("undo")
@click.argument("restore", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
@plain_options
@click.pass_obj
def undo_verb(
    surroundings: Surroundings, *, restore: str | None, yes: bool, state_dir: Path | None
) -> Answer:
    """Take back a restore in place, the newest one by default.

    Needs neither the storage nor a key: the state from before was kept.
    """
    if not (yes or surroundings.is_terminal):
        raise UsageError("There is no terminal to ask for consent: give --yes. Nothing was touched.")
    state = open_state(surroundings, state_dir)
    choice = find_undoable(state, restore or "", surroundings.clock)
    for line in undo_lines(choice):
        say(line)
    if not yes:
        _ask("Undo this now?")
    with surroundings.reporting(_STOPPED_LIVE, patient=True) as reporter:
        report = undo_restore(
            state, choice.restore_id, hooks=RestoreHooks(), reporter=reporter, clock=surroundings.clock
        )
    return answer_report(report, {}, _COMMAND)


@click.command("recover")
@plain_options
@click.pass_obj
def recover_verb(surroundings: Surroundings, *, state_dir: Path | None) -> Answer:
    """Finish or undo a restore in place that was interrupted.

    Safe to run at any time; does nothing when there is nothing to do, or while a
    restore is at work. Needs neither the storage nor a key.
    """
    state = open_state(surroundings, state_dir)
    with surroundings.reporting(_STOPPED_LIVE, patient=True) as reporter:
        found = recover(state, hooks=RestoreHooks(), reporter=reporter, clock=surroundings.clock)
    attention = any(one.outcome == "needs_attention" for one in found)
    return Answer(
        result={
            "restores": [
                {"restore": one.restore_id, "outcome": one.outcome, "message": one.message} for one in found
            ]
        },
        lines=[f"{one.restore_id}  {one.outcome}  {one.message}" for one in found]
        or ["Nothing was interrupted; nothing was touched."],
        exit_code=NeedsAttention.exit_code if attention else 0,
    )
