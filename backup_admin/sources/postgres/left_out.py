"""Entries of an archive that are not to be restored into a database, or that its user may not restore."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from backup_admin.sources.postgres.needs import membership

if TYPE_CHECKING:
    from collections.abc import Collection

    import psycopg

_SCHEMA = re.compile(rb"\d+; 2615 \d+ SCHEMA - (.+)")
_PUBLIC = "public "
_ON_EXTENSION = re.compile(rb"\d+; \d+ \d+ COMMENT - EXTENSION (.+?) *$")
_EXTENSIONS_OF_OTHERS = """
SELECT extname::text FROM pg_extension WHERE NOT pg_has_role(current_user, extowner, 'USAGE')
"""
_MAY_GIVE = """
SELECT pg_has_role(current_user, r.oid, %s) OR EXISTS (
  SELECT FROM pg_namespace n WHERE n.nspname = 'public' AND n.nspowner = r.oid)
FROM pg_roles r WHERE r.rolname = %s
"""


def left_of(listed: bytes, connection: psycopg.Connection, *, there: Collection[str] = ()) -> bytes:
    """Return a list of `pg_restore` without schemas that are there, and words on extensions of others.

    Every database is made with a schema `public`. Servers before 15 gave it to the first superuser, who
    keeps it when they are upgraded; where ours may not give it away, it is whose it is.
    """

    of_others = {name.encode() for (name,) in connection.execute(_EXTENSIONS_OF_OTHERS)}

    def is_wanted(line: bytes) -> bool:
        commented = _ON_EXTENSION.match(line.rstrip())
        if commented is not None:
            return commented[1] not in of_others
        matched = _SCHEMA.match(line)
        if matched is None:
            return True
        entry = matched[1].decode("utf-8", "replace")
        if entry.startswith(_PUBLIC):
            return _may_give(connection, entry.removeprefix(_PUBLIC).strip())
        return not any(entry.startswith(f"{name} ") for name in there)

    return b"".join(line for line in listed.splitlines(keepends=True) if is_wanted(line))


def _may_give(connection: psycopg.Connection, owner: str) -> bool:
    row = connection.execute(_MAY_GIVE, (membership(connection), owner)).fetchone()
    return row is None or bool(row[0])
