"""What a server must have before a database can be made of a capture: extensions, roles, and rights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from backup_admin.core.errors import RestoreRefused
from backup_admin.sources.postgres.catalog import OWN_SCHEMAS
from backup_admin.sources.postgres.driver import psycopg, sql

if TYPE_CHECKING:
    from collections.abc import Sequence

_EXTENSIONS = """
SELECT extname::text, extversion FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY extname
"""
# What an extension made belongs to who makes the extension. What the server was made with has small numbers.
_OWNED = f"""
SELECT 'pg_class'::regclass AS kind, c.oid, c.relowner AS owner
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {OWN_SCHEMAS}
UNION ALL SELECT 'pg_proc'::regclass, c.oid, c.proowner
  FROM pg_proc c JOIN pg_namespace n ON n.oid = c.pronamespace WHERE {OWN_SCHEMAS}
UNION ALL SELECT 'pg_type'::regclass, c.oid, c.typowner
  FROM pg_type c JOIN pg_namespace n ON n.oid = c.typnamespace
  WHERE c.typtype IN ('d', 'e', 'r') AND {OWN_SCHEMAS}
UNION ALL SELECT 'pg_namespace'::regclass, n.oid, n.nspowner
  FROM pg_namespace n WHERE n.nspname <> 'public' AND {OWN_SCHEMAS}
UNION ALL SELECT 'pg_event_trigger'::regclass, oid, evtowner FROM pg_event_trigger
UNION ALL SELECT 'pg_publication'::regclass, oid, pubowner FROM pg_publication
UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, fdwowner FROM pg_foreign_data_wrapper
UNION ALL SELECT 'pg_foreign_server'::regclass, oid, srvowner FROM pg_foreign_server
UNION ALL SELECT 'pg_largeobject_metadata'::regclass, oid, lomowner FROM pg_largeobject_metadata
"""  # noqa: S608 - of constants
# Objects of the first superuser are not listed as anybody's, so they are looked for one kind after the other.
_OWNERS = f"""
SELECT rolname::text FROM pg_roles r WHERE EXISTS (
  SELECT FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid AND d.datname = current_database()
  WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid AND s.deptype = 'o'
  AND s.classid <> 'pg_extension'::regclass AND NOT EXISTS (
    SELECT FROM pg_depend e WHERE e.classid = s.classid AND e.objid = s.objid AND e.deptype = 'e'))
OR r.oid IN (
  SELECT o.owner FROM ({_OWNED}) o WHERE o.oid >= 16384 AND NOT EXISTS (
    SELECT FROM pg_depend e WHERE e.classid = o.kind AND e.objid = o.oid AND e.deptype = 'e'))
ORDER BY rolname
"""  # noqa: S608 - of constants
_NAMED = """
SELECT DISTINCT r.rolname::text, s.deptype = 'r'
FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid
JOIN pg_database d ON d.oid = s.dbid AND d.datname = current_database()
WHERE s.refclassid = 'pg_authid'::regclass AND s.deptype IN ('a', 'r') AND NOT EXISTS (
  SELECT FROM pg_depend e WHERE e.classid = s.classid AND e.objid = s.objid AND e.deptype = 'e')
