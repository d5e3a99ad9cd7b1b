"""A PostgreSQL server of its own for one test, which archives its WAL by the command into a repository."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from backup_admin.core.clock import format_time
from tests.services.postgres import PostgresServer, as_server, hand_over, start_postgres, stop
from tests.services.report import missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

    from examples.services.server import RunningServer

ROOT = Path(__file__).parents[2]
_WAIT_SECONDS = 60.0
NAME = "main"


@dataclass(frozen=True, slots=True)
class Done:
    """How a call of the command ended."""

    status: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """What the verb answered."""
        value: dict[str, Any] = json.loads(self.out)["result"]
        return value


@dataclass
class Archiving:
    """A server, a repository it archives into, and the command as the server's user runs it."""

    server: PostgresServer
    process: RunningServer
    folder: Path
    python: list[str]
    environment: dict[str, str]
    restored: list[Path] = field(default_factory=list)

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def run(self, *arguments: object, program: str = "") -> Done:
        """Call the command as who the server runs as, in the data directory as the server does."""
        entry = ["-c", program] if program else ["-m", "backup_admin.cli"]
        done = subprocess.run(
            [*as_server(), *self.python, *entry, *map(str, arguments)],
            env=self.environment,
            cwd=self.data,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def good(self, *arguments: object) -> Done:
        done = self.run(*arguments)
        assert done.status == 0, done.out + done.err
        return done

    def take_base(self) -> str:
        """Take a base backup; return its snapshot."""
        address = f"{NAME}=host={self.server.folder} port={self.server.port} user=postgres dbname=postgres"
        done = self.good("run", self.repository, "--postgres-cluster", address, "--json")
        found: str = done.result["snapshot"]["id"]
        return found

    def sql(self, text: str) -> Any:
        """Run one statement as the superuser; return the first value, if there is one."""
        with psycopg.connect(self.server.by_socket("postgres"), autocommit=True) as connection:
            cursor = connection.execute(text.encode())
            row = cursor.fetchone() if cursor.description else None
            return None if row is None else row[0]

    def now(self) -> str:
        """Return the time of the server, apart from all commits before and after."""
        time.sleep(0.01)
        found = self.sql("SELECT to_char(clock_timestamp(), 'YYYY-MM-DD\"T\"HH24:MI:SS.USTZH:TZM')")
        time.sleep(0.01)
        return str(found)

    def switch(self) -> str:
        """End the segment in use; return its name."""
        return str(self.sql("SELECT pg_walfile_name(pg_switch_wal())"))

    def switch_and_wait(self) -> str:
        """End the segment in use and wait until it is archived; return its name."""
        segment = self.switch()
        wait_for(lambda: str(self.sql("SELECT last_archived_wal FROM pg_stat_archiver") or "") >= segment)
        return segment

    def stored(self, file: str) -> Path:
        """Return where the repository keeps a file."""
        (found,) = (self.repository / "wal").glob(f"*/{file.lower()}")
        return found

    def restore(self, *options: object, name: str = "restored", port: int = 0) -> Done:
        """Restore the cluster into a new folder."""
        target = self.folder / name
        self.restored.append(target)
        chosen = port or free_port()
        return self.run(
            *("cluster", "restore", NAME, self.repository, "--to", target, "--port", chosen),
            *("--programs", self.server.programs, *options, "--json"),
        )

    def drill(self, *options: object, heartbeat: str = "postgres:heartbeat.at") -> Done:
        """Try a restore to any time, and look at the heartbeat there."""
        return self.run(
            *(
                "cluster",
                "drill",
                NAME,
                self.repository,
                "--to",
                self.folder / "drill",
                "--port",
                free_port(),
            ),
            *("--programs", self.server.programs, "--heartbeat", heartbeat, *options, "--json"),
        )

    @staticmethod
    def text_of(moment: str) -> str:
        """Return a time of the server as the command writes it."""
        return format_time(datetime.fromisoformat(moment).astimezone(UTC))

    def restored_sql(self, done: Done, text: str) -> Any:
        """Run one statement in a restored cluster; return the first value."""
        address = f"host={done.result['target']} port={done.result['port']} user=postgres dbname=postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            row = (
                connection.execute(text.encode()).fetchone()
                if text.startswith("S") or "RETURNING" in text
                else None
            )
            if row is None:
                connection.execute(text.encode())
            return None if row is None else row[0]

    def values(self, done: Done) -> list[int]:
        """Return what is in the table `kept` of a restored cluster, read by its own socket."""
        assert done.status == 0, done.out + done.err
        address = f"host={done.result['target']} port={done.result['port']} user=postgres dbname=postgres"
        with psycopg.connect(address) as connection:
            return [int(row[0]) for row in connection.execute("SELECT value FROM kept ORDER BY value")]

    def stop_restored(self) -> None:
        """Stop what was restored, at once."""
        for folder in self.restored:
            try:
                pid = int((folder / "postmaster.pid").read_text().split()[0])
                os.kill(pid, signal.SIGQUIT)
            except (FileNotFoundError, ProcessLookupError):
                continue
            wait_for(lambda folder=folder: not (folder / "postmaster.pid").exists())  # type: ignore[misc]  # bound now


