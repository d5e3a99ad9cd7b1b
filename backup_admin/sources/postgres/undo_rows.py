"""What a merge did to a live PostgreSQL database is taken back, in one transaction on one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.sources.merging.record import load_record
from backup_admin.sources.merging.undoing import look, undo
from backup_admin.sources.postgres.connect import connected
from backup_admin.sources.postgres.live_graph import read_graph
from backup_admin.sources.postgres.merge_rows import CapturedParts, PostgresMerge, explained

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.sources.merging.merge_model import UndoReport
    from backup_admin.sources.postgres.address import PostgresAddress

_LOCK_WAIT = "30s"
_NO_PARTS = CapturedParts(b"", lambda _name: ())


def undo_in_postgres(address: PostgresAddress, record: Path, *, dry: bool) -> UndoReport:
    """Take back what the record tells of, or only look at it.

    All or nothing. Raises `RestoreRefused`, `Busy`, `NotPermitted`, `Damaged`, `VerificationFailed`,
    `SourceMissing` or `SourceError`; nothing live was changed then.
    """
    with connected(address) as connection, explained(address):
        connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
        connection.execute("SET LOCAL standard_conforming_strings = on")  # as `literal` writes them
        connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'")
        graph = read_graph(connection)
        engine = PostgresMerge(connection, graph, [], _NO_PARTS, dry=dry)
        kept, _ = load_record(record, engine, graph)
        report = look(engine, kept) if dry else undo(engine, graph, kept)
        connection.execute("ROLLBACK" if dry or report.is_refused else "COMMIT")
    return report
