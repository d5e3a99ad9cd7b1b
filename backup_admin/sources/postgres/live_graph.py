"""The tables of a live PostgreSQL database and their foreign keys, read from its catalogue.

A partitioned table is one table: rows go in at its root, wherever they lie.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from backup_admin.core.errors import RestoreRefused
from backup_admin.sources.merging.graph import (
    Graph,
    LiveColumn,
    LiveTable,
    Reference,
    UniqueKey,
    quote,
)
from backup_admin.sources.postgres.triggers import TRIGGER

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

_TRIGGER_BITS = {"INSERT": 4, "DELETE": 8, "UPDATE": 16}  # of `tgtype`
_OWN_SCHEMAS = "n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'"
_TABLES = f"""
SELECT c.oid, n.nspname, c.relname, c.relkind = 'p',
  CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid END,
  coalesce((SELECT bit_or(t.tgtype) FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
    AND t.tgenabled <> 'D' AND t.tgname <> '{TRIGGER}'), 0)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND {_OWN_SCHEMAS}
ORDER BY n.nspname, c.relname
"""
# What lies below a domain: rows that nobody chose need not fulfil what it demands by now.
_COLUMNS = f"""
SELECT a.attrelid, a.attname, format_type(base.kind, base.modifier),
  a.attgenerated = '', a.attidentity <> 'a',
  CASE WHEN a.attcollation <> 0 AND a.attcollation <> t.typcollation THEN
    (SELECT format(' COLLATE %I.%I', cn.nspname, co.collname)
     FROM pg_collation co JOIN pg_namespace cn ON cn.oid = co.collnamespace WHERE co.oid = a.attcollation)
  ELSE '' END,
  (SELECT s.oid::regclass::text FROM pg_class s WHERE s.relkind = 'S' AND s.oid IN (
     SELECT d.objid FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
       AND d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
       AND d.deptype IN ('a', 'i')
     UNION SELECT d.refobjid FROM pg_attrdef f JOIN pg_depend d
       ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass
     WHERE f.adrelid = a.attrelid AND f.adnum = a.attnum) LIMIT 1)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN LATERAL (
  WITH RECURSIVE up AS (
    SELECT a.atttypid AS kind, a.atttypmod AS modifier
    UNION ALL
    SELECT d.typbasetype, d.typtypmod FROM up JOIN pg_type d ON d.oid = up.kind WHERE d.typtype = 'd')
  SELECT up.kind, up.modifier FROM up JOIN pg_type d ON d.oid = up.kind WHERE d.typtype <> 'd'
) AS base ON true
JOIN pg_type t ON t.oid = base.kind
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
  AND {_OWN_SCHEMAS}
ORDER BY a.attrelid, a.attnum
"""
_OPERATOR = "format('OPERATOR(%I.%s)', opn.nspname, op.oprname)"
# What is equal for an index is equal for its operator class, whatever `=` means on the search path.
_INDEXES = f"""
SELECT i.indrelid, i.indisprimary, x.relname,
  ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum > 0 AND (
      a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1]) OR EXISTS (SELECT FROM pg_depend d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
          AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum))
    ORDER BY a.attnum),
  ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, true) FROM generate_series(1, i.indnkeyatts) AS k ORDER BY k),
  ARRAY(SELECT a.attname::text FROM generate_series(1, i.indnkeyatts) AS k JOIN pg_attribute a
    ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k - 1] ORDER BY k),
  ARRAY(SELECT {_OPERATOR} FROM generate_series(1, i.indnkeyatts) AS k
    JOIN pg_opclass oc ON oc.oid = i.indclass[k - 1]
    JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amoplefttype = oc.opcintype
      AND ao.amoprighttype = oc.opcintype AND ao.amopstrategy = 3
    JOIN pg_operator op ON op.oid = ao.amopopr JOIN pg_namespace opn ON opn.oid = op.oprnamespace ORDER BY k),
  coalesce(pg_get_expr(i.indpred, i.indrelid), ''),
  coalesce((to_jsonb(i)->>'indnullsnotdistinct')::boolean, false)
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE i.indisunique AND i.indisvalid AND NOT c.relispartition AND {_OWN_SCHEMAS}
ORDER BY x.relname
"""
# Those of partitions stand once, at the root. Keys over times (18) and not enforced ones link no rows.
_REFERENCES = f"""
SELECT con.conname, con.conrelid, con.confrelid,
  ARRAY(SELECT a.attname::text FROM unnest(con.conkey) WITH ORDINALITY AS k(number, place)
    JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.number ORDER BY k.place),
  ARRAY(SELECT a.attname::text FROM unnest(con.confkey) WITH ORDINALITY AS k(number, place)
    JOIN pg_attribute a ON a.attrelid = con.confrelid AND a.attnum = k.number ORDER BY k.place),
  ARRAY(SELECT {_OPERATOR} FROM unnest(con.conpfeqop) WITH ORDINALITY AS k(operator, place)
    JOIN pg_operator op ON op.oid = k.operator JOIN pg_namespace opn ON opn.oid = op.oprnamespace
    ORDER BY k.place),
  con.confdeltype NOT IN ('n', 'd'), con.condeferrable
