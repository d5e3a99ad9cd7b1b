"""What a merge did to a live SQLite database is taken back. Part of the worker (`sqlite_worker`)."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backup_admin.sources.merging.record import load_record
from backup_admin.sources.merging.undoing import look, undo
from backup_admin.sources.sqlite_graph import read_graph
from backup_admin.sources.sqlite_merge import SqliteMerge, explained, prepare
from backup_admin.sources.sqlite_open import Deadline, need_database, open_live

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backup_admin.sources.merging.graph import Graph
    from backup_admin.sources.merging.merge_model import UndoReport


def undo_merge(*, live: str, work: str, record: str, dry: bool, deadline_seconds: float) -> dict[str, Any]:
    """Take back what the record tells of, or only look at it."""
    need_database(live)
    deadline = Deadline(deadline_seconds, live)
    with explained(), closing(open_live(live, deadline)) as connection:
        prepare(connection, work)
        engine = SqliteMerge(connection, deadline)
        try:
            report = _undo(connection, engine, Path(record), dry=dry)
            engine.end("ROLLBACK" if dry or report.is_refused else "COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        return asdict(report)


def _undo(connection: sqlite3.Connection, engine: SqliteMerge, record: Path, *, dry: bool) -> UndoReport:
    engine.begin()
    graph = read_graph(connection)
    kept, made = load_record(record, engine, graph)
    if dry:
        return look(engine, kept)
    report = undo(engine, graph, kept)
    if not report.is_refused:
        _drop_empty(engine, graph, made)
    return report


def _drop_empty(engine: SqliteMerge, graph: Graph, made: Sequence[str]) -> None:
    """Drop the tables that the merge made, unless the app put rows of its own into them."""
    for name in made:
        table = graph.tables.get(name)
        if table is not None and not engine.number(f"SELECT EXISTS (SELECT 1 FROM {table.reading})"):
            engine.run(f"DROP TABLE {table.place}")
