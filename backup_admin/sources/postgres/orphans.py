"""Take rows out that refer to one that is not there, and rows that refer to those, also by keys in a circle.

Which rows go is found out first and noted in a temporary table; then one statement deletes all of them. So
no key finds anything to do at a deletion, whatever it is told: what refers to a row that goes, goes too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.core.errors import RestoreRefused
from backup_admin.sources.postgres.connect import explain
from backup_admin.sources.postgres.driver import psycopg, sql
from backup_admin.sources.postgres.foreign_keys import keys_of
from backup_admin.sources.postgres.target_tables import table_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from backup_admin.sources.formats.matching import Pair
    from backup_admin.sources.postgres.foreign_keys import ForeignKey

_Name = tuple[str, str]
_NOTED = sql.Identifier("pg_temp", "backup_admin_left_out")
_MAKE = sql.SQL(
    "CREATE TEMPORARY TABLE backup_admin_left_out (relation oid, place tid, key integer, turn integer, "
    "PRIMARY KEY (relation, place)) ON COMMIT DROP"
)
_BEGIN = sql.SQL(
    "INSERT INTO {noted} SELECT c.tableoid, c.ctid, {number}, 0 FROM {child} c WHERE {there} "
    "AND NOT EXISTS (SELECT FROM {parent} p WHERE {same}) ON CONFLICT DO NOTHING"
)
_GO_ON = sql.SQL(
    "INSERT INTO {noted} SELECT c.tableoid, c.ctid, {number}, {turn} FROM {child} c "
    "JOIN {parent} p ON {same} JOIN {noted} l ON l.relation = p.tableoid AND l.place = p.ctid "
    "WHERE l.turn = {turn} - 1 ON CONFLICT DO NOTHING"
)
_IS_NOTED = sql.SQL("l.relation = c.tableoid AND l.place = c.ctid")


class OrphanSearch:
    """Looks through the keys of tables that are loaded, within a transaction."""

    def __init__(
        self, connection: psycopg.Connection, pairs: Sequence[Pair], names: Mapping[_Name, sql.Composable]
    ) -> None:
        self._connection = connection
        self._pairs = pairs
        self._names = names
        loaded = sorted({(pair.target.schema, pair.target.name) for pair in pairs})
        self._keys = keys_of(connection, loaded)

    def take_out(self, *, because: str) -> Iterator[tuple[Pair, bytes, str]]:
        """Delete the rows and yield them, each as `COPY` writes it and with the reason.

        `because` is what the server said. Raises `RestoreRefused` when rows are left that break a key.
        """
        self._note()
        for pair in self._pairs:
            yield from self._noted(pair)
        try:
            with self._connection.transaction():
                self._delete()
                self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except psycopg.IntegrityError as error:
            raise RestoreRefused(
                f"Rows refer to others that are not there: {because} They cannot be left out, not with "
                f"--partial either: {explain(error)} Nothing was imported. Mend them in the source."
            ) from error

    def _note(self) -> None:
        self._connection.execute(_MAKE)
        turn, found = 0, self._take_turn(_BEGIN, 0)
        while found:
            turn += 1
            found = self._take_turn(_GO_ON, turn)

    def _take_turn(self, statement: sql.SQL, turn: int) -> int:
        return sum(
            self._connection.execute(
                statement.format(
                    noted=_NOTED,
                    number=sql.Literal(number),
                    turn=sql.Literal(turn),
                    child=self._names[child],
                    parent=self._names.get(key.parent, sql.Identifier(*key.parent)),
                    there=_all("c.{} IS NOT NULL", key.columns),
                    same=_all("p.{} = c.{}", key.parent_columns, key.columns),
                )
            ).rowcount
            for number, (child, key) in enumerate(self._keys)
        )

    def _noted(self, pair: Pair) -> Iterator[tuple[Pair, bytes, str]]:
        source = sql.SQL("FROM {} c JOIN {} l ON {}").format(table_name(pair.target), _NOTED, _IS_NOTED)
        query = sql.SQL("SELECT DISTINCT l.key {} ORDER BY 1").format(source)
        for (number,) in self._connection.execute(query).fetchall():
            reason = _reason(self._keys[number][1])
            rows = sql.SQL("COPY (SELECT {} {} WHERE l.key = {}) TO STDOUT").format(
                _of_child(pair.columns), source, sql.Literal(number)
            )
            with self._connection.cursor() as cursor, cursor.copy(rows) as copy:
                for row in copy:
                    yield pair, bytes(row), reason

    def _delete(self) -> None:
        parts = [
            sql.SQL("{} AS (DELETE FROM {} c USING {} l WHERE {})").format(
                sql.Identifier(f"deleted_{number}"), table_name(pair.target), _NOTED, _IS_NOTED
            )
            for number, pair in enumerate(self._pairs)
        ]
        self._connection.execute(sql.SQL("WITH {} SELECT").format(sql.SQL(", ").join(parts)))


def _of_child(columns: Sequence[str]) -> sql.Composable:
    return sql.SQL(", ").join(sql.SQL("c.{}").format(sql.Identifier(name)) for name in columns)


def _all(condition: str, *columns: Sequence[str]) -> sql.Composable:
    return sql.SQL(" AND ").join(
        sql.SQL(condition).format(*map(sql.Identifier, names)) for names in zip(*columns, strict=True)
    )


def _reason(key: ForeignKey) -> str:
    return f"it refers to a row of {key.parent[1]} that is not there ({key.name})"