FROM pg_constraint con
WHERE con.contype = 'f' AND con.conparentid = 0
  AND NOT coalesce((to_jsonb(con)->>'conperiod')::boolean, false)
  AND coalesce((to_jsonb(con)->>'conenforced')::boolean, true)
ORDER BY con.conrelid, con.conname
"""


def shown_name(schema: str, name: str) -> str:
    """Return the name of a table as people write it."""
    return name if schema == "public" else f"{schema}.{name}"


def read_graph(connection: psycopg.Connection) -> Graph:
    """Read the tables of a database as its connection sees them."""
    rows = connection.execute(_TABLES).fetchall()
    names = {row[0]: shown_name(row[1], row[2]) for row in rows}
    places = {row[0]: f"{quote(row[1])}.{quote(row[2])}" for row in rows}
    _refuse_two_of_one_name(list(names.values()))
    roots: dict[int, int] = {row[0]: row[0] if row[4] is None else row[4] for row in rows}
    columns = _read_columns(connection)
    keys, uniques = _read_indexes(connection)
    tables = {}
    for oid, _, _, is_partitioned, root, _ in rows:
        if root is None:
            key, equals = keys.get(oid, ((), ()))
            tables[names[oid]] = LiveTable(
                name=names[oid],
                place=places[oid],
                # Rows of tables that inherit from it are theirs.
                reading=places[oid] if is_partitioned else f"ONLY {places[oid]}",
                columns=tuple(columns[oid]),
                key=key,
                key_equals=equals,
                uniques=tuple(uniques[oid]),
                triggers=frozenset(
                    kind
                    for kind, bit in _TRIGGER_BITS.items()
                    for row in rows
                    if oid in (row[0], row[4]) and row[5] & bit
                ),
            )
    partitions = {names[row[0]]: names[row[4]] for row in rows if row[4] is not None and row[4] in names}
    return Graph(tables, _read_references(connection, names, places, roots), partitions)


def _refuse_two_of_one_name(names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise RestoreRefused(
            f"Two tables are both called {twice[0]}: one has a dot in its name, one is in a schema. "
            "Nothing was touched. Rename one, or restore the database with --to and take the rows from there."
        )


def _read_columns(connection: psycopg.Connection) -> Mapping[int, list[LiveColumn]]:
    found: defaultdict[int, list[LiveColumn]] = defaultdict(list)
    for oid, name, kind, written, changeable, collation, sequence in connection.execute(_COLUMNS):
        number = len(found[oid])
        found[oid].append(
            LiveColumn(number, name, kind, collation, written, written and changeable, sequence or "")
        )
    return found


def _read_indexes(
    connection: psycopg.Connection,
) -> tuple[dict[int, tuple[tuple[str, ...], tuple[str, ...]]], Mapping[int, list[UniqueKey]]]:
    keys = {}
    uniques: defaultdict[int, list[UniqueKey]] = defaultdict(list)
    for oid, is_primary, name, used, parts, columns, equals, condition, nulls in connection.execute(_INDEXES):
        if is_primary:
            keys[oid] = (tuple(columns), tuple(equals))
        else:
            uniques[oid].append(UniqueKey(name, tuple(used), tuple(parts), tuple(equals), condition, nulls))
    return keys, uniques


def _read_references(
    connection: psycopg.Connection, names: dict[int, str], places: dict[int, str], roots: dict[int, int]
) -> tuple[Reference, ...]:
    found = []
    for row in connection.execute(_REFERENCES):
        name, child, parent, columns, parent_columns, equals, owns, is_deferrable = row
        if child in roots and parent in roots:
            found.append(
                Reference(
                    name=name,
                    child=names[roots[child]],
                    columns=tuple(columns),
                    parent=names[roots[parent]],
                    parent_columns=tuple(parent_columns),
                    equals=tuple(equals),
                    owns=owns,
                    is_deferrable=is_deferrable,
                    place=places[child],
                )
            )
    return tuple(found)
