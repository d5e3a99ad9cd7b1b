"""Dropping all that is in a database, by whoever owns it and not what an extension brought."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.sources.postgres.driver import sql

if TYPE_CHECKING:
    import psycopg

# Members of extensions, and parts of other objects. A partitioned table is a part of its own columns.
_KEPT = """NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = {object} AND e.objid = {number}
    AND e.deptype IN ('e', 'i') AND e.refobjid <> e.objid)"""
_OWN_SCHEMAS = "n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'"
# With their schema they would go too, and only a superuser could make most of them again.
_HAS_EXTENSION = "EXISTS (SELECT FROM pg_extension x WHERE x.extnamespace = n.oid)"
_SCHEMAS = f"""
SELECT 'schema', quote_ident(n.nspname) FROM pg_namespace n
WHERE n.nspname <> 'public' AND {_OWN_SCHEMAS} AND NOT {_HAS_EXTENSION}
AND {_KEPT.format(object="'pg_namespace'::regclass", number="n.oid")}
"""  # noqa: S608 - of constants
_IN_KEPT_SCHEMAS = f"""
SELECT o.type, o.identity FROM pg_namespace n
JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid,
pg_identify_object(d.classid, d.objid, 0) o
WHERE {_OWN_SCHEMAS} AND (n.nspname = 'public' OR {_HAS_EXTENSION})
AND d.deptype = 'n' AND d.classid <> 'pg_extension'::regclass
AND {_KEPT.format(object="d.classid", number="d.objid")} LIMIT 1
"""  # noqa: S608 - of constants
_OF_THE_DATABASE = """
SELECT 'publication', quote_ident(pubname) FROM pg_publication
UNION ALL SELECT 'event trigger', quote_ident(evtname) FROM pg_event_trigger t
WHERE NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_event_trigger'::regclass
    AND e.objid = t.oid AND e.deptype = 'e')
UNION ALL SELECT 'server', quote_ident(srvname) FROM pg_foreign_server
"""
# What nobody granted is not kept. Without a schema they stand in place of what everybody gets.
_DEFAULT_RIGHTS = """
SELECT pg_get_userbyid(a.defaclrole), coalesce(n.nspname, ''), a.defaclobjtype::text,
  ARRAY(SELECT DISTINCT CASE WHEN e.grantee = 0 THEN '' ELSE pg_get_userbyid(e.grantee)::text END
        FROM aclexplode(a.defaclacl) e),
  ARRAY(SELECT CASE WHEN e.grantee = 0 THEN '' ELSE pg_get_userbyid(e.grantee)::text END
        || ' ' || e.privilege_type
        FROM aclexplode(acldefault(
          CASE a.defaclobjtype WHEN 'S' THEN 's' ELSE a.defaclobjtype END, a.defaclrole)) e
        WHERE a.defaclnamespace = 0)
FROM pg_default_acl a LEFT JOIN pg_namespace n ON n.oid = a.defaclnamespace
"""
_KINDS = {
    "r": "TABLES",
    "S": "SEQUENCES",
    "f": "FUNCTIONS",
    "T": "TYPES",
    "n": "SCHEMAS",
    "L": "LARGE OBJECTS",
}
_WORDS = {"statistics object": "statistics", "composite type": "type"}
_OWNED_BY_DATABASE_OWNER = 150_000


def drop_all(connection: psycopg.Connection) -> None:
    """Drop everything in the transaction of a connection; extensions and the schemas they lie in stay."""
    for query in (_OF_THE_DATABASE, _SCHEMAS):
        for kind, name in connection.execute(query.encode()).fetchall():
            _drop(connection, kind, name)
    # What depends on others goes with them, so each is looked for when its turn comes.
    while (row := connection.execute(_IN_KEPT_SCHEMAS.encode()).fetchone()) is not None:
        _drop(connection, *row)
    connection.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
    # They would give rights on what is made that the backup does not know.
    for role, schema, kind, grantees, usual in connection.execute(_DEFAULT_RIGHTS).fetchall():
        _take_default_rights(connection, role, schema, _KINDS[kind], grantees, usual)


def schemas(connection: psycopg.Connection) -> tuple[str, ...]:
    """Return the schemas that are there, but those of the server."""
    query = f"SELECT nspname::text FROM pg_namespace n WHERE {_OWN_SCHEMAS}"  # noqa: S608 - of constants
    return tuple(name for (name,) in connection.execute(query.encode()))


def make_public(connection: psycopg.Connection, listed: bytes) -> None:
    """Make the schema `public`, which no archive does, when it is gone and something of a list lies in it."""
    if "public" in schemas(connection) or b" public " not in listed:
        return
    connection.execute("CREATE SCHEMA public")
    connection.execute("COMMENT ON SCHEMA public IS 'standard public schema'")
    connection.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
    if connection.info.server_version >= _OWNED_BY_DATABASE_OWNER:
        connection.execute("ALTER SCHEMA public OWNER TO pg_database_owner")


def _drop(connection: psycopg.Connection, kind: str, name: str) -> None:
    # Both come from the server, which has quoted the name.
    connection.execute(f"DROP {_WORDS.get(kind, kind)} {name} CASCADE".encode())


def _take_default_rights(
    connection: psycopg.Connection, role: str, schema: str, kind: str, grantees: list[str], usual: list[str]
) -> None:
    begin = sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {}").format(sql.Identifier(role))
    if schema:
        begin += sql.SQL(" IN SCHEMA {}").format(sql.Identifier(schema))
    for grantee in grantees:
        connection.execute(begin + sql.SQL(f" REVOKE ALL ON {kind} FROM {{}}").format(_whom(grantee)))
    for one in usual:
        grantee, _, right = one.rpartition(" ")
        connection.execute(begin + sql.SQL(f" GRANT {right} ON {kind} TO {{}}").format(_whom(grantee)))


def _whom(grantee: str) -> sql.Composable:
    return sql.Identifier(grantee) if grantee else sql.SQL("PUBLIC")