@contextmanager
def archiving(config: pytest.Config, kind: str, **settings: str) -> Iterator[Archiving]:
    """Give a server that archives into a new repository; all of it is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="bk-archiving-"))
    folder.chmod(0o755)
    hand_over(folder)
    try:
        environment = environment_in(folder)
        if Path(kind).is_absolute():  # such programs are found where PATH leads to, as any user's
            environment["PATH"] = f"{kind}:{environment['PATH']}"
        python = interpreter_for_server(config, environment)
        _make_repository(folder, python, environment)
        command = " ".join((*python, "-m backup_admin.cli archive-push", str(folder / "repository"), "%p"))
        exports = " ".join(f"{name}={value}" for name, value in environment.items())
        more = {
            "archive_mode": "on",
            "archive_command": f"env {exports} {command}",
            "wal_level": "replica",
            "wal_keep_size": "0",
            **settings,
        }
        process, server = start_postgres(config, kind, folder, more)
        site = Archiving(server, process, folder, python, environment)
        try:
            site.sql("CREATE TABLE kept (value int)")
            # A restored server has what was set so, and need not wait for a disk either.
            site.sql("ALTER SYSTEM SET fsync = off")
            yield site
        finally:
            site.stop_restored()
            stop(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)


def free_port() -> int:
    from tests.services.s3 import free_ports  # noqa: PLC0415 - it loads what only some tests need

    (port,) = free_ports(1)
    return port


def environment_in(folder: Path) -> dict[str, str]:
    """Return the environment in which who runs the server calls the command, with a home in a folder."""
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *libraries]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "BACKUP_ADMIN_STATE_DIR": str(folder / "state"),
        "BACKUP_ADMIN_KEY_FILE": str(folder / "key"),
    }


def interpreter_for_server(config: pytest.Config, environment: dict[str, str]) -> list[str]:
    """Return an interpreter that who runs the server can start: ours may lie in a home of another."""
    version = f"python3.{sys.version_info.minor}"
    for program in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        # Through a shell: who changes the user may still start what that user cannot.
        script = f"exec {program} -c 'import backup_admin.cli.main, zstandard, psycopg'"
        done = subprocess.run(
            [*as_server(), "sh", "-c", script], env=environment, cwd="/", capture_output=True, check=False
        )
        if done.returncode == 0:
            return [program]
    user = pwd.getpwuid(os.geteuid()).pw_name
    missing(config, "an interpreter for the server's user", f"run the tests as another user than {user}")
    return None


def _make_repository(folder: Path, python: list[str], environment: dict[str, str]) -> None:
    arguments = [str(folder / "repository"), "--key-file", str(folder / "key")]
    arguments += ["--recovery-file", str(folder / "recovery")]
    subprocess.run(
        [*as_server(), *python, "-m", "backup_admin.cli", "init", *arguments],
        env=environment,
        cwd=folder,
        check=True,
        capture_output=True,
    )
