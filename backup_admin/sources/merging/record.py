"""The file that keeps what a merge changed: lines of JSON, whole only with its last line.

A line for each live table with its columns, then one for each row that is kept of it; in the end the digest
of all that. It is on disk before the transaction of the merge is committed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from backup_admin.core.durable import write_new
from backup_admin.core.errors import Damaged, RestoreRefused
from backup_admin.sources.merging.keeping import Kept, make_kept

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import BufferedReader
    from pathlib import Path

    from backup_admin.sources.merging.graph import Graph, LiveColumn, LiveTable
    from backup_admin.sources.merging.merge_model import MergeEngine

_VERSION = 1
_BLOCK_BYTES = 256 << 10
_BEFORE, _AFTER = "b", "a"
_SINCE = "Nothing was touched. The safety backup holds the database as it was before the restore."


def write_record(path: Path, engine: MergeEngine, kept: Sequence[Kept], made: Sequence[str]) -> None:
    """Write all that is kept, durably; `made` are tables that the merge made. Raises `RestoreRefused`."""
    try:
        is_new = write_new(path, _sealed(_lines(engine, kept, made)))
    except OSError as error:
        raise RestoreRefused(
            f"What an undo needs cannot be kept in {path.parent}: {error.strerror}. Everything was taken "
            "back; nothing live was changed. Make room there."
        ) from error
    if not is_new:
        raise RestoreRefused(f"{path} is there already. Everything was taken back; nothing live was changed.")


def load_record(path: Path, engine: MergeEngine, graph: Graph) -> tuple[list[Kept], tuple[str, ...]]:
    """Bring all that was kept into tables of ours; return those, and the tables that the merge made.

    Raises `Damaged`, and `RestoreRefused` when live tables are no longer what they were.
    """
    _check(path)
    found: list[Kept] = []
    with path.open("rb") as file:
        head = _read(file.readline())
        if head["version"] != _VERSION:
            raise Damaged(f"{path} was written by a newer version. Nothing was touched.")
        header = _read(file.readline())
        while "table" in header:
            kept = _make(engine, graph, header, len(found))
            header = _fill(engine, kept, file)
            found.append(kept)
    return found, tuple(map(str, head["made"]))


def _lines(engine: MergeEngine, kept: Sequence[Kept], made: Sequence[str]) -> Iterator[Any]:
    yield {"version": _VERSION, "made": list(made)}
    for one in kept:
        yield {"table": one.table.name, "key": list(one.table.key), "columns": one.names}
        own = ["digest", "was", "remains"]
        before = [engine.kept(f"c{column.number}") for column in one.before.columns]
        after = [*own, *(engine.kept(f"c{column.number}") for column in one.after.columns)]
        for mark, name, values in ((_BEFORE, one.before.name, before), (_AFTER, one.after.name, after)):
            # A number goes first: a table may have no column at all.
            for row in engine.rows(f"SELECT {', '.join(['n', *values])} FROM {name} ORDER BY n"):
                yield [mark, *map(_pack, row[1:])]


def _sealed(lines: Iterator[Any]) -> Iterator[bytes]:
    digest, count, block = hashlib.sha256(), 0, bytearray()
    for line in lines:
        block += json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"
        count += 1
        if len(block) > _BLOCK_BYTES:
            digest.update(block)
            yield bytes(block)
            block.clear()
    digest.update(block)
    yield bytes(block)
    yield json.dumps({"end": count, "sha256": digest.hexdigest()}).encode("ascii") + b"\n"


def _check(path: Path) -> None:
    digest, count, last = hashlib.sha256(), 0, b"null"
    with path.open("rb") as file:
        for raw in file:
            if count:
                digest.update(last)
            last, count = raw, count + 1
    if _read(last) != {"end": count - 1, "sha256": digest.hexdigest()}:
        raise Damaged(f"{path} is not whole, so it cannot be undone from it. Nothing was touched.")


def _make(engine: MergeEngine, graph: Graph, header: dict[str, Any], number: int) -> Kept:
    name = str(header["table"])
    table = graph.tables.get(name)
    if table is None:
        raise RestoreRefused(f"The table {name} that was restored into is no longer there. {_SINCE}")
    if list(table.key) != header["key"]:
        raise RestoreRefused(f"{name} has another primary key than when it was restored into. {_SINCE}")
    return make_kept(engine, number, table, [_column(table, one) for one in header["columns"]])


def _column(table: LiveTable, name: str) -> LiveColumn:
    column = table.column(name)
    if column is None or not column.written:
        raise RestoreRefused(f"{table.name} no longer has the column {name}. {_SINCE}")
    return column


def _fill(engine: MergeEngine, kept: Kept, file: BufferedReader) -> dict[str, Any]:
    """Load the rows of one table; return the line that follows them."""
    ahead: list[Any] = [_read(file.readline())]

    def take(mark: str) -> Iterator[list[Any]]:
        while isinstance(ahead[0], list) and ahead[0][0] == mark:
            yield [_unpack(value) for value in ahead[0][1:]]
            ahead[0] = _read(file.readline())

    engine.fill(kept.before.name, [f"c{column.number}" for column in kept.before.columns], take(_BEFORE))
    own = ["digest", "was", "remains", *(f"c{column.number}" for column in kept.after.columns)]
    engine.fill(kept.after.name, own, take(_AFTER))
    following: dict[str, Any] = ahead[0]
    return following


def _read(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError as error:
        raise Damaged("What was kept for an undo cannot be read. Nothing was touched.") from error


def _pack(value: Any) -> Any:
    """Write a value so that exactly this one is read again."""
    if isinstance(value, float):
        return {"f": value.hex()}
    if isinstance(value, bytes):
        return {"b": base64.b64encode(value).decode("ascii")}
    return value


def _unpack(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return float.fromhex(value["f"]) if "f" in value else base64.b64decode(value["b"])


def is_kept(path: Path) -> bool:
    """Say whether there is such a file: without it no transaction was committed."""
    return os.path.lexists(path)
