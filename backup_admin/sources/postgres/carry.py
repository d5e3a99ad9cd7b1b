"""What belongs to a database itself and is in no dump of its tables: settings, rights and the comment.

They are read from the live database and given to the one that takes its name.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.sources.postgres.connect import explain
from backup_admin.sources.postgres.driver import psycopg, sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backup_admin.sources.postgres.catalog import DatabaseFacts

_RIGHT = """
SELECT CASE WHEN a.grantee = 0 THEN NULL ELSE pg_get_userbyid(a.grantee) END, a.privilege_type, a.is_grantable
"""
_RIGHTS = f"""{_RIGHT}
FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a WHERE d.datname = %s
"""
_ACL = f"{_RIGHT} FROM aclexplode(%s::aclitem[]) a"
_DEFAULT_RIGHTS = (
    f"{_RIGHT} FROM pg_roles r, aclexplode(acldefault('d', r.oid)) a WHERE r.rolname = current_user"
)
_SETTINGS = """
SELECT CASE WHEN s.setrole = 0 THEN NULL ELSE pg_get_userbyid(s.setrole) END, unnest(s.setconfig)
FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = %s ORDER BY 1, 2
"""
_REST = """
SELECT pg_get_userbyid(datdba), shobj_description(oid, 'pg_database'), datconnlimit
FROM pg_database WHERE datname = %s
"""
# Lists of names, which the server keeps quoted: what is kept is not what a statement is to say.
_LISTS = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)


@dataclass(frozen=True, slots=True)
class Belongings:
    """What is carried over: rights as (role or none for everybody, right, may be passed on)."""

    owner: str
    comment: str | None
    connection_limit: int
    rights: tuple[tuple[str | None, str, bool], ...]
    settings: tuple[tuple[str | None, str], ...]


def read_belongings(connection: psycopg.Connection, name: str) -> Belongings | None:
    """Read what belongs to a database of this server; None when there is none of that name."""
    row = connection.execute(_REST, (name,)).fetchone()
    if row is None:
        return None
    rights = connection.execute(_RIGHTS, (name,)).fetchall()
    settings = connection.execute(_SETTINGS, (name,)).fetchall()
    return Belongings(row[0], row[1], row[2], tuple(rights), tuple(settings))


def facts_as_belongings(connection: psycopg.Connection, facts: DatabaseFacts) -> Belongings:
    """Return what was captured of a database that is gone, as far as this server knows the roles."""
    settings = tuple((None, setting) for setting in facts.settings)
    (role,) = connection.execute("SELECT current_user").fetchone() or ("",)
    rights = connection.execute(_DEFAULT_RIGHTS).fetchall()
    if facts.acl is not None:
        with suppress(psycopg.Error):  # a role that this server does not have
            rights = connection.execute(_ACL, (list(facts.acl),)).fetchall()
    return Belongings(str(role), facts.comment, -1, tuple(rights), settings)


def give_captured(connection: psycopg.Connection, facts: DatabaseFacts) -> tuple[str, ...]:
    """Give what was captured of a database to that of the connection; return what could not be given."""
    own = read_belongings(connection, connection.info.dbname)
    if own is None:
        return ()
    rights, settings = own.rights, tuple((None, setting) for setting in facts.settings)
    try:
        if facts.acl is not None:
            rights = tuple(connection.execute(_ACL, (list(facts.acl),)).fetchall())
        found = Belongings(own.owner, facts.comment, own.connection_limit, rights, settings)
        return give(connection, connection.info.dbname, found, shown=connection.info.dbname)
    except psycopg.Error as error:
        return (f"Rights on the database, its settings and its comment were not given: {explain(error)}",)


def give(connection: psycopg.Connection, name: str, found: Belongings, *, shown: str) -> tuple[str, ...]:
    """Give them to a database that will be called `shown`.

    Returns what could not be given, and how it is done by hand.
    """
    with connection.transaction():  # rights are all there or as before
        for statement in _rights(name, found):
            connection.execute(statement)
    refused: list[str] = []
    for statement in _rest(name, found):
        refused += _try(connection, statement)
    for role, setting in found.settings:
        refused += _give_setting(connection, name, role, setting)
    own, later = (sql.Identifier(one).as_string(connection) for one in (name, shown))
    return tuple(text.replace(own, later) for text in refused)


def _rights(name: str, found: Belongings) -> Iterator[sql.Composed]:
    database = sql.Identifier(name)
    yield sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database)
    yield sql.SQL("REVOKE ALL ON DATABASE {} FROM {}").format(database, sql.Identifier(found.owner))
    for role, right, may_pass_on in found.rights:
        whom = sql.SQL("PUBLIC") if role is None else sql.Identifier(role)
        more = sql.SQL(" WITH GRANT OPTION" if may_pass_on and role is not None else "")
        # The word comes from the server's own catalogue.
        yield sql.SQL(f"GRANT {right} ON DATABASE {{}} TO {{}}{{}}").format(database, whom, more)


def _rest(name: str, found: Belongings) -> Iterator[sql.Composed]:
    database = sql.Identifier(name)
    if found.comment is not None:
        yield sql.SQL("COMMENT ON DATABASE {} IS {}").format(database, sql.Literal(found.comment))
    if found.connection_limit != -1:
        limit = sql.Literal(found.connection_limit)
        yield sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(database, limit)


def _give_setting(
    connection: psycopg.Connection, name: str, role: str | None, setting: str
) -> tuple[str, ...]:
    key, _, value = setting.partition("=")
    whose = sql.SQL("DATABASE {}").format(sql.Identifier(name))
    if role is not None:
        whose = sql.SQL("ROLE {} IN DATABASE {}").format(sql.Identifier(role), sql.Identifier(name))
    if key not in _LISTS:
        return _try(connection, _setting(whose, key, sql.SQL("TO {}").format(sql.Literal(value))))
    try:
        with connection.transaction():
            connection.execute("SELECT set_config(%s, %s, true)", (key, value))
            connection.execute(_setting(whose, key, sql.SQL("FROM CURRENT")))
    except psycopg.Error as error:
        return (_refused(connection, _setting(whose, key, sql.SQL(f"TO {value}")), error),)
    return ()


def _setting(whose: sql.Composed, key: str, value: sql.Composable) -> sql.Composed:
    return sql.SQL("ALTER {} SET {} {}").format(whose, sql.Identifier(*key.split(".")), value)


def _try(connection: psycopg.Connection, statement: sql.Composed) -> tuple[str, ...]:
    try:
        connection.execute(statement)
    except psycopg.Error as error:
        return (_refused(connection, statement, error),)
    return ()


def _refused(connection: psycopg.Connection, statement: sql.Composed, error: psycopg.Error) -> str:
    return f"Not carried over: {explain(error)} Whoever may can run: {statement.as_string(connection)};"
