"""A PostgreSQL server that dies while a database on it is restored, and comes back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from examples.services.server import start_server
from tests.e2e.cli.test_postgres_in_place import InPlace
from tests.e2e.cli.test_postgres_in_place_hard import WAYS, going, place_of
from tests.services.postgres import WHEEL, as_server, start_postgres, stop
from tests.services.postgres_oracle import dump_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.services.server import RunningServer
    from tests.e2e.cli.command import World
    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration
_KILLING = """
import os, signal
from backup_admin.operations.journal import Journal

def write(self, step, **data):
    written(self, step, **data)
    if step.value == os.environ["KILL_AT"]:
        os.kill(int(os.environ["SERVER"]), signal.SIGKILL)

written, Journal.write = Journal.write, write
from backup_admin.cli.main import main
main()
"""


class Mortal:
    """A server of its own that can be killed and started again."""

    def __init__(self, config: pytest.Config, folder: Path) -> None:
        self.process: RunningServer
        self.server: PostgresServer
        self.process, self.server = start_postgres(config, WHEEL, folder)

    @property
    def pid(self) -> int:
        return int((self.server.folder / "data/postmaster.pid").read_text().split()[0])

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> None:
        assert self.process.process is not None
        self.process.process.wait(30)

    def start(self) -> None:
        server = self.server
        options = (
            f"-cunix_socket_directories={server.folder}",
            "-clisten_addresses=127.0.0.1",
            "-cmax_connections=50",
        )
        command = [
            str(server.programs / "postgres"),
            "-D",
            str(server.folder / "data"),
            "-p",
            str(server.port),
        ]
        self.process = start_server(
            [*as_server(), *command, *options],
            url=server.by_socket("postgres"),
            log=server.folder / "log2",
            is_ready=self._answers,
            ready_seconds=60,
        )

    def _answers(self) -> bool:
        try:
            self.server.run("SELECT 1")
        except psycopg.Error:
            return False
        return True


@contextmanager
def running_mortal(config: pytest.Config) -> Iterator[Mortal]:
    """Give a server of one's own; it may be killed when the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="bk-postgres-"))
    folder.chmod(0o711)
    try:
        made = Mortal(config, folder)
        yield made
        stop(made.process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def mortal(pytestconfig: pytest.Config) -> Iterator[Mortal]:
    with running_mortal(pytestconfig) as made:
        yield made


def content(site: InPlace) -> list[str]:
    """Return what is there but the places of sequences, which a crash moves on."""
    text = "\n".join(dump_text(site.server, site.name))
    return [line for line in text.splitlines() if "pg_catalog.setval(" not in line]


def run_and_kill_server(site: InPlace, mortal: Mortal, step: str, verb: str = "restore") -> str:
    what = ("latest", site.world.storage, "--in-place") if verb == "restore" else ()
    done = subprocess.run(
        [sys.executable, "-c", _KILLING, verb, *map(str, what), "--yes", *place_of(site)],
        env=os.environ
        | site.world.environment
        | {"KILL_AT": step, "SERVER": str(mortal.pid), "BACKUP_ADMIN_STATE_DIR": str(site.world.state)},
        capture_output=True,
        text=True,
        check=False,
    )
    mortal.wait()
    return done.stdout + done.stderr


@WAYS
@pytest.mark.parametrize("step", ["staging", "verified", "safety_backup", "swapping", "all_swapped"])
def test_what_was_live_is_there_when_the_server_comes_back_and_nothing_else(
    world: World, mortal: Mortal, way: str, step: str
) -> None:
    site = InPlace(world, mortal.server)
    site.server.run("ALTER TABLE sessions SET LOGGED", site.name)  # else a crash empties it
    site.back_up()
    site.harm()
    old = content(site)
    with going(site, way):
        said = run_and_kill_server(site, mortal, step)
        site.call("recover")
        mortal.start()
        site.good("recover")

        assert "cannot be reached" in said or "lost" in said or "closed" in said or "terminat" in said, said
        assert content(site) == old
        # What had been put in its place is kept, and nothing else.
        assert {name for name in site.databases() if "__undone_" not in name} == {site.name}
        left = list((world.state / "restores").glob("*/*"))
        assert [path for path in left if path.name != "undone"] == []
        done = site.restore()
        assert done.status == 0, done.out + done.err
