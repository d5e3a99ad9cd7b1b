"""Running what `pg_restore` writes as a script, without `psql` and in a transaction of ours."""

from __future__ import annotations

import re
from typing import IO, TYPE_CHECKING

from backup_admin.sources.postgres.connect import pin_settings

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

# Sent by `pg_restore` from 17 on, and unknown to servers before.
_UNKNOWN_SETTING = b"SET transaction_timeout = 0;"
_UNKNOWN_SINCE = 170_000
# On an extension only its owner may comment; the text comes with the extension.
_NOT_OURS = re.compile(
    rb"""^COMMENT ON EXTENSION (?:"(?:[^"]|"")*"|\w+) IS (?:E?'(?:[^']|'')*'|NULL);$""", re.MULTILINE
)
_ENCODING = re.compile(rb"^SET client_encoding = '\w+';$", re.MULTILINE)


def run_script(connection: psycopg.Connection, script: bytes) -> None:
    """Run a script of definitions in the transaction of the connection, or in one of its own."""
    lines = script.split(b"\n")
    if connection.info.server_version < _UNKNOWN_SINCE and _UNKNOWN_SETTING in lines:
        lines.remove(_UNKNOWN_SETTING)  # once: what stands further down may be a line of a function
    # What is for psql alone stands first and last, and nowhere else on a line of its own.
    own = [number for number, line in enumerate(lines) if line.startswith((b"\\restrict ", b"\\unrestrict "))]
    for number in {*own[:1], *own[-1:]}:
        lines[number] = b""
    encoding = _ENCODING.search(script)
    with connection.transaction():
        if encoding is not None:  # in the midst of a script it would come too late for what follows
            connection.execute(encoding[0])
        connection.execute(b"\n".join(lines))
        pin_settings(connection)  # a dump sets some of them for itself


def without_comments_on_extensions(script: bytes) -> bytes:
    """Leave out what only the owner of an extension may say about it."""
    return _NOT_OURS.sub(b"", script)


def copy_script(source: IO[bytes], target: IO[bytes], *, server_major: int) -> None:
    """Copy what `pg_restore` wrote without what a server of that version does not know."""
    is_to_go = server_major * 10_000 < _UNKNOWN_SINCE
    for line in source:
        if is_to_go and line.rstrip() == _UNKNOWN_SETTING:
            is_to_go = False
            continue
        target.write(line)


def run_large_objects(connection: psycopg.Connection, script: Path) -> None:
    """Run a script of large objects: one statement in each line, so no more than one is in memory."""
    with script.open("rb") as file:
        for line in file:
            statement = line.strip()
            if statement.startswith((b"SELECT pg_catalog.lo", b"ALTER LARGE OBJECT", b"GRANT ", b"REVOKE ")):
                connection.execute(statement)