ORDER BY 1
"""
_FORCED = f"""
SELECT CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END || c.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relrowsecurity AND c.relforcerowsecurity AND {OWN_SCHEMAS} ORDER BY 1
"""  # noqa: S608 - of constants
_TABLESPACES = f"""
SELECT DISTINCT t.spcname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE {OWN_SCHEMAS} ORDER BY 1
"""  # noqa: S608 - of constants
_AVAILABLE = "SELECT name::text FROM pg_available_extensions"
_MAY_SET = 160_000  # since then a member may be one who cannot act as the role
_ROLES = "SELECT rolname::text, pg_has_role(current_user, oid, %s) FROM pg_roles"
_OWNS_PUBLIC = "SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname = 'public'"
_SEES_ALL = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
_IS_SUPERUSER = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
_SPACES = "SELECT spcname::text FROM pg_tablespace WHERE has_tablespace_privilege(oid, 'CREATE')"
_LACKING = "SELECT name FROM unnest(%s::text[]) name WHERE name NOT IN (SELECT extname FROM pg_extension)"


@dataclass(frozen=True, slots=True)
class Needs:
    """Extensions with their versions; roles that own something, and others with rights or in policies.

    Those `in_policies` are named whoever owns things. `forced` are tables whose policies bind their owner.
    """

    extensions: tuple[tuple[str, str], ...] = ()
    owners: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    in_policies: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()
    tablespaces: tuple[str, ...] = ()


def membership(connection: psycopg.Connection) -> str:
    """Return the word for being a member who may give things to the role."""
    return "SET" if connection.info.server_version >= _MAY_SET else "MEMBER"


def read_needs(connection: psycopg.Connection) -> Needs:
    """Look at what a database uses, in the transaction of a connection."""
    owners = tuple(name for (name,) in connection.execute(_OWNERS.encode()))
    named = connection.execute(_NAMED).fetchall()
    return Needs(
        tuple(connection.execute(_EXTENSIONS).fetchall()),
        owners,
        tuple(dict.fromkeys(name for name, _ in named if name not in owners)),
        tuple(name for name, is_in_policy in named if is_in_policy),
        tuple(name for (name,) in connection.execute(_FORCED.encode())),
        tuple(name for (name,) in connection.execute(_TABLESPACES.encode())),
    )


def needs_to_json(needs: Needs) -> dict[str, Any]:
    """Write needs as plain data."""
    return asdict(needs)


def needs_from_json(value: Any) -> Needs:
    """Read needs; raise `ValueError`, `KeyError` or `TypeError`."""
    extensions = tuple((str(name), str(version)) for name, version in value["extensions"])
    owners, named = (tuple(map(str, value[key])) for key in ("owners", "named"))
    # Older captures do not say.
    later = (tuple(map(str, value.get(key, ()))) for key in ("in_policies", "forced", "tablespaces"))
    return Needs(extensions, owners, named, *later)


def refuse_lacking(connection: psycopg.Connection, needs: Needs, label: str, *, no_owner: bool) -> None:
    """Raise `RestoreRefused` for a server that lacks an extension or a role, or gives us too few rights."""
    available = {name for (name,) in connection.execute(_AVAILABLE)}
    lacking = [f"{name} {version}" for name, version in needs.extensions if name not in available]
    if lacking:
        raise RestoreRefused(
            f"The server of {label} lacks what the database uses: the extension {_and(lacking)}. Nothing was "
            "loaded. Install it on that server, or load into one that has it."
        )
    _refuse_roles(connection, needs, label, no_owner=no_owner)
    if needs.forced and not connection.execute(_SEES_ALL).fetchone() == (True,):
        raise RestoreRefused(
            f"In the database policies bind also the owner of {_and(needs.forced)} (FORCE ROW LEVEL "
            f"SECURITY), and who loads into {label} could not read back what was loaded. Nothing was loaded. "
            "Give that user BYPASSRLS, or load as a superuser."
        )


def what_lacks(connection: psycopg.Connection, needs: Needs, label: str) -> str:
    """Return what would make a restore in place fail, and what to do; empty when nothing is known to.

    An owner of the live schema `public` is none of that: it stays whose it is.
    """
    roles: dict[str, bool] = dict(connection.execute(_ROLES, (membership(connection),)).fetchall())
    unknown = [name for name in (*needs.owners, *needs.named) if name not in roles]
    if unknown:
        return (
            f"The server knows no role {_and(unknown)}, and in the backup they own something or have rights. "
            "Make them first: CREATE ROLE."
        )
    stays = {name for (name,) in connection.execute(_OWNS_PUBLIC)}
    foreign = [name for name in needs.owners if not roles[name] and name not in stays]
    if foreign:
        user = connection.info.user
        return (
            f"In the backup things belong to {_and(foreign)}, and {user} is no member who may give things to "
            f"them. Let it be one (GRANT {', '.join(foreign)} TO {user}), or restore as a superuser with "
            "--as-superuser."
        )
    try:
        refuse_lacking(connection, needs, label, no_owner=True)
    except RestoreRefused as error:
        return str(error).replace(" Nothing was loaded.", "")
    return ""


def refuse_extensions(connection: psycopg.Connection, needs: Needs, label: str) -> None:
    """Raise `RestoreRefused` unless the extensions are there or may be made: it is tried, and taken back.

    What the server calls trusted does not tell: some let other roles than superusers make the rest. The
    session is to end then, since what an extension loaded into it stays.
    """
    if connection.execute(_IS_SUPERUSER).fetchone() == (True,):
        return
    names = [name for name, _ in needs.extensions]
    for (name,) in connection.execute(_LACKING, (names,)).fetchall():
        try:
            with connection.transaction(force_rollback=True):
                connection.execute("SET LOCAL search_path TO public")
                connection.execute(sql.SQL("CREATE EXTENSION {} CASCADE").format(sql.Identifier(name)))
        except psycopg.errors.InsufficientPrivilege:
            raise RestoreRefused(
                f"The user of {label} may not make the extension {name}, which the database uses. Nothing "
                "was loaded. Load as a superuser, or let one make the extension in an empty database and "
                "load into that. In place: restore as a superuser with --as-superuser, or take CREATEDB from "
                "the user; then the content is replaced and the extensions stay."
            ) from None
        except psycopg.Error:
            continue  # told where it is made in the way that was captured


def missing_tablespaces(connection: psycopg.Connection, needs: Needs) -> tuple[str, ...]:
    """Return the tablespaces that the server lacks, or in which we may make nothing."""
    there = {name for (name,) in connection.execute(_SPACES)}
    return tuple(name for name in needs.tablespaces if name not in there)


def _refuse_roles(connection: psycopg.Connection, needs: Needs, label: str, *, no_owner: bool) -> None:
    roles: dict[str, bool] = dict(connection.execute(_ROLES, (membership(connection),)).fetchall())
    unknown = [name for name in needs.in_policies if name not in roles]
    if unknown and no_owner:
        raise RestoreRefused(
            f"The server of {label} knows no role {_and(unknown)}, and policies on rows name them, also "
            "without owners and rights. Nothing was loaded. Make them: CREATE ROLE."
        )
    if no_owner:
        return
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


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
