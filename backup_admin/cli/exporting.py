"""The verbs `export` and `import`: one database in formats that others read, and back into tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from backup_admin.cli.opening import Surroundings, actor, json_option, open_given, repository_options
from backup_admin.core.errors import RestoreRefused, SourceMissing, UsageError
from backup_admin.core.shown import count_of, show_size, show_text
from backup_admin.core.telling import telling
from backup_admin.operations.answers import INCOMPLETE, Answer, refuse_inside_storage
from backup_admin.operations.database_export import (
    ExportFormat,
    ExportRequest,
    export_from_snapshot,
    export_postgres,
    export_sqlite,
)
from backup_admin.operations.pinning import pinned_meanwhile
from backup_admin.sources.base import LiveUnusable
from backup_admin.sources.formats.imported import ImportOptions
from backup_admin.sources.formats.worker import import_into_sqlite
from backup_admin.sources.postgres.address import parse_postgres_address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backup_admin.operations.database_export import ExportReport
    from backup_admin.sources.formats.imported import ImportReport

_FILES = click.Path(path_type=Path)
_STOPPED = "Nothing was exported."
_NO_TABLES = "The export has no tables: is it one of the right database?"
_NO_DATABASE = "Nothing was imported. Name a database in which the app's migrations made the tables."
_SHOWN = 20
_FORMATS = [str(one) for one in ExportFormat]


@click.command("export")
@click.argument("snapshot", required=False)
@click.argument("storage", required=False)
@click.option("--database", default="", metavar="NAME", help="Which one, where a snapshot has several.")
@click.option("--sqlite", type=_FILES, metavar="FILE", help="A SQLite database in use, not a snapshot.")
@click.option("--postgres", metavar="ADDRESS", help="A PostgreSQL database in use, not a snapshot.")
@click.option("--format", "kind", type=click.Choice(_FORMATS), required=True, help="What to write.")
@click.option("--to", "target", type=_FILES, required=True, metavar="PATH", help="A new folder, or file.")
@click.option(
    "--programs",
    type=_FILES,
    metavar="DIR",
    help="Where pg_dump and pg_restore lie; otherwise all versions that are installed are looked at.",
)
@repository_options
@click.pass_obj
def export_verb(  # noqa: PLR0913  one parameter for each option
    surroundings: Surroundings,
    *,
    snapshot: str | None,
    storage: str | None,
    database: str,
    sqlite: Path | None,
    postgres: str | None,
    kind: str,
    target: Path,
    programs: Path | None,
    key_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Write one database for other programs: of a snapshot, or in use (--sqlite, --postgres).

    json makes a folder that `import` reads, sql a script, compact a SQLite database without
    unused pages. An export is no backup.
    """
    if (storage is not None) + (sqlite is not None) + (postgres is not None) != 1:
        raise UsageError("Say what to export: SNAPSHOT STORAGE, --sqlite FILE or --postgres ADDRESS.")
    request = ExportRequest(ExportFormat(kind), target.expanduser().absolute(), programs)
    with surroundings.reporting(_STOPPED) as reporter:
        if sqlite is not None:
            return _exported(export_sqlite(sqlite.absolute(), request, reporter=reporter), request)
        if postgres is not None:
            address = parse_postgres_address(postgres)
            return _exported(export_postgres(address, request, reporter=reporter), request)
        repository, _ = open_given(surroundings, storage or "", key_file, state_dir)
        refuse_inside_storage(repository, request.target)
        found = repository.find_snapshot(snapshot or "")
        notices: list[str] = []
        with pinned_meanwhile(
            repository, found.id, actor=actor(), clock=surroundings.clock, warn=notices.append
        ):
            report = export_from_snapshot(repository, found.id, database, request, reporter=reporter)
        return _exported(report, request, notices)


def _exported(report: ExportReport, request: ExportRequest, notices: list[str] | None = None) -> Answer:
    rest = [*report.notices, *(notices or ())]
    return Answer(
        result={
            "database": report.database,
            "engine": report.engine,
            "format": str(request.format),
            "target": str(request.target),
            "tables": report.tables,
            "rows": report.rows,
            "bytes": report.bytes,
            "notices": rest,
            "problems": list(report.problems),
        },
        lines=(
            f"Exported {count_of(report.tables, 'table')} with {count_of(report.rows, 'row')} of "
            f"{report.database} to {request.target} ({show_size(report.bytes)}).",
        ),
        exit_code=INCOMPLETE if report.problems else 0,
        notes=[
            *(f"problem: {show_text(problem)}" for problem in report.problems),
            *(f"note: {show_text(notice)}" for notice in rest),
        ],
    )


