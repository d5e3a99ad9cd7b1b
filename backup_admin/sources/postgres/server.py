"""The databases of one server: made, exchanged by renaming, closed and dropped.

A restored database is made beside the live one and takes its name in one transaction. Names say what each
is, so that every function may be repeated after a crash at any point.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from backup_admin.core.errors import (
    Busy,
    NeedsAttention,
    NotExchanged,
    NotPermitted,
    SourceError,
    SourceMissing,
)
from backup_admin.sources.postgres.alone import alone, mark_of
from backup_admin.sources.postgres.connect import connected, explain
from backup_admin.sources.postgres.driver import psycopg, sql
from backup_admin.sources.postgres.subscriptions import leave_subscriptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backup_admin.sources.postgres.address import PostgresAddress

_MAINTENANCE = ("postgres", "template1")
_LONGEST_NAME = 63
_ATTEMPTS = 6  # each waits up to five seconds, in the server, for sessions that were ended to be gone
# What has no user is the server's own, such as autovacuum, which it ends by itself for a rename.
# Of whom we may not end, we are not told what kind of process it is.
_OTHERS = """
SELECT pid, usename::text, coalesce(application_name, '') FROM pg_stat_activity
WHERE datname = %s AND pid <> pg_backend_pid() AND usesysid IS NOT NULL ORDER BY pid
"""


@dataclass(frozen=True, slots=True)
class Names:
    """What the databases of one restore are called: live, staged, from before it, and undone."""

    live: str
    staged: str
    old: str
    undone: str

    @property
    def mark(self) -> int:
        """The number that the sessions of this restore hold locked."""
        return mark_of(self.staged)


def names_of(live: str, restore_id: str) -> Names:
    """Return names that tell what each database is; a name has at most 63 bytes."""

    def name(what: str) -> str:
        ending = f"__{what}_{restore_id}"
        if len(live.encode()) > _LONGEST_NAME - len(ending):
            # Databases of one restore may begin alike, and what is cut must not make them one.
            ending = f"_{sha256(live.encode()).hexdigest()[:8]}{ending}"
        return live.encode()[: _LONGEST_NAME - len(ending)].decode(errors="ignore") + ending

    return Names(live, name("restore"), name("old"), name("undone"))


@contextmanager
def at_server(address: PostgresAddress, *, away_from: str) -> Iterator[psycopg.Connection]:
    """Give a connection to another database of the same server; raise what `connected` does."""
    for name in _MAINTENANCE:
        if name == away_from:
            continue
        try:
            with connected(address.at(name), label=f"The server of {address.label}") as connection:
                yield connection
                return
        except SourceMissing:
            if name == _MAINTENANCE[-1]:
                raise


def exists(connection: psycopg.Connection, name: str) -> bool:
    """Say whether the server has a database of that name."""
    return connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).fetchone() is not None


def exchange(address: PostgresAddress, names: Names, *, was_there: bool | None = None) -> None:
    """Give the staged database the name of the live one, which is kept under another and takes nobody in.

    Both renames are one transaction. Nothing is done when it was done before. Raises `Busy` when
    others stay connected, and `NotExchanged` when there is a live one now and there was none, or the
    other way round; live is as it was then.
    """
    with _alone_at_server(address, names) as connection:
        is_there = exists(connection, names.live)
        if not exists(connection, names.staged):
            if not is_there:
                raise NeedsAttention(f"The server has neither {names.live} nor {names.staged}.")
            return
        if was_there is not None and was_there is not is_there:
            what = "made" if is_there else "dropped or renamed"
            raise NotExchanged(f"Database {names.live} was {what} by others meanwhile; plan again.")
        _rename(connection, names.staged, names.live, aside=names.old)


def exchange_back(address: PostgresAddress, names: Names) -> None:
    """Undo `exchange`; no harm is done when it was not done, or undone before.

    What is live now is kept under the name for what was undone.
    """
    with _alone_at_server(address, names) as connection:
        if exists(connection, names.old):
            _rename(connection, names.old, names.live, aside=names.undone)
        elif exists(connection, names.live):
            _allow(connection, names.live, yes=True)


def take_away(address: PostgresAddress, names: Names) -> None:
    """Undo an exchange that had nothing to replace: the name is free again."""
    with _alone_at_server(address, names) as connection:
        untouched = exists(connection, names.staged) or exists(connection, names.undone)
        if not untouched and exists(connection, names.live):
            _close(connection, names.live)
            _together(connection, [_renamed(names.live, names.undone)], names.live)


def drop_kept(address: PostgresAddress, names: Names) -> None:
    """Drop what a restore left beside the live database; the old one only while there is a live one."""
    with _alone_at_server(address, names) as connection:
        for name in (names.staged, names.undone, names.old):
            if name == names.old and not exists(connection, names.live):
                continue
            _drop(connection, address.at(name))


def drop_staged(address: PostgresAddress, names: Names) -> str:
    """Drop what a restore that was put back had not used; return what it had, which is kept.

    Raises `NeedsAttention` when the old database still stands aside: that is what was live, and without
    it there would be none.
    """
    with _alone_at_server(address, names) as connection:
        if exists(connection, names.old):
            raise NeedsAttention(
                f"Database {names.old} holds what was live, and is not back as {names.live}. Nothing was "
                "dropped."
            )
        _drop(connection, address.at(names.staged))
        return names.undone if exists(connection, names.undone) else ""


def create_staged(address: PostgresAddress, names: Names, like: DatabaseKind) -> None:
    """Make an empty database that nobody but its owner may enter."""
    name = names.staged
    with _alone_at_server(address, names) as connection:
        _drop(connection, address.at(name))
        _run(connection, sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), like.options()))
        closed = sql.SQL("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC")
        _run(connection, closed.format(sql.Identifier(name)))


@dataclass(frozen=True, slots=True)
class DatabaseKind:
    """What a database is made with: owner, encoding and the locale it sorts by."""

    owner: str
    encoding: str
    collate: str
    ctype: str
    provider: str = "c"
    locale: str = ""
    rules: str = ""
    tablespace: str = ""

    def options(self) -> sql.Composed:
        """Return the options of `CREATE DATABASE`."""
        given: list[tuple[str, str]] = [
            ("ENCODING", self.encoding),
            ("LC_COLLATE", self.collate),
            ("LC_CTYPE", self.ctype),
        ]
        if self.provider == "i":
            given += [("LOCALE_PROVIDER", "icu"), ("ICU_LOCALE", self.locale)]
            given += [("ICU_RULES", self.rules)] if self.rules else []
        elif self.provider == "b":
            given += [("LOCALE_PROVIDER", "builtin"), ("BUILTIN_LOCALE", self.locale)]
        parts: list[sql.Composable] = [sql.SQL("TEMPLATE template0")]
        parts += [sql.SQL(f"{word} {{}}").format(sql.Literal(value)) for word, value in given]
        if self.owner:
            parts.append(sql.SQL("OWNER {}").format(sql.Identifier(self.owner)))
        if self.tablespace:
            parts.append(sql.SQL("TABLESPACE {}").format(sql.Identifier(self.tablespace)))
        return sql.SQL(" ").join(parts)


def read_kind(connection: psycopg.Connection, name: str) -> DatabaseKind | None:
    """Return what a database was made with; None when there is none of that name."""
    row = connection.execute(
        "SELECT to_jsonb(d) || jsonb_build_object('owner', pg_get_userbyid(datdba), "
        "'encoding', pg_encoding_to_char(encoding), 'tablespace', spcname) "
        "FROM pg_database d JOIN pg_tablespace t ON t.oid = dattablespace WHERE datname = %s",
        (name,),
    ).fetchone()
    if row is None:
        return None
    # Which of these a server has depends on its version.
    found: dict[str, Any] = row[0]
    tablespace = str(found["tablespace"])
    return DatabaseKind(
        owner=str(found["owner"]),
        encoding=str(found["encoding"]),
        collate=str(found["datcollate"]),
        ctype=str(found["datctype"]),
        provider=str(found.get("datlocprovider") or "c"),
        locale=str(found.get("datlocale") or found.get("daticulocale") or ""),
        rules=str(found.get("daticurules") or ""),
        tablespace="" if tablespace == "pg_default" else tablespace,
    )


@contextmanager
def _alone_at_server(address: PostgresAddress, names: Names) -> Iterator[psycopg.Connection]:
    with alone(lambda: at_server(address, away_from=names.live), names.mark) as connection:
        yield connection


def _drop(connection: psycopg.Connection, address: PostgresAddress) -> None:
    """Drop the database of an address, if there is one, from another one of its server."""
    leave_subscriptions(connection, address)
    name = sql.Identifier(address.database)
    _run(connection, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))


def _rename(connection: psycopg.Connection, name: str, live: str, *, aside: str) -> None:
    """Give a database the live name, and what has it another, in one transaction."""
    statements = [_renamed(name, live), _allowed(live, yes=True)]
    if not exists(connection, live):
        _together(connection, statements, name)
        return
    _close(connection, live)
    try:
        _together(connection, [_renamed(live, aside), *statements], live)
    except BaseException:
        _allow(connection, live, yes=True)
        raise


def _close(connection: psycopg.Connection, name: str) -> None:
    """Let nobody in any more, superusers neither; who is in stays until the exchange."""
    _allow(connection, name, yes=False)


def _together(connection: psycopg.Connection, statements: list[sql.Composed], name: str) -> None:
    for attempt in range(_ATTEMPTS):
        _end_sessions(connection, name)
        try:
            with connection.transaction():
                for statement in statements:
                    _run(connection, statement)
        except Busy:
            if attempt == _ATTEMPTS - 1:
                there = [f"{user} ({app or 'no name'})" for _, user, app in _others(connection, name)]
                raise Busy(f"Others do not leave database {name}: {', '.join(there)}.") from None
        else:
            return


def _end_sessions(connection: psycopg.Connection, name: str) -> None:
    for pid, user, app in _others(connection, name):
        try:
            connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
        except psycopg.errors.InsufficientPrivilege as error:
            raise Busy(
                f"Database {name} is used by {user} ({app or 'no name'}), whose session may not be ended "
                "from here: stop that program, or restore as a member of that role."
            ) from error


def _others(connection: psycopg.Connection, name: str) -> list[tuple[int, str, str]]:
    return list(connection.execute(_OTHERS, (name,)))


def _allow(connection: psycopg.Connection, name: str, *, yes: bool) -> None:
    _run(connection, _allowed(name, yes=yes))


def _allowed(name: str, *, yes: bool) -> sql.Composed:
    return sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(sql.Identifier(name), sql.Literal(yes))


def _renamed(before: str, now: str) -> sql.Composed:
    return sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(before), sql.Identifier(now))


def _run(connection: psycopg.Connection, statement: sql.Composed) -> None:
    try:
        connection.execute(statement)
    except psycopg.errors.ObjectInUse as error:
        raise Busy(explain(error)) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise NotPermitted(explain(error)) from error
    except psycopg.Error as error:
        raise SourceError(explain(error)) from error
