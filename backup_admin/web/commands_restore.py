"""The verbs of `flask backup` that bring something back: restore, undo."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from backup_admin.control import engine, restore_here
from backup_admin.core.errors import UsageError
from backup_admin.core.progress import QuietReporter
from backup_admin.operations.answers import (
    Answer,
    answer_extract,
    answer_extract_plan,
    refuse_inside_storage,
)
from backup_admin.operations.attempts import attempting
from backup_admin.operations.extract import extract, plan_extract
from backup_admin.operations.plans import Selection
from backup_admin.operations.restore_answers import (
    answer_dry_run,
    answer_report,
    describe_plan,
    issue_lines,
    plan_lines,
    undo_lines,
)
from backup_admin.operations.rows_answers import answer_rows, answer_rows_plan, rows_plan_lines
from backup_admin.operations.rows_asked import AskedRows
from backup_admin.operations.undo import find_undoable
from backup_admin.sources.merging.merge_model import OnConflict
from backup_admin.verbs.base import AT
from backup_admin.web.command_line import NAME, actor, ask, ready, require_consent, say, verb
from backup_admin.web.commands_look import choose, open_repository


@click.command("restore")
@click.argument("snapshot")
@click.option(
    "--to", "target", type=click.Path(path_type=Path), metavar="DIR", help="Restore into this folder."
)
@click.option(
    "--only", multiple=True, metavar="PATTERN", help="With --to: only what matches; may be repeated."
)
@AT
@click.option("--allow-non-empty", is_flag=True, help="With --to: also where other things lie.")
@click.option("--in-place", is_flag=True, help="Restore onto the folders and databases of this app.")
@click.option("--files", multiple=True, metavar="NAME", help="With --in-place: only this folder.")
@click.option("--database", multiple=True, metavar="NAME", help="With --in-place: only this database.")
@click.option("--table", multiple=True, metavar="NAME.TABLE", help="Only this table, into the live database.")
@click.option("--rows", multiple=True, metavar="NAME.TABLE:KEY", help="Only this row and what belongs to it.")
@click.option(
    "--on-conflict",
    type=click.Choice([policy.value for policy in OnConflict]),
    help="With --table, --rows: what becomes of rows that are live and different.  [skip]",
)
@click.option(
    "--linked",
    multiple=True,
    metavar="NAME.TABLE.COLUMN=FILES[/DIR]",
    help="With --table, --rows: a column of paths, whose files come back with the rows.",
)
@click.option("--yes", is_flag=True, help="With --in-place, --table, --rows: do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@verb
def restore_command(  # noqa: PLR0913  one parameter for each option
    *,
    snapshot: str,
    target: Path | None,
    only: tuple[str, ...],
    at: str,
    allow_non_empty: bool,
    in_place: bool,
    files: tuple[str, ...],
    database: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    **parts: Any,
) -> Answer:
    """Restore a snapshot into a folder (--to), onto this app (--in-place), or tables and rows.

    SNAPSHOT is an id, the beginning of one, or `latest`. In place everything is
    restored, or what --files and --database name; the app answers 503 meanwhile,
    the state from before is kept, and `undo` brings it back. Tables and rows go into
    the live database in one transaction while the app goes on; `undo` takes exactly that back.
    """
    if parts["table"] or parts["rows"]:
        others = {"to": target, "in_place": in_place, "only": only, "files": files, "database": database}
        _refuse("--table and --rows", **others, allow_non_empty=allow_non_empty)
        require_consent(given=yes or dry_run)
        policy = parts["on_conflict"] or OnConflict.SKIP.value
        asked = AskedRows(parts["table"], parts["rows"], policy, parts["linked"])
        return _restore_rows((snapshot, at), asked, yes=yes, dry_run=dry_run)
    _refuse("--to or --in-place", on_conflict=parts["on_conflict"], linked=parts["linked"])
    if in_place == (target is not None):
        raise UsageError("Say where: either --to DIR, or --in-place.")
    if target is not None:
        _refuse("--to", files=files, database=database, yes=yes)
        place = target.expanduser().absolute()
        return _copy((snapshot, at), place, only, allow_non_empty=allow_non_empty, dry_run=dry_run)
    _refuse("--in-place", only=only, allow_non_empty=allow_non_empty)
    require_consent(given=yes or dry_run)
    return _restore_in_place((snapshot, at), Selection(files, database), yes=yes, dry_run=dry_run)


@click.command("undo")
@click.argument("restore", default="")
@click.option("--yes", is_flag=True, help="Do not ask.")
@verb
def undo_command(*, restore: str, yes: bool) -> Answer:
    """Take back a restore in place, the newest one by default.

    RESTORE is an id or the beginning of one.
    """
    installation = ready()
    require_consent(given=yes)
    choice = find_undoable(installation.state, restore, installation.clock)
    for line in undo_lines(choice):
        say(line)
    if not yes:
        ask("Undo this now?")
    with installation.database.new_session() as session:
        report = restore_here.undo_at_once(session, installation, choice.restore_id, actor())
    return answer_report(report, {}, NAME)


def _refuse(mode: str, **options: object) -> None:
    for name, value in options.items():
        if value:
            raise UsageError(f"--{name.replace('_', '-')} has no meaning with {mode}. Nothing was touched.")


def _copy(
    named: tuple[str, str], target: Path, only: tuple[str, ...], *, allow_non_empty: bool, dry_run: bool
) -> Answer:
    repository = open_repository()
    found = repository.snapshot(choose(repository, *named))
    if dry_run:
        plan = plan_extract(repository, found.id, target, only=only, allow_non_empty=allow_non_empty)
        return answer_extract_plan(plan, target)
    refuse_inside_storage(repository, target)
    report = extract(
        repository,
        found.id,
        target,
        only=only,
        allow_non_empty=allow_non_empty,
        reporter=QuietReporter(),
    )
    return answer_extract(report, target)


def _restore_in_place(named: tuple[str, str], selection: Selection, *, yes: bool, dry_run: bool) -> Answer:
    installation = ready()
    trying = nullcontext() if dry_run else attempting(installation.state, installation.clock)
    with trying, installation.database.new_session() as session:
        repository = engine.open_repository(session, installation)
        found = repository.snapshot(choose(repository, *named))
        review = restore_here.plan_here(session, installation, repository, found.id, selection)
        if dry_run:
            return answer_dry_run(review.plan, review.issues, found)
        for line in (*plan_lines(review.plan, found), *issue_lines(review.issues)):
            say(line)
        if not yes and not review.blocked:
            ask("Restore this now?")
        report = restore_here.carry_out_here(session, installation, repository, review, actor())
    return answer_report(report, describe_plan(review.plan, review.issues, dry_run=False), NAME)


def _restore_rows(named: tuple[str, str], asked: AskedRows, *, yes: bool, dry_run: bool) -> Answer:
    installation = ready()
    trying = nullcontext() if dry_run else attempting(installation.state, installation.clock)
    with trying, installation.database.new_session() as session:
        repository = engine.open_repository(session, installation)
        found = repository.snapshot(choose(repository, *named))
        review = restore_here.plan_rows_here(session, installation, repository, found.id, asked)
        if dry_run:
            return answer_rows_plan(review.plan, found)
        for line in rows_plan_lines(review.plan, found):
            say(line)
        if not yes and not review.blocked:
            ask("Restore this now?")
        report = restore_here.carry_out_rows_here(session, installation, repository, review, actor())
    return answer_rows(report, review.plan, NAME)
