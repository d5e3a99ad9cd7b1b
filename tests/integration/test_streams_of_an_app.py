"""Streams of an app's databases: kept running by its worker, whatever is killed, and told truthfully."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from backup_admin.control import app_streams, engine, onboarding, verdict
from backup_admin.core.settings import STREAMS_ROOT
from backup_admin.records import RunStatus
from backup_admin.records.upgrade import upgrade
from tests.installations import ADMIN
from tests.integration.hosted import create_app, write_config
from tests.integration.test_jobs import Site
from tests.services.report import missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backup_admin.control.app_streams import StreamState, StreamView

pytestmark = pytest.mark.integration
# The program looks each second, and its clock is that of the file.
APART = 2.2


class Streaming(Site):
    """A deployed app whose database is streamed."""

    @property
    def database(self) -> Path:
        return self.folder / "app.db"

    @property
    def spool(self) -> Path:
        return self.folder / "state/streams/spool"

    def children(self) -> list[int]:
        """Return the processes that stream."""
        config = str(self.folder / "state/streams/litestream.json").encode()
        return [pid for pid, words in processes() if config in words and b"replicate" in words]

    def keeper(self) -> int:
        """Return the process that keeps the one that streams running."""
        (child,) = self.children()
        return int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])

    def wait_for_child(self, *but: int) -> int:
        """Wait until one process streams that is none of these, and has begun."""
        self.wait_for(lambda: any(self.spool.glob("main/ltx/*/*.ltx")))
        self.wait_for(lambda: len(self.children()) == 1 and not set(self.children()) & set(but))
        return self.children()[0]

    def insert(self, *values: int) -> None:
        with closing(sqlite3.connect(self.database, timeout=20)) as connection:
            for value in values:
                connection.execute("INSERT INTO kept VALUES (?)", (value,))
                connection.commit()

    def back_up(self) -> None:
        run = self.wait_for_run(self.request())
        assert run.status is RunStatus.COMPLETED, run.error_message

    def view(self) -> StreamView:
        with self.installation.database.new_session() as session:
            (found,) = app_streams.views(session, self.installation)
            return found

    def wait_until_it_follows(self) -> StreamState:
        def state() -> StreamState | None:
            with self.installation.database.new_session() as session:
                return app_streams.read_states(session).get("main")

        self.wait_for(lambda: (found := state()) is not None and found.good_at is not None)
        found = state()
        assert found is not None
        return found

    def said(self) -> str:
        with self.installation.database.new_session() as session:
            return " ".join(verdict.judge(session, self.installation).details)

    def bring_back(self, at: str = "", name: str = "main") -> list[int]:
        """Bring the database back with the command, and read it by the shell of SQLite."""
        target = self.folder / f"{uuid4().hex}.db"
        key = str(self.app.config["BACKUP_ADMIN_KEY"])
        command = [sys.executable, "-m", "backup_admin.cli", "stream", "restore", name]
        command += [str(self.folder / "storage"), "--to", str(target)]
        done = subprocess.run(
            [*command, *(["--at", at] if at else [])],
            env={**os.environ, "BACKUP_ADMIN_KEY": key, "BACKUP_ADMIN_STATE_DIR": str(self.folder / "other")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        with closing(sqlite3.connect(f"file:{target}?mode=ro", uri=True)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return [int(row[0]) for row in connection.execute("SELECT value FROM kept ORDER BY rowid")]


def processes() -> Iterator[tuple[int, bytes]]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):
            yield int(path.parent.name), path.read_bytes()


def now() -> str:
    return datetime.now(UTC).isoformat()


def deploy(folder: Path, valkey: str) -> Streaming:
    queue = f"test-{uuid4().hex[:12]}"
    write_config(folder, valkey, queue, BACKUP_ADMIN_STREAMS=["main"])
    with closing(sqlite3.connect(folder / "app.db")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE kept (value)")
    made = Streaming(folder, valkey, queue, create_app(folder))
    upgrade(made.installation.database)
    with made.installation.database.new_session() as session:
        onboarding.choose_storage(session, made.installation, str(folder / "storage"), ADMIN)
        new = onboarding.make_repository(session, made.installation, ADMIN)
        typed = tuple(new.groups[number - 1].reveal() for number in new.asked)
        onboarding.confirm_recovery_key(session, made.installation, typed, ADMIN)
    return made


@pytest.fixture
def site(tmp_path: Path, valkey: str, pytestconfig: pytest.Config) -> Iterator[Streaming]:
    """An app with a streamed database; its workers, and what they started, end with the test."""
    if not (Path(sys.executable).parent / "litestream").exists() and shutil.which("litestream") is None:
        missing(pytestconfig, "litestream", "python3 dev.py test installs the wheel")
    made = deploy(tmp_path, valkey)
    yield made
    for worker in made.workers:
        worker.terminate()
    for worker in made.workers:
        with suppress(subprocess.TimeoutExpired):
            worker.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    made.wait_for(lambda: not made.children())


def test_what_happened_between_two_backups_comes_back(site: Streaming) -> None:
    worker = site.start_worker()
    site.wait_for_child()
    site.insert(1)
    time.sleep(APART)
    moment = now()
    time.sleep(APART)
    site.insert(2)
    before = site.wait_until_it_follows()
    unsealed = site.view()
    time.sleep(APART)
    site.back_up()
    sealed = site.view()

    assert (site.bring_back(moment), site.bring_back()) == ([1], [1, 2])
    assert unsealed.sealed_to is None
    assert sealed.sealed_to is not None
    assert before.began_at is not None
    assert before.began_at < sealed.sealed_to < datetime.now(UTC)
    assert sealed.problem == ""
    worker.terminate()
    assert worker.wait(40) == 0
    assert site.children() == []


def test_killed_it_is_started_again_and_has_lost_nothing(site: Streaming) -> None:
    site.start_worker()
    first = site.wait_for_child()
    site.insert(*range(10))
    os.kill(first, signal.SIGKILL)
    site.insert(*range(10, 60))

    second = site.wait_for_child(first)
    keeper = site.keeper()
    os.kill(keeper, signal.SIGKILL)
    site.insert(*range(60, 70))
    third = site.wait_for_child(first, second)
    time.sleep(APART)
    site.back_up()

    assert site.keeper() != keeper
    assert len({first, second, third}) == 3
    assert site.bring_back() == list(range(70))


@pytest.mark.long(minutes=1)
def test_of_several_workers_one_streams_and_another_takes_over_when_it_is_killed(site: Streaming) -> None:
    workers = [site.start_worker(), site.start_worker()]
    first = site.wait_for_child()
    site.insert(1)
    owner = int(Path(f"/proc/{site.keeper()}/stat").read_text().rpartition(")")[2].split()[1])
    (killed,) = [worker for worker in workers if worker.pid == owner]
    time.sleep(6)  # as long as the other waits before it tries again
    alone = site.children()

    killed.kill()
    second = site.wait_for_child(first)
    site.insert(2)
    time.sleep(APART)
    site.back_up()

    assert (alone, site.children()) == ([first], [second])
    assert site.bring_back() == [1, 2]


@pytest.mark.long(minutes=2)
def test_one_that_hangs_is_found_out_and_so_is_one_that_nobody_keeps(site: Streaming) -> None:
    worker = site.start_worker()
    child = site.wait_for_child()
    site.wait_until_it_follows()
    time.sleep(APART)

    os.kill(child, signal.SIGSTOP)
    site.insert(1)
    site.wait_for(lambda: "has not come" in site.view().problem, 200)
    os.kill(child, signal.SIGCONT)
    site.wait_for(lambda: site.view().problem == "")
    worker.kill()
    worker.wait()
    site.wait_for(lambda: not site.children())

    site.wait_for(lambda: "nothing keeps it running" in site.view().problem, 200)


def test_without_the_program_the_app_works_and_says_what_to_install(
    tmp_path: Path, valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A worker of an interpreter beside which there is none; what it needs of ours it finds by its path.
    other = tmp_path / "bin/python"
    other.parent.mkdir()
    other.symlink_to(os.path.realpath(sys.executable))
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(libraries))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", str(other))
    site = deploy(tmp_path, valkey)
    try:
        site.start_worker()
        site.wait_for(lambda: "pip install 'backup_admin[litestream]'" in site.view().problem)
        site.back_up()
        assert site.view().sealed_to is None
        assert "the changes of main are not streamed: litestream is not installed" in site.said()
    finally:
        for worker in site.workers:
            worker.terminate()
            worker.wait(40)


def test_a_database_that_is_put_in_its_place_begins_a_new_stream(site: Streaming) -> None:
    site.start_worker()
    first = site.wait_for_child()
    site.insert(1)
    time.sleep(APART)
    other = site.folder / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE kept (value)")
        connection.execute("INSERT INTO kept VALUES (7)")
        connection.commit()
    for suffix in ("-wal", "-shm"):
        (site.folder / f"app.db{suffix}").unlink(missing_ok=True)
    other.replace(site.database)

    site.wait_for_child(first)
    site.wait_for(lambda: any(site.spool.glob("main.before-*/ltx/*/*.ltx")))
    site.insert(8)
    time.sleep(APART)
    site.back_up()
    (old,) = site.spool.glob("main.before-*")

    assert site.bring_back() == [7, 8]
    assert site.bring_back(name=old.name) == [1]


def test_a_stream_is_no_folder_that_a_restore_writes_to(site: Streaming) -> None:
    site.start_worker()
    site.wait_for_child()
    time.sleep(APART)
    site.back_up()

    with site.installation.database.new_session() as session:
        targets = engine.source_set(session, site.installation)
        repository = engine.open_repository(session, site.installation)
        roots = [root.name for root in repository.manifest(repository.find_snapshot("latest").id).files]

    assert STREAMS_ROOT in roots
    assert STREAMS_ROOT not in [source.name for source in targets.files]
