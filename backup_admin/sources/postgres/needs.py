"""What a server must have before a database can be made of a capture: extensions, and roles."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from backup_admin.core.errors import RestoreRefused

if TYPE_CHECKING:
    import psycopg

_EXTENSIONS = """
SELECT extname::text, extversion FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY extname
"""
# Objects of the first superuser are not listed as anybody's. What an extension made belongs to who makes
# the extension.
_OWNERS = """
SELECT rolname::text FROM pg_roles r WHERE EXISTS (
  SELECT FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid AND d.datname = current_database()
  WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid AND s.deptype = 'o'
  AND s.classid <> 'pg_extension'::regclass AND NOT EXISTS (
    SELECT FROM pg_depend e WHERE e.classid = s.classid AND e.objid = s.objid AND e.deptype = 'e'))
OR EXISTS (
  SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relowner = r.oid AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' AND NOT EXISTS (
    SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e'))
ORDER BY rolname
"""
_NAMED = """
SELECT DISTINCT r.rolname::text
FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid
JOIN pg_database d ON d.oid = s.dbid AND d.datname = current_database()
WHERE s.refclassid = 'pg_authid'::regclass AND s.deptype IN ('a', 'r') AND NOT EXISTS (
  SELECT FROM pg_depend e WHERE e.classid = s.classid AND e.objid = s.objid AND e.deptype = 'e')
ORDER BY 1
"""
_AVAILABLE = "SELECT name::text FROM pg_available_extensions"
_ROLES = """
SELECT rolname::text, pg_has_role(current_user, oid, 'MEMBER'), current_user::text FROM pg_roles
"""


@dataclass(frozen=True, slots=True)
class Needs:
    """Extensions with their versions; roles that own something, and others with rights or in policies."""

    extensions: tuple[tuple[str, str], ...] = ()
    owners: tuple[str, ...] = ()
    named: tuple[str, ...] = ()


def read_needs(connection: psycopg.Connection) -> Needs:
    """Look at what a database uses, in the transaction of a connection."""
    owners = tuple(name for (name,) in connection.execute(_OWNERS))
    named = tuple(name for (name,) in connection.execute(_NAMED) if name not in owners)
    return Needs(tuple(connection.execute(_EXTENSIONS).fetchall()), owners, named)


def needs_to_json(needs: Needs) -> dict[str, Any]:
    """Write needs as plain data."""
    return asdict(needs)


def needs_from_json(value: Any) -> Needs:
    """Read needs; raise `ValueError`, `KeyError` or `TypeError`."""
    extensions = tuple((str(name), str(version)) for name, version in value["extensions"])
    return Needs(extensions, tuple(map(str, value["owners"])), tuple(map(str, value["named"])))


def refuse_lacking(connection: psycopg.Connection, needs: Needs, label: str, *, no_owner: bool) -> None:
    """Raise `RestoreRefused` for a server that lacks an extension or a role, naming it."""
    available = {name for (name,) in connection.execute(_AVAILABLE)}
    lacking = [f"{name} {version}" for name, version in needs.extensions if name not in available]
    if lacking:
        raise RestoreRefused(
            f"The server of {label} lacks what the database uses: the extension {_and(lacking)}. Nothing was "
            "loaded. Install it on that server, or load into one that has it."
        )
    if no_owner:
        return
    roles = {name: is_member for name, is_member, _ in connection.execute(_ROLES)}
    unknown = [name for name in (*needs.owners, *needs.named) if name not in roles]
    if unknown:
        raise RestoreRefused(
            f"The server of {label} knows no role {_and(unknown)}, and in the database they own something or "
            "have rights. Nothing was loaded. Make them (CREATE ROLE), or leave owners and rights out: "
            "--no-owner."
        )
    foreign = [name for name in needs.owners if not roles[name]]
    if foreign:
        raise RestoreRefused(
            f"In the database things belong to {_and(foreign)}, and who loads into {label} may give nothing "
            "to them. Nothing was loaded. Load as a superuser or as a member of them, or leave owners and "
            "rights out: --no-owner."
        )


def _and(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
