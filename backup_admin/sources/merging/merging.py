"""Bring chosen rows of a snapshot into a live database: the same steps for every engine, in one transaction.

Who calls begins the transaction, and ends it: a dry run takes everything back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from backup_admin.core.errors import UsageError
from backup_admin.sources.merging.deciding import (
    decide,
    find_clashes,
    find_orphans,
    find_referred,
    require_parents,
)
from backup_admin.sources.merging.keeping import keep_after, keep_before
from backup_admin.sources.merging.merge_model import MergeReport, OnConflict
from backup_admin.sources.merging.record import write_record
from backup_admin.sources.merging.referring import tell_lost_references
from backup_admin.sources.merging.renumbering import renumber
from backup_admin.sources.merging.walking import find_table, load_tables, mark_owned, mark_selected, select
from backup_admin.sources.merging.working import OWNED, Workbench
from backup_admin.sources.merging.writing import count_rows, write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from backup_admin.sources.merging.graph import Graph
    from backup_admin.sources.merging.merge_model import MergeEngine, MergeRequest, TableMerge

_LARGE_OBJECTS = ("oid", "lo")
TellLink = Callable[[int, str], object]
"""Is told the number of a link in the request, and a path that a row holds."""


def merge(  # noqa: PLR0913 - into what, what of it, and how
    engine: MergeEngine,
    graph: Graph,
    request: MergeRequest,
    *,
    dry: bool,
    tell_link: TellLink,
    record: Path | None = None,
    made: Sequence[str] = (),
) -> MergeReport:
    """Walk, decide and write; writes nothing when the report says that it is refused.

    In earnest, what it changes is kept in the file `record`, and is on disk when this returns; `made` are
    tables that were made for it.
    Raises `RestoreRefused` or `UsageError` for what cannot be meant, and `VerificationFailed`.
    """
    bench = Workbench(engine, graph)
    policy = request.on_conflict
    selected = select(bench, request)
    load_tables(bench, selected)
    mark_selected(bench, selected)
    mark_owned(bench, selected)
    if policy is OnConflict.COPY:
        renumber(bench, dry=dry)
    for work in list(bench.works.values()):
        decide(bench, work, policy)
    require_parents(bench, policy)
    replaced = [bench.works[one.table.name] for one in selected] if policy is OnConflict.REPLACE else []
    refusals = (*find_orphans(bench), *find_referred(bench, replaced))
    clashes = tuple(find_clashes(bench, policy, replaced))
    tables = count_rows(bench, replaced)
    if not refusals and not clashes:
        kept = keep_before(bench, tables, replaced) if record is not None and not dry else []
        write(bench, tables, replaced)
        if record is not None and not dry:
            keep_after(bench, kept)
            write_record(record, engine, kept, made)
    _tell_links(bench, request, tell_link)
    _tell_triggers(bench, tables)
    _tell_large_objects(bench, tables)
    if not refusals and not clashes:
        tell_lost_references(bench, policy)
    return MergeReport(tables, clashes, refusals, tuple(bench.notes))


def _tell_links(bench: Workbench, request: MergeRequest, tell_link: TellLink) -> None:
    for number, (table, column) in enumerate(request.links):
        name = find_table(bench, table)[0].name
        work = bench.works.get(name)
        if work is None:
            bench.notes.append(f"No row of {table} is restored, so no file follows from {table}.{column}.")
            continue
        if not work.has((column,)):
            raise UsageError(f"{table} has no column {column!r} to follow. Nothing was touched.")
        own = work.column(column)
        query = f"SELECT DISTINCT {own} FROM {work.name} WHERE mark = {OWNED} AND {own} IS NOT NULL"
        for (path,) in bench.engine.rows(query):
            tell_link(number, str(path))


def _tell_triggers(bench: Workbench, tables: tuple[TableMerge, ...]) -> None:
    fired = [one.table for one in tables if one.statements & bench.works[one.table].table.triggers]
    if fired:
        bench.notes.append(f"Triggers of the app fire for what is written to {', '.join(fired)}.")


def _tell_large_objects(bench: Workbench, tables: tuple[TableMerge, ...]) -> None:
    for one in tables:
        columns = bench.works[one.table].columns if one.changes else ()
        names = [column.name for column in columns if column.type.rpartition(".")[2] in _LARGE_OBJECTS]
        if names:
            bench.notes.append(
                f"{one.table}: where {', '.join(names)} has the number of a large object, that object does "
                "not come with the row. Restore the database with --to to get it."
            )
