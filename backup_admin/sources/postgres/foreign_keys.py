"""Foreign keys of a database: which table comes before which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.sources.postgres.catalog import OWN_SCHEMAS
from backup_admin.sources.postgres.driver import sql

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

# A key of a table with partitions has one for each of them, which goes with it.
_KEYS = f"""
SELECT n.nspname, c.relname, pn.nspname, p.relname, k.conname, k.condeferrable, k.condeferred,
  ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u(number, place)
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.number ORDER BY u.place),
  ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u(number, place)
        JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.number ORDER BY u.place)
FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class p ON p.oid = k.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0
AND COALESCE((to_jsonb(k) ->> 'conenforced')::boolean, true) AND {OWN_SCHEMAS}
ORDER BY 1, 2, 5
"""  # noqa: S608 - of constants
_FAMILIES = """
SELECT n.nspname, c.relname, an.nspname, a.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL pg_partition_ancestors(c.oid) above
JOIN pg_class a ON a.oid = above.relid JOIN pg_namespace an ON an.oid = a.relnamespace
WHERE c.relispartition
"""
_Name = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A key by which rows of `child` refer to rows of `parent`; tables are schema and name."""

    child: _Name
    parent: _Name
    name: str
    deferrable: bool
    initially_deferred: bool
    columns: tuple[str, ...]
    parent_columns: tuple[str, ...]

    @property
    def flags(self) -> str:
        """Return when it is checked, in the words of `ALTER CONSTRAINT`."""
        if not self.deferrable:
            return "NOT DEFERRABLE"
        return f"DEFERRABLE INITIALLY {'DEFERRED' if self.initially_deferred else 'IMMEDIATE'}"

    def alter(self, flags: str) -> sql.Composed:
        """Return the statement that changes when it is checked."""
        names = (sql.Identifier(*self.child), sql.Identifier(self.name), sql.SQL(flags))
        return sql.SQL("ALTER TABLE {} ALTER CONSTRAINT {} {}").format(*names)


def read_keys(connection: psycopg.Connection) -> list[ForeignKey]:
    """Return all foreign keys of the app."""
    rows = connection.execute(_KEYS).fetchall()
    return [
        ForeignKey((n, c), (pn, p), name, deferrable, deferred, tuple(columns), tuple(parents))
        for n, c, pn, p, name, deferrable, deferred, columns, parents in rows
    ]


@dataclass(frozen=True, slots=True)
class Link:
    """Two tables that are loaded; rows of one refer to the other, by a key of a table above perhaps."""

    child: _Name
    parent: _Name
    key: ForeignKey


def read_links(connection: psycopg.Connection, tables: Sequence[_Name]) -> list[Link]:
    """Return all links between tables: the key of a table with partitions is one of each of them."""
    above = _above(connection, tables)
    return [
        Link(child, parent, key)
        for child, key in keys_of(connection, tables)
        for parent in tables
        if key.parent in above[parent]
    ]


def keys_of(connection: psycopg.Connection, tables: Sequence[_Name]) -> list[tuple[_Name, ForeignKey]]:
    """Return the keys of tables, whatever they refer to, also those of a table above."""
    above = _above(connection, tables)
    return [(table, key) for key in read_keys(connection) for table in tables if key.child in above[table]]


def _above(connection: psycopg.Connection, tables: Sequence[_Name]) -> dict[_Name, set[_Name]]:
    above = {table: {table} for table in tables}
    for schema, name, *ancestor in connection.execute(_FAMILIES):
        if (schema, name) in above:
            above[schema, name].add((str(ancestor[0]), str(ancestor[1])))
    return above


def sort_tables(tables: Sequence[_Name], links: Sequence[Link]) -> list[_Name]:
    """Return the tables, parents before children; where keys go in a circle, one with the fewest left."""
    left = {table: set[_Name]() for table in tables}
    for link in links:
        if link.parent != link.child:
            left[link.child].add(link.parent)
    order: list[_Name] = []
    while left:
        ready = [table for table, parents in left.items() if not parents]
        chosen = ready or [min(left, key=lambda table: (len(left[table]), table))]
        order += chosen
        for table in chosen:
            del left[table]
        for parents in left.values():
            parents.difference_update(chosen)
    return order
