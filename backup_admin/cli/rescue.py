"""The verb `restore`, without which nothing else is worth anything. It needs no app, queue or database."""

from __future__ import annotations

import importlib
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from backup_admin.cli.opening import Surroundings, actor, choose, open_given, repository_options
from backup_admin.core.errors import UsageError
from backup_admin.operations.answers import (
    Answer,
    answer_extract,
    answer_extract_plan,
    refuse_inside_storage,
)
from backup_admin.operations.extract import extract, plan_extract
from backup_admin.operations.pinning import pinned_meanwhile
from backup_admin.verbs.base import AT

if TYPE_CHECKING:
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import Snapshot

_STOPPED_COPY = "What was written so far is not complete; the snapshot is intact."


@dataclass(frozen=True, slots=True)
class _CopyOptions:
    """How a snapshot is copied into a folder."""

    only: tuple[str, ...]
    allow_non_empty: bool
    no_pin: bool


@click.command("restore")
@click.argument("snapshot")
@click.argument("storage")
@click.option(
    "--to", "target", type=click.Path(path_type=Path), metavar="DIR", help="Restore into this folder."
)
@click.option(
    "--only", multiple=True, metavar="PATTERN", help="With --to: only what matches; may be repeated."
)
@AT
@click.option("--allow-non-empty", is_flag=True, help="With --to: also where other things lie.")
@click.option("--no-pin", is_flag=True, help="With --to: write nothing to the storage, as for a mirror.")
@click.option("--in-place", is_flag=True, help="Restore onto the live folders and databases named here.")
@click.option("--files", multiple=True, metavar="NAME=DIR", help="With --in-place: a live folder.")
@click.option("--sqlite", multiple=True, metavar="NAME=FILE", help="With --in-place: a live SQLite database.")
@click.option(
    "--postgres", multiple=True, metavar="NAME=ADDRESS", help="With --in-place: a live PostgreSQL database."
)
@click.option("--table", multiple=True, metavar="NAME.TABLE", help="Only this table, into the live database.")
@click.option("--rows", multiple=True, metavar="NAME.TABLE:KEY", help="Only this row and what belongs to it.")
@click.option(
    "--on-conflict",
    type=click.Choice(["skip", "overwrite", "copy", "replace"]),
    help="With --table, --rows: what becomes of rows that are live and different.  [skip]",
)
@click.option(
    "--linked",
    multiple=True,
    metavar="NAME.TABLE.COLUMN=FILES[/DIR]",
    help="With --table, --rows: a column of paths, whose files come back with the rows.",
)
@click.option("--as-superuser", is_flag=True, help="With --postgres: go on although the role is one.")
@click.option("--yes", is_flag=True, help="With --in-place, --table, --rows: do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@repository_options
@click.pass_obj
def restore_verb(  # noqa: PLR0913  one parameter for each option
    surroundings: Surroundings,
    /,
    *,
    snapshot: str,
    storage: str,
    target: Path | None,
    only: tuple[str, ...],
    at: str,
    allow_non_empty: bool,
    no_pin: bool,
    in_place: bool,
    files: tuple[str, ...],
    sqlite: tuple[str, ...],
    postgres: tuple[str, ...],
    as_superuser: bool,
    yes: bool,
    dry_run: bool,
    key_file: Path | None,
    state_dir: Path | None,
    **parts: Any,
) -> Answer:
    """Restore a snapshot into a folder (--to), onto what is live (--in-place), or tables and rows.

    SNAPSHOT is an id, the beginning of one, or `latest`. In place, only what is
    named by --files, --sqlite and --postgres is restored; the state from before is kept and
    `undo` brings it back. Tables and rows go into the database named so, in one transaction.
    """
    if parts["table"] or parts["rows"]:
        others = {"to": target, "in_place": in_place, "only": only, "as_superuser": as_superuser}
        _refuse("--table and --rows", **others, allow_non_empty=allow_non_empty, no_pin=no_pin)
        access = (snapshot, at, storage, key_file, state_dir)
        return _restore_parts(surroundings, access, (files, sqlite, postgres), parts, (yes, dry_run))
    _refuse("--to or --in-place", on_conflict=parts["on_conflict"], linked=parts["linked"])
    if in_place == (target is not None):
        raise UsageError("Say where: either --to DIR, or --in-place with --files, --sqlite, --postgres.")
    if target is not None:
        _refuse("--to", files=files, sqlite=sqlite, postgres=postgres, as_superuser=as_superuser, yes=yes)
        repository, _ = open_given(surroundings, storage, key_file, state_dir)
        found = repository.snapshot(choose(surroundings, repository, snapshot, at))
        options = _CopyOptions(only, allow_non_empty, no_pin)
        if dry_run:
            return _plan_copy(repository, found, target, options)
        return _copy(surroundings, repository, found, target.expanduser().absolute(), options)
    _refuse("--in-place", only=only, allow_non_empty=allow_non_empty, no_pin=no_pin)
    # What a restore in place needs takes as long to load as restoring a file takes.
    module: Any = importlib.import_module("backup_admin.cli.in_place")
    places = (files, sqlite, postgres)
    request = module.Request(snapshot, at, storage, places, as_superuser, yes, dry_run, key_file, state_dir)
    return cast("Answer", module.restore_in_place(surroundings, request))


def _refuse(mode: str, **options: object) -> None:
    for name, value in options.items():
        if value:
            raise UsageError(f"--{name.replace('_', '-')} has no meaning with {mode}. Nothing was touched.")


def _restore_parts(
    surroundings: Surroundings,
    access: tuple[str, str, str, Path | None, Path | None],
    places: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]],
    parts: dict[str, Any],
    consent: tuple[bool, bool],
) -> Answer:
    module = importlib.import_module("backup_admin.cli.some_rows")
    policy = parts["on_conflict"] or "skip"
    chosen = module.Chosen(parts["table"], parts["rows"], policy, parts["linked"], *places)
    yes, dry_run = consent
    answer: Answer = module.restore_some(
        surroundings, module.Access(*access), chosen, yes=yes, dry_run=dry_run
    )
    return answer


def _plan_copy(repository: Repository, found: Snapshot, target: Path, options: _CopyOptions) -> Answer:
    plan = plan_extract(
        repository,
        found.id,
        target.expanduser().absolute(),
        only=options.only,
        allow_non_empty=options.allow_non_empty,
    )
    return answer_extract_plan(plan, target)


def _copy(
    surroundings: Surroundings,
    repository: Repository,
    snapshot: Snapshot,
    target: Path,
    options: _CopyOptions,
) -> Answer:
    refuse_inside_storage(repository, target)
    with surroundings.reporting(_STOPPED_COPY) as reporter, ExitStack() as stack:
        when_read = {}
        notices: list[str] = []
        if not options.no_pin:
            clock = surroundings.clock
            pin = pinned_meanwhile(repository, snapshot.id, actor=actor(), clock=clock, warn=notices.append)
            when_read = {"all_read": stack.enter_context(pin)}
        report = extract(
            repository,
            snapshot.id,
            target,
            only=options.only,
            allow_non_empty=options.allow_non_empty,
            reporter=reporter,
            **when_read,
        )
    return answer_extract(replace(report, notices=(*report.notices, *notices)), target)
