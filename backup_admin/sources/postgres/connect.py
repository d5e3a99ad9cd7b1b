"""Connections to a PostgreSQL database: the same settings everywhere, and errors people understand."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from backup_admin.core.errors import SourceDenied, SourceError, SourceMissing
from backup_admin.sources.postgres.clients import OLDEST_SERVER
from backup_admin.sources.postgres.driver import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backup_admin.sources.postgres.address import PostgresAddress

# How values are written depends on these: text, and digests of it, are the same for everybody. Whoever looks
# through an empty `search_path` gets every name with its schema.
PINNED = {
    "client_encoding": "UTF8",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmloption": "content",
    "lc_monetary": "C",
    "search_path": "",
    "row_security": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    # On a bad day people set these for a whole database.
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
    # Tables without a key are read as they lie, from the beginning also when others read them.
    "synchronize_seqscans": "off",
}
PINNED_SINCE = {170_000: {"transaction_timeout": "0"}}
_TIMEOUTS_LIFTED = 100
_PIN = "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS pinned (name, value)"
_NO_HOST = "The name of the host leads nowhere. Check how it is spelled, and DNS."
_SIGNS = (
    ("password authentication failed", "The server knows no such user, or another password."),
    ("no password supplied", "The server wants a password, and the address has none."),
    ("no pg_hba.conf entry", "The server lets nobody in from here: its pg_hba.conf has no line for this."),
    ("could not translate host name", _NO_HOST),
    ("failed to resolve host", _NO_HOST),
    ("connection refused", "Nothing listens there. Check host and port, and that the server runs."),
    ("no such file or directory", "There is no socket of a server in that folder. Does it run?"),
    ("timeout expired", "The host does not answer. Check the address and the firewall."),
    ("too many clients", "The server lets in no more connections now. Try again later."),
    ("the database system is", "The server starts or stops just now. Try again later."),
    (
        "server does not support ssl",
        "The server has no TLS, and the address wants it: turn it on there (ssl = on), or change sslmode.",
    ),
    ("permission denied for database", "The user may not enter it: its owner can GRANT CONNECT."),
    (
        "certificate verify failed",
        "The certificate of the server is out of date, or nobody that sslrootcert trusts has signed it.",
    ),
    ("root certificate file", "sslmode needs that file: name it by sslrootcert in the address."),
    ("does not exist", "Check the names in the address."),
    ("no space left on device", "Make room on the disk of the server, then try again."),
    ("certificate", "The two ends do not agree about TLS; see sslmode and sslrootcert in the address."),
)
# What a statement met, whatever the address is.
_SIGNS_OF_STATEMENTS = (
    (
        "row-level security policy",
        "Rows this user may not see would be left out: give it BYPASSRLS (ALTER ROLE … BYPASSRLS).",
    ),
    *(
        (sign, "Only a superuser may: act as one (a restore in place: with --as-superuser).")
        for sign in (
            "must be superuser",
            "permission denied to create extension",
            "permission denied to create event trigger",
            "permission denied to create foreign-data wrapper",
        )
    ),
    ("must be owner of", "It belongs to somebody else, who has to drop it, or act as a superuser."),
    (
        "out of shared memory",
        "It has more tables than may be locked at once: raise max_locks_per_transaction.",
    ),
)

# What servers answer who may not enter, whatever the reason.
_DENIED = (
    *("authentication failed", "no password supplied", "no pg_hba.conf entry"),
    *("permission denied for database", "is not permitted to log in"),
)


@contextmanager
def connected(address: PostgresAddress, *, label: str = "") -> Iterator[psycopg.Connection]:
    """Give a connection in which each statement is a transaction unless one is begun, with `PINNED` settings.

    It is closed with the block. Errors name the address unless there is a `label`. Raises
    `SourceMissing` when there is none to be had (`SourceDenied` when we are not let in), and `SourceError`
    for a server that is too old.
    """
    shown = label or address.label
    try:
        connection = psycopg.connect(**address.keywords(), autocommit=True)
    except psycopg.Error as error:
        said = explain(error)
        if any(sign in said.lower() for sign in _DENIED):
            raise SourceDenied(f"{shown} does not let us in: {said}") from None
        raise SourceMissing(f"{shown} cannot be reached: {said}") from None
    with connection:
        try:
            major = connection.info.server_version // 10_000
            if major < OLDEST_SERVER:
                raise SourceError(
                    f"{shown} is PostgreSQL {major}; the oldest that is supported is {OLDEST_SERVER}."
                )
            pin_settings(connection)
            yield connection
        except psycopg.Error as error:
            raise SourceError(f"{shown}: {explain(error)}") from error


def pin_settings(connection: psycopg.Connection) -> None:
    """Set all that is pinned, as far as the server knows it."""
    # A database may give a statement so little time that even this one is cancelled when the server is busy.
    for _ in range(_TIMEOUTS_LIFTED):
        with suppress(psycopg.errors.QueryCanceled):
            connection.execute("SET statement_timeout = 0")
            break
    settings = dict(PINNED)
    for version, more in PINNED_SINCE.items():
        settings |= more if connection.info.server_version >= version else {}
    connection.execute(_PIN, (list(settings), list(settings.values())))


def take_rows_as_they_are(connection: psycopg.Connection) -> None:
    """Let nobody check what a database without an encoding holds: it may be no UTF-8.

    Text that the connection reads otherwise comes as bytes from then on, and a statement with names has to be
    given as bytes: psycopg would take them for ASCII.
    """
    if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
        connection.execute("SET client_encoding = 'SQL_ASCII'")


def advise(said: str) -> str:
    """Return what is to be done about what the server said of a statement; empty when nobody knows."""
    return next((advice for sign, advice in _SIGNS_OF_STATEMENTS if sign in said.lower()), "")


def explain(error: psycopg.Error) -> str:
    """Return the first line of what the server or libpq said, and what it means for who reads it."""
    said = str(error).strip().partition("\n")[0].rstrip(".")
    # What a statement met has nothing to do with the address.
    lower = said.lower() if isinstance(error, psycopg.OperationalError) else ""
    advice = advise(said) or next((advice for sign, advice in _SIGNS if sign in lower), "")
    return f"{said}. {advice}".strip()