@click.command("import")
@click.argument("folder", type=_FILES)
@click.option("--sqlite", type=_FILES, metavar="FILE", help="The SQLite database to load into.")
@click.option("--postgres", metavar="ADDRESS", help="The PostgreSQL database to load into.")
@click.option("--partial", is_flag=True, help="Leave out rows that are refused, and load the others.")
@click.option("--dry-run", is_flag=True, help="Do everything, then take it back.")
@json_option
@click.pass_obj
def import_verb(
    _surroundings: Surroundings,
    *,
    folder: Path,
    sqlite: Path | None,
    postgres: str | None,
    partial: bool,
    dry_run: bool,
) -> Answer:
    """Load a json export into empty tables that the app's migrations made.

    FOLDER is what `export --format json` wrote, of the same kind of database or the other one.
    One transaction: all rows are read back and compared before it counts.
    """
    options = ImportOptions(partial=partial, dry_run=dry_run)
    place = folder.expanduser().absolute()
    if (sqlite is None) == (postgres is None):
        raise UsageError("Say where to: either --sqlite FILE or --postgres ADDRESS.")
    if sqlite is not None:
        live = sqlite.expanduser().absolute()
        with telling(_NO_DATABASE, (SourceMissing, LiveUnusable)):
            report = import_into_sqlite(place, live, options)
        return _imported(report, str(live), options)
    address = parse_postgres_address(postgres or "")
    from backup_admin.sources.postgres.import_json import import_json  # noqa: PLC0415 - needs psycopg

    with telling("Nothing was imported.", (SourceMissing,)):
        report = import_json(place, address, options)
    return _imported(report, address.label, options)


def _imported(report: ImportReport, target: str, options: ImportOptions) -> Answer:
    exit_code = 0
    notices = [*report.notices, *(() if report.tables else (_NO_TABLES,))]
    if report.refused_rows:
        exit_code = INCOMPLETE if options.partial else RestoreRefused.exit_code
    return Answer(
        result={
            "target": target,
            "dry_run": options.dry_run,
            "imported": report.committed,
            "tables": [
                {"table": one.table, "rows": one.rows, "refused": one.refused, "already": one.already}
                for one in report.tables
            ],
            "refused_rows": report.refused_rows,
            "refused": [{"table": one.table, "row": one.row, "reason": one.reason} for one in report.refused],
            "notices": notices,
        },
        lines=_import_lines(report, target, options),
        exit_code=exit_code,
        notes=[f"note: {show_text(notice)}" for notice in notices],
    )


def _import_lines(report: ImportReport, target: str, options: ImportOptions) -> Iterator[str]:
    for table in report.tables:
        more = ", there already" if table.already else f", {table.refused} refused" if table.refused else ""
        yield f"  {show_text(table.table)}: {count_of(table.rows, 'row')}{more}"
    for refusal in report.refused[:_SHOWN]:
        row = f" row {refusal.row}" if refusal.row else ""
        yield f"refused: {show_text(refusal.table)}{row}: {show_text(refusal.reason)}"
    if report.refused_rows > _SHOWN:
        yield f"refused: {report.refused_rows - _SHOWN} more; --json lists the first ones"
    there = sum(table.rows for table in report.tables if table.already)
    new = sum(table.rows for table in report.tables if not table.already)
    rows = count_of(new, "row")
    if there and not new and not report.refused_rows:
        yield f"Nothing was imported into {target}: it holds all {count_of(there, 'row')} already."
    elif report.committed:
        yield f"Imported {rows} into {target}; all of it was read back and compared."
    elif options.dry_run and (options.partial or not report.refused_rows):
        yield f"{rows} would be imported into {target}; nothing was changed."
    else:
        yield (
            f"Nothing was imported into {target}: {count_of(report.refused_rows, 'row')} would be refused. "
            "Mend them in the source, or leave them out with --partial."
        )
