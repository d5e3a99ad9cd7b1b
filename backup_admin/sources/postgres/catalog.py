"""What a PostgreSQL database holds, as one transaction sees it: tables, sequences, settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from backup_admin.sources.postgres.driver import sql
from backup_admin.sources.postgres.parts import TablePart

if TYPE_CHECKING:
    import collections.abc

    import psycopg

OWN_SCHEMAS = "n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'"
NO_MEMBER = """NOT EXISTS (SELECT FROM pg_depend d
    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')"""
# What values are written in: of a domain its base, of an enumeration that it is one.
TYPE = """CASE WHEN 'e' IN (t.typtype, b.typtype)
    THEN 'enum(' || format_type(COALESCE(b.oid, t.oid), NULL) || ')'
    WHEN b.oid IS NULL THEN format_type(t.oid, a.atttypmod) ELSE format_type(b.oid, t.typtypmod) END"""
_COLUMNS = """ARRAY(SELECT a.attname::text FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
        ORDER BY a.attnum)"""
_KEY = """ARRAY(SELECT a.attname::text
        FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS key(number, place), pg_attribute a
        WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid AND a.attnum = key.number
        ORDER BY key.place)"""
_TYPES = f"""ARRAY(SELECT {TYPE}
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = t.typbasetype
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
        ORDER BY a.attnum)"""  # noqa: S608 - of constants
# The hash of a value of these has numbers in it that are others in each database.
_BY_HASH = """
SELECT p.partrelid FROM pg_partitioned_table p WHERE p.partstrat = 'h' AND EXISTS (
  SELECT FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod
  WHERE o.oid = ANY (p.partclass) AND m.amname = 'hash' AND o.opcnamespace = 'pg_catalog'::regnamespace
  AND o.opcname IN ('enum_ops', 'array_ops', 'record_ops', 'range_ops', 'multirange_ops'))
"""
# Rows lie in ordinary tables and in leaves of partitioned ones. Those of an extension come with it. Where
# only the server can tell which leaf a row belongs to, the table above them stands for them all.
_TABLES = f"""
WITH by_hash AS ({_BY_HASH})
SELECT n.nspname, c.relname, {_COLUMNS}, {_KEY}, CASE c.relkind WHEN 'r' THEN pg_relation_size(c.oid)
  ELSE (SELECT sum(pg_relation_size(t.relid))::bigint FROM pg_partition_tree(c.oid) t) END, {_TYPES},
  c.relkind = 'p'
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (c.relkind = 'r' OR c.oid IN (SELECT partrelid FROM by_hash))
  AND NOT (c.relispartition AND EXISTS (
    SELECT FROM pg_partition_ancestors(c.oid) a (relid) JOIN by_hash ON partrelid = a.relid
    WHERE a.relid <> c.oid))
  AND c.relpersistence <> 't' AND {OWN_SCHEMAS} AND {NO_MEMBER}
ORDER BY n.nspname, c.relname
"""  # noqa: S608 - of constants
_SEQUENCES = f"""
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND {OWN_SCHEMAS} AND {NO_MEMBER}
ORDER BY n.nspname, c.relname
"""  # noqa: S608 - of constants
_DATABASE = """
SELECT d.datname, pg_get_userbyid(d.datdba), pg_encoding_to_char(d.encoding), d.datcollate, d.datctype,
  d.datacl::text[], shobj_description(d.oid, 'pg_database'),
  (SELECT s.setconfig FROM pg_db_role_setting s WHERE s.setdatabase = d.oid AND s.setrole = 0),
  coalesce(to_jsonb(d)->>'datlocprovider', 'c'),
  coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale', ''),
  coalesce(to_jsonb(d)->>'daticurules', '')
FROM pg_database d WHERE d.datname = current_database()
"""
# What an extension marked to be dumped, and which of its rows are not its own.
_CONFIGURED = f"""
SELECT e.extname, c.relkind = 'S', n.nspname, c.relname, {_COLUMNS}, {_KEY}, pg_relation_size(c.oid),
  {_TYPES}, u.condition
FROM pg_extension e, unnest(e.extconfig, e.extcondition) AS u(number, condition)
JOIN pg_class c ON c.oid = u.number JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'S') ORDER BY e.extname, n.nspname, c.relname
"""  # noqa: S608 - of constants

_RARE = ("condition", "divided")


@dataclass(frozen=True, slots=True)
class Table:
    """A table with rows of its own: its columns that are stored, and those of its primary key, in order.

    Of a table of an extension those rows count that its condition lets through. One that is `divided` has
    those of all its partitions, and the server decides anew where each goes.
    """

    schema: str
    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    size: int = 0
    types: tuple[str, ...] = ()
    condition: str = ""
    divided: bool = False

    @property
    def shown(self) -> str:
        """Return the name as people write it."""
        return self.name if self.schema == "public" else f"{self.schema}.{self.name}"

    def quoted(self) -> sql.Composable:
        """Return the name as it stands in a statement."""
        return sql.Identifier(self.schema, self.name)

    def rows(self) -> sql.Composable:
        """Return what its rows are selected from."""
        return self.quoted() if self.divided else sql.SQL("ONLY {}").format(self.quoted())

    def copy_out(self, *, in_order: bool = True) -> sql.Composed:
        """Return the statement that writes all rows, in the order of the primary key where there is one.

        So a row that changed moves no other: the next backup finds the rest where it was.
        """
        order: sql.Composable = sql.SQL("")
        if self.key and in_order:
            order = sql.SQL(" ORDER BY {}").format(_list(self.key))
        # The condition is what the extension wrote for `pg_dump`.
        where = sql.SQL(f" {self.condition}" if self.condition else "")
        query = sql.SQL("SELECT {} FROM {}{}{}").format(_list(self.columns), self.rows(), where, order)
        return sql.SQL("COPY ({}) TO STDOUT").format(query)

    def has_rows(self) -> sql.Composed:
        """Return the query that says whether there is a row."""
        where = sql.SQL(f" {self.condition}" if self.condition else "")
        return sql.SQL("SELECT EXISTS (SELECT FROM {}{})").format(self.rows(), where)

    def is_called(self) -> sql.Composed:
        """Return the query that says whether a sequence was used."""
        return sql.SQL("SELECT is_called FROM {}").format(self.quoted())

    def copy_in(self, *, frozen: bool = False) -> sql.Composed:
        """Return the statement that reads what `copy_out` wrote.

        Frozen rows need not be written again when they are first read; the transaction must have
        emptied the table.
        """
        columns = sql.SQL(" ({})").format(_list(self.columns)) if self.columns else sql.SQL("")
        # What a server hands on to partitions it never freezes.
        options = sql.SQL(" WITH (FREEZE)" if frozen and not self.divided else "")
        return sql.SQL("COPY {}{} FROM STDIN{}").format(self.quoted(), columns, options)


@dataclass(frozen=True, slots=True)
class Sequence:
    """A sequence and where it stands."""

    schema: str
    name: str
    last_value: int
    is_called: bool


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What belongs to the database itself and is in none of its tables."""

    name: str
    owner: str
    encoding: str
    collate: str
    ctype: str
    acl: tuple[str, ...] | None
    comment: str | None
    settings: tuple[str, ...]
    provider: str = "c"
    locale: str = ""
    rules: str = ""


@dataclass(frozen=True, slots=True)
class Catalog:
    """All that a capture needs to know; `reasons` say why only a whole archive can carry it.

    Then `configured` are the tables of extensions with rows that are not the extension's own.
    """

    database: DatabaseFacts
    tables: tuple[Table, ...]
    sequences: tuple[Sequence, ...]
    large_objects: int
    reasons: tuple[str, ...]
    configured: tuple[Table, ...] = ()


def read_catalog(connection: psycopg.Connection) -> Catalog:
    """Look around in the transaction of a connection."""
    tables = tuple(
        Table(schema, name, tuple(columns), tuple(key), size, tuple(types), divided=divided)
        for schema, name, columns, key, size, types, divided in connection.execute(_TABLES)
    )
    sequences = []
    for schema, name in connection.execute(_SEQUENCES).fetchall():
        query = sql.SQL("SELECT last_value, is_called FROM {}").format(sql.Identifier(schema, name))
        last_value, is_called = _one(connection, query)
        sequences.append(Sequence(schema, name, last_value, is_called))
    (large_objects,) = _one(connection, sql.SQL("SELECT count(*) FROM pg_largeobject_metadata"))
    reasons, configured = _read_configured(connection)
    database = _read_database(connection)
    return Catalog(database, tables, tuple(sequences), large_objects, reasons, configured)


def catalog_to_json(catalog: Catalog, tables: collections.abc.Sequence[Table]) -> dict[str, Any]:
    """Write a catalogue as plain data, with these of its tables."""
    return {
        "database": asdict(catalog.database),
        "tables": [_table_to_json(table) for table in tables],
        "sequences": [asdict(sequence) for sequence in catalog.sequences],
        "large_objects": catalog.large_objects,
    }


def _table_to_json(table: Table) -> dict[str, Any]:
    value = asdict(table)
    return {key: found for key, found in value.items() if found or key not in _RARE}


def tables_from_json(value: Any) -> tuple[Table, ...]:
    """Read tables; raise `ValueError`, `KeyError` or `TypeError`."""

    def table(row: Any) -> Table:
        names = (str(row["schema"]), str(row["name"]))
        types, condition = _texts(row.get("types", ())), str(row.get("condition", ""))
        columns, key, size = _texts(row["columns"]), _texts(row["key"]), int(row["size"])
        return Table(*names, columns, key, size, types, condition, bool(row.get("divided", False)))

    return tuple(map(table, value))


def table_parts(value: Any) -> tuple[TablePart, ...]:
    """Read the tables of `contents.json`; raise `ValueError`, `KeyError` or `TypeError`."""
    return tuple(
        TablePart(
            table,
            str(row["file"]),
            int(row["rows"]),
            int(row["bytes"]),
            str(row["sha256"]),
            str(row.get("row_sum", "")),
        )
        for table, row in zip(tables_from_json(value), value, strict=True)
    )


def sequences_from_json(value: Any) -> tuple[Sequence, ...]:
    """Read sequences; raise `ValueError`, `KeyError` or `TypeError`."""
    return tuple(
        Sequence(str(row["schema"]), str(row["name"]), int(row["last_value"]), bool(row["is_called"]))
        for row in value
    )


def database_from_json(value: Any) -> DatabaseFacts:
    """Read what belongs to a database; raise `KeyError` or `TypeError`."""
    acl = None if value["acl"] is None else _texts(value["acl"])
    comment = None if value["comment"] is None else str(value["comment"])
    name, owner, encoding, collate, ctype = (
        str(value[key]) for key in ("name", "owner", "encoding", "collate", "ctype")
    )
    # Older captures do not say who sorts.
    provider, locale, rules = str(value.get("provider", "c")), value.get("locale", ""), value.get("rules", "")
    return DatabaseFacts(
        name,
        owner,
        encoding,
        collate,
        ctype,
        acl,
        comment,
        _texts(value["settings"]),
        provider,
        str(locale),
        str(rules),
    )


def _read_configured(connection: psycopg.Connection) -> tuple[tuple[str, ...], tuple[Table, ...]]:
    """Return why only an archive can carry a database, and the tables of extensions that have rows."""
    reasons: dict[str, None] = {}
    tables = []
    for extension, is_sequence, *facts, condition in connection.execute(_CONFIGURED).fetchall():
        schema, name, columns, key, size, types = facts
        table = Table(schema, name, tuple(columns), tuple(key), size, tuple(types), condition or "")
        (is_used,) = _one(connection, table.is_called() if is_sequence else table.has_rows())
        if is_used:
            reasons[f"the extension {extension} keeps rows of yours in tables that belong to it"] = None
            tables += [] if is_sequence else [table]
    return tuple(reasons), tuple(tables)


def _read_database(connection: psycopg.Connection) -> DatabaseFacts:
    name, owner, encoding, collate, ctype, acl, comment, settings, *sorting = _one(
        connection, sql.SQL(_DATABASE)
    )
    return DatabaseFacts(
        name,
        owner,
        encoding,
        collate,
        ctype,
        None if acl is None else tuple(acl),
        comment,
        tuple(settings or ()),
        *sorting,
    )


def _one(connection: psycopg.Connection, query: sql.SQL | sql.Composed) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = connection.execute(query).fetchone()
    if row is None:
        raise LookupError("a query of one row had none")
    return row


def _list(names: tuple[str, ...]) -> sql.Composable:
    return sql.SQL(", ").join(sql.Identifier(name) for name in names)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value))
