"""Where a PostgreSQL database is: any form that SQLAlchemy or libpq takes, read by libpq itself."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from backup_admin.core.errors import UsageError
from backup_admin.core.secret import Secret

_SCHEME = re.compile(r"(postgres(?:ql)?)(?:\+[a-z0-9_]+)?://", re.ASCII)
_PORTS = re.compile(r"(?:\d{1,5})?(?:,(?:\d{1,5})?)*", re.ASCII)
_CONNECT_SECONDS = "20"
_SHOWN = ("host", "hostaddr", "port", "user", "dbname", "service")


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """The parameters of a connection in the words of libpq; the password stands apart from them."""

    parameters: tuple[tuple[str, str], ...]
    password: Secret | None = None

    @property
    def label(self) -> str:
        """Return the place as people write it, without any secret."""
        found = dict(self.parameters)
        place = quote(found.get("host") or found.get("hostaddr", ""), safe="[]:,")
        if "%2F" in place:  # a folder with a socket
            place = ""
        user = f"{quote(found['user'])}@" if "user" in found else ""
        port = f":{found['port']}" if place and "port" in found else ""
        service = f"?service={quote(found['service'])}" if "service" in found else ""
        return f"postgresql://{user}{place}{port}/{quote(found.get('dbname', ''))}{service}"

    def conninfo(self) -> str:
        """Return the parameters without the password, as a program takes them: others see it in `ps`."""
        return str(_conninfo().make_conninfo(**dict(self.parameters)))

    @property
    def database(self) -> str:
        """Return the name of the database as libpq finds it; empty when only a service says it."""
        found = dict(self.parameters)
        named = found.get("dbname") or os.environ.get("PGDATABASE", "")
        return named or ("" if "service" in found else found.get("user") or os.environ.get("PGUSER", ""))

    def at(self, database: str) -> PostgresAddress:
        """Return the address of another database on the same server."""
        rest = tuple((key, value) for key, value in self.parameters if key != "dbname")
        return PostgresAddress(tuple(sorted((*rest, ("dbname", database)))), self.password)

    def environment(self) -> dict[str, str]:
        """Return what a client program has in its environment, which only its own user may read.

        What libpq finds in ours it finds there as well.
        """
        found = {"PGCONNECT_TIMEOUT": _CONNECT_SECONDS, "PGAPPNAME": "backup_admin"}
        found |= {name: value for name, value in os.environ.items() if name.startswith("PG")}
        return found if self.password is None else found | {"PGPASSWORD": self.password.reveal()}

    def keywords(self) -> dict[str, Any]:
        """Return what psycopg is called with: for one call, never to be shown."""
        found: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS, "application_name": "backup_admin"}
        found |= dict(self.parameters)
        return found if self.password is None else found | {"password": self.password.reveal()}


def parse_postgres_address(text: str) -> PostgresAddress:
    """Read `postgresql://…`, the same with a driver (`postgresql+psycopg://…`), or `host=… dbname=…`.

    Raises `UsageError` for what libpq does not understand, and `ConfigurationError` without psycopg.
    """
    library = _conninfo()
    try:
        found = library.conninfo_to_dict(_as_libpq(text))
    except Exception as error:  # the library has a kind of its own for each way to be wrong
        if not type(error).__module__.startswith("psycopg"):
            raise
        raise UsageError(
            f"The address of a PostgreSQL database cannot be read: {_without_secrets(str(error), text)} "
            "Write postgresql://USER:PASSWORD@HOST:PORT/DATABASE; special characters in the password as %XX."
        ) from None  # what it says repeats the address
    if found.pop("sslpassword", None):
        raise UsageError(
            "sslpassword cannot be given to client programs without showing it. Use a key file without one."
        )
    password = found.pop("password", None)
    if not _PORTS.fullmatch(str(found.get("port", ""))):
        raise UsageError(f"The port of a PostgreSQL server is a number, not {found['port']!r}.")
    parameters = tuple(sorted((str(key), str(value)) for key, value in found.items()))
    if not any(key in _SHOWN for key, _ in parameters):
        raise UsageError("The address of a PostgreSQL database names neither a host nor a database.")
    return PostgresAddress(parameters, None if password is None else Secret(str(password)))


def _as_libpq(text: str) -> str:
    """Take the driver off, and put several hosts as SQLAlchemy writes them into one list."""
    matched = _SCHEME.match(text)
    if matched is None:
        return text
    # SQLAlchemy writes spaces as they are, which libpq refuses.
    rest, _, query = text[matched.end() :].replace(" ", "%20").partition("?")
    options = parse_qsl(query, keep_blank_values=True)
    hosts = [value for key, value in options if key == "host"]
    if len(hosts) > 1 or (hosts and re.fullmatch(r"[^/:]+:\d+", hosts[0])):
        pairs = [host.rpartition(":") if ":" in host else (host, "", "") for host in hosts]
        options = [(key, value) for key, value in options if key != "host"]
        options.append(("host", ",".join(host or port for host, _, port in pairs)))
        if any(separator for _, separator, _ in pairs):
            options.append(("port", ",".join(port if separator else "" for _, separator, port in pairs)))
    return f"postgresql://{rest}{'?' if options else ''}{urlencode(options, quote_via=quote)}"


def _without_secrets(said: str, text: str) -> str:
    """Return what a library said about an address without the part that may hold a password."""
    for part in re.findall(r"://[^@/]*:([^@]*)@", text) + re.findall(r"password\s*=\s*(\S+)", text):
        for secret in (part, unquote(part)):
            said = said.replace(secret, "***") if secret else said
    return f"{said.strip().rstrip('.')}."


def _conninfo() -> Any:
    from backup_admin.sources.postgres.driver import conninfo  # noqa: PLC0415 - an extra, and slow to load

    return conninfo
