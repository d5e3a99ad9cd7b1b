"""Restoring chosen tables and rows into a live database: `restore --table`, `restore --rows`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.cli.in_place import ask
from backup_admin.cli.named_sources import check_text, make_sources
from backup_admin.cli.opening import actor, choose, open_given
from backup_admin.cli.printing import say
from backup_admin.core.errors import UsageError
from backup_admin.core.ids import RestoreId, new_ulid
from backup_admin.operations.layout import check_layout
from backup_admin.operations.linked_files import Link
from backup_admin.operations.restore_report import RestoreTools
from backup_admin.operations.restore_rows import carry_out_rows, plan_rows
from backup_admin.operations.rows_answers import answer_rows, answer_rows_plan, rows_plan_lines
from backup_admin.operations.rows_plan import RowsSelection
from backup_admin.sources.merging.merge_model import OnConflict

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.cli.opening import Surroundings
    from backup_admin.operations.answers import Answer
    from backup_admin.operations.results import SourceSet

_STOPPED_LIVE = "Nothing that is live was changed."
# A name in double quotes may hold what parts names otherwise.
_TABLE_AND_KEY = re.compile(r'((?:"(?:[^"]|"")*"|[^":])*):(.*)', re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


@dataclass(frozen=True, slots=True)
class Access:
    """The snapshot, where it is and how it is opened."""

    snapshot: str
    at: str
    storage: str
    key_file: Path | None
    state_dir: Path | None


@dataclass(frozen=True, slots=True)
class Chosen:
    """Tables and rows as they were asked for, and the live places."""

    tables: tuple[str, ...]
    rows: tuple[str, ...]
    on_conflict: str
    linked: tuple[str, ...]
    files: tuple[str, ...]
    sqlite: tuple[str, ...]
    postgres: tuple[str, ...]


def restore_some(
    surroundings: Surroundings, access: Access, chosen: Chosen, *, yes: bool, dry_run: bool
) -> Answer:
    """Restore tables or rows into a live database, after what would happen was shown and agreed to."""
    targets = make_sources(chosen.files, chosen.sqlite, chosen.postgres)
    selection = select_rows(chosen, targets)
    if not (yes or dry_run or surroundings.is_terminal):
        raise UsageError("There is no terminal to ask for consent: give --yes. Nothing was touched.")
    repository, state = open_given(surroundings, access.storage, access.key_file, access.state_dir)
    check_layout(repository.storage, targets)
    snapshot = repository.snapshot(choose(surroundings, repository, access.snapshot, access.at))
    with surroundings.reporting(_STOPPED_LIVE) as reporter:
        plan = plan_rows(repository, snapshot.id, targets, selection, state=state, reporter=reporter)
    if dry_run:
        return answer_rows_plan(plan, snapshot)
    for line in rows_plan_lines(plan, snapshot):
        say(line)
    if not (yes or plan.report.is_refused or plan.is_empty):
        ask("Restore this now?")
    with surroundings.reporting(_STOPPED_LIVE, patient=True) as reporter:
        tools = RestoreTools(state, reporter, surroundings.clock)
        restore_id = RestoreId(new_ulid(surroundings.clock.now()))
        report = carry_out_rows(plan, repository, targets, restore_id=restore_id, actor=actor(), tools=tools)
    return answer_rows(report, plan)


def select_rows(chosen: Chosen, targets: SourceSet) -> RowsSelection:
    """Read what was asked for; raise `UsageError`."""
    names = [source.name for source in targets.databases]
    names += [source.name for source in targets.postgres]
    if not names:
        raise UsageError("Say where the live database is: --sqlite NAME=FILE or --postgres NAME=ADDRESS.")
    for option, texts in (("--table", chosen.tables), ("--rows", chosen.rows), ("--linked", chosen.linked)):
        for text in texts:
            check_text(text, option)
    tables = [_split_name(text, names, "--table NAME.TABLE") for text in chosen.tables]
    rows = []
    for text in chosen.rows:
        database, rest = _split_name(text, names, "--rows NAME.TABLE:KEY")
        matched = _TABLE_AND_KEY.fullmatch(rest)
        if matched is None or not matched[1]:
            raise UsageError(f"--rows takes NAME.TABLE:KEY, for example {names[0]}.events:42; got {text!r}.")
        rows.append((database, matched[1], matched[2]))
    links = [_read_link(text, names) for text in chosen.linked]
    databases = {name for name, _ in tables} | {name for name, *_ in rows} | {name for name, _ in links}
    if len(databases) != 1:
        raise UsageError("One restore changes one database. Name the others in restores of their own.")
    return RowsSelection(
        databases.pop(),
        tuple(_plain(table) for _, table in tables),
        tuple((_plain(table), key) for _, table, key in rows),
        OnConflict(chosen.on_conflict),
        tuple(link for _, link in links),
    )


def _read_link(text: str, names: list[str]) -> tuple[str, Link]:
    column, _, folder = text.partition("=")
    database, rest = _split_name(column, names, "--linked NAME.TABLE.COLUMN=FILES")
    table, _, name = rest.rpartition(".")
    folder, _, below = folder.partition("/")
    if not table or not name or not folder:
        raise UsageError(f"--linked takes NAME.TABLE.COLUMN=FILES, or FILES/DIR; got {text!r}.")
    return database, Link(_plain(table), _plain(name), folder, below.strip("/"))


def _split_name(text: str, names: list[str], form: str) -> tuple[str, str]:
    for name in sorted(names, key=len, reverse=True):
        if text.startswith(f"{name}.") and len(text) > len(name) + 1:
            return name, text[len(name) + 1 :]
    raise UsageError(
        f"{form}: {text!r} does not begin with the name of a database given here: {', '.join(names)}."
    )


def _plain(name: str) -> str:
    """Take quotes off a name, or off each part of one."""
    return _QUOTED.sub(lambda found: found[1].replace('""', '"'), name)
