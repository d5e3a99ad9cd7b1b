"""The verbs about triggers that count changes: an opt-in that can be taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from backup_admin.cli.named_sources import make_sources
from backup_admin.cli.opening import Surroundings, json_option
from backup_admin.core.errors import UsageError
from backup_admin.core.shown import columns, count_of, show_text
from backup_admin.operations.answers import Answer
from backup_admin.sources.sqlite import ask_about

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from backup_admin.operations.results import SourceSet

_SECONDS = 30.0
_NOTHING = "Name what to look at with --sqlite NAME=FILE or --postgres NAME=ADDRESS."


@click.group("changes", subcommand_metavar="VERB [ARGUMENTS]...")
def changes_verb() -> None:
    """Let triggers of the database count changes, or take them away.

    No backup needs them: they are one more sign that something changed, and never a proof
    that nothing did.
    """


def _sources(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb the options that name databases."""
    sqlite = click.option("--sqlite", multiple=True, metavar="NAME=FILE", help="A SQLite database.")
    postgres = click.option(
        "--postgres", multiple=True, metavar="NAME=ADDRESS", help="A PostgreSQL database."
    )
    return sqlite(postgres(json_option(function)))


@changes_verb.command("install")
@_sources
@click.pass_obj
def install_verb(
    _surroundings: Surroundings, *, sqlite: tuple[str, ...], postgres: tuple[str, ...]
) -> Answer:
    """Install triggers in each table that has none.

    They belong to the database from then on: they are in its backups, and tables made later have none
    until this is done again. All that is made is named backup_admin_….
    """
    return _counted(_given(sqlite, postgres), "install")


@changes_verb.command("show")
@_sources
@click.pass_obj
def show_verb(_surroundings: Surroundings, *, sqlite: tuple[str, ...], postgres: tuple[str, ...]) -> Answer:
    """Show what was counted for each table."""
    return _counted(_given(sqlite, postgres), "show")


@changes_verb.command("uninstall")
@_sources
@click.pass_obj
def uninstall_verb(
    _surroundings: Surroundings, *, sqlite: tuple[str, ...], postgres: tuple[str, ...]
) -> Answer:
    """Remove the triggers and all that came with them."""
    sources = _given(sqlite, postgres)
    found = {one.name: int(_ask(one.path, "uninstall")) for one in sources.databases}
    if sources.postgres:
        from backup_admin.sources.postgres import triggers  # noqa: PLC0415 - needs psycopg

        found |= {one.name: triggers.uninstall(one.address) for one in sources.postgres}
    lines = [f"{name}: the triggers of {count_of(count, 'table')} are gone." for name, count in found.items()]
    return Answer({"databases": [{"name": name, "tables": found[name]} for name in found]}, lines)


def _counted(sources: SourceSet, what: str) -> Answer:
    found: dict[str, list[tuple[str, int]]] = {
        one.name: [(str(name), int(count)) for name, count in _ask(one.path, what)]
        for one in sources.databases
    }
    if sources.postgres:
        from backup_admin.sources.postgres import triggers  # noqa: PLC0415 - needs psycopg

        for one in sources.postgres:
            rows = triggers.install(one.address) if what == "install" else triggers.show(one.address)
            found[one.name] = [(row.table, row.changes) for row in rows]
    return Answer(
        {"databases": [_described(name, rows) for name, rows in found.items()]},
        [line for name, rows in found.items() for line in _lines(name, rows)],
    )


def _described(name: str, rows: list[tuple[str, int]]) -> dict[str, Any]:
    tables = [{"table": table, "changes": None if count < 0 else count} for table, count in rows]
    return {"name": name, "tables": tables}


def _lines(name: str, rows: list[tuple[str, int]]) -> list[str]:
    shown = [(f"  {show_text(table)}", "not counted" if count < 0 else f"{count:,}") for table, count in rows]
    return [f"{name}:", *columns(shown)]


def _given(sqlite: tuple[str, ...], postgres: tuple[str, ...]) -> SourceSet:
    if not sqlite and not postgres:
        raise UsageError(_NOTHING)
    return make_sources((), sqlite, postgres)


def _ask(path: Path, what: str) -> Any:
    return ask_about(path, f"triggers_{what}", deadline_seconds=_SECONDS)["tables"]
