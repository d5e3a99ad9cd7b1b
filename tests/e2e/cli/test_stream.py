"""A streamed SQLite database: back at a time between two backups, whatever was killed meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.services.report import missing

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from tests.e2e.cli.command import Done, World

pytestmark = pytest.mark.integration
# The program looks each second, and its clock is that of the file.
APART = 2.2


class Stream:
    """A database in WAL mode that is streamed, and a repository with the folder it goes to."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.database = world.root / "streamed.db"
        self.spool = world.root / "spool"
        self.running: list[subprocess.Popen[str]] = []
        with closing(sqlite3.connect(self.database)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE kept (value)")
        world.init()

    def start(self) -> subprocess.Popen[str]:
        """Start the command, and wait until the first files are there."""
        process = self.world.start("stream", "run", self.spool, "--sqlite", f"app={self.database}")
        self.running.append(process)
        wait_for(lambda: self.child() != 0 and any(self.spool.rglob("*.ltx")))
        return process

    def child(self) -> int:
        """Return the process that streams, 0 when there is none."""
        config = str(self.world.state / "streams/litestream.json")
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if config.encode() in path.read_bytes():
                    return int(path.parent.name)
            except (FileNotFoundError, ProcessLookupError):
                continue
        return 0

    def insert(self, *values: int) -> None:
        with closing(sqlite3.connect(self.database, timeout=20)) as connection:
            for value in values:
                connection.execute("INSERT INTO kept VALUES (?)", (value,))
                connection.commit()

    def back_up(self) -> None:
        done = self.world.run(
            *("run", self.world.storage, "--key-file", self.world.key, "--files", f"streams={self.spool}")
        )
        assert done.status == 0, done.err

    def restore(self, *options: object, name: str = "out.db") -> Done:
        target = self.world.root / name
        return self.world.run(
            *("stream", "restore", "app", self.world.storage, "--key-file", self.world.key),
            *("--to", target, *options, "--json"),
        )

    def values(self, name: str = "out.db") -> list[int]:
        """Read a restored file by the shell of SQLite, where there is one."""
        with closing(sqlite3.connect(f"file:{self.world.root / name}?mode=ro", uri=True)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return [int(row[0]) for row in connection.execute("SELECT value FROM kept ORDER BY rowid")]


@pytest.fixture
def stream(world: World, pytestconfig: pytest.Config) -> Iterator[Stream]:
    if not (Path(sys.executable).parent / "litestream").exists() and shutil.which("litestream") is None:
        missing(pytestconfig, "litestream", "python3 dev.py test installs the wheel")
    made = Stream(world)
    yield made
    for process in made.running:
        process.terminate()
        process.communicate(timeout=40)
    if made.child():
        os.kill(made.child(), signal.SIGKILL)


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)


def now() -> str:
    return datetime.now(UTC).isoformat()


def test_a_time_between_two_changes_is_reached_exactly(stream: Stream) -> None:
    process = stream.start()
    before = now()
    time.sleep(APART)
    stream.insert(1)
    time.sleep(APART)
    moment = now()
    time.sleep(APART)
    stream.insert(2)
    time.sleep(APART)
    stream.back_up()

    then, newest = stream.restore("--at", moment), stream.restore(name="newest.db")

    assert (then.status, newest.status) == (0, 0), then.out + newest.out
    assert (stream.values(), stream.values("newest.db")) == ([1], [1, 2])
    assert then.result["landed_at"] < moment.replace("+00:00", "Z") < then.result["next_change_at"]
    assert stream.restore("--at", before, name="before.db").status == 0
    assert stream.values("before.db") == []
    process.terminate()
    assert process.wait(40) == 0
    assert stream.child() == 0
    assert not list(stream.world.root.glob(".streamed.db*"))


def test_a_time_that_no_backup_has_yet_and_one_before_the_stream_are_refused(stream: Stream) -> None:
    begin = now()
    time.sleep(APART)
    stream.start()
    nowhere = stream.restore()
    stream.insert(1)
    time.sleep(APART)
    stream.back_up()
    time.sleep(0.1)

    late, early = stream.restore("--at", now()), stream.restore("--at", begin)

    assert (nowhere.status, "No backup holds a stream 'app'" in nowhere.out) == (1, True), nowhere.out
    assert (late.status, "is not in any backup yet" in late.out) == (1, True), late.out
    assert (early.status, "is before the stream begins" in early.out) == (1, True), early.out
    assert not (stream.world.root / "out.db").exists()


def test_killed_and_started_again_it_has_lost_nothing(stream: Stream) -> None:
    stream.start()
    stream.insert(*range(10))
    first = stream.child()
    os.kill(first, signal.SIGKILL)
    stream.insert(*range(10, 60))
    wait_for(lambda: stream.child() not in {0, first})
    time.sleep(APART)
    stream.back_up()

    assert stream.restore().status == 0
    assert stream.values() == list(range(60))


def test_another_is_refused_while_one_streams_and_none_outlives_who_started_it(stream: Stream) -> None:
    first = stream.start()

    second = stream.world.run("stream", "run", stream.spool, "--sqlite", f"app={stream.database}")
    first.kill()
    wait_for(lambda: stream.child() == 0)
    stream.insert(1)
    stream.start()
    time.sleep(APART)
    stream.back_up()

    assert (second.status, "streamed with this state folder already" in second.err) == (5, True), second.err
    assert stream.restore().status == 0
    assert stream.values() == [1]


def test_only_a_database_in_wal_mode_is_streamed(stream: Stream) -> None:
    other = stream.world.root / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE t (x)")

    done = stream.world.run("stream", "run", stream.spool, "--sqlite", f"other={other}")
    hidden = stream.world.run("stream", "run", stream.world.state / "x", "--sqlite", f"app={stream.database}")

    assert (done.status, "only WAL can be streamed" in done.err) == (1, True), done.err
    assert (hidden.status, "which no backup holds" in hidden.err) == (2, True), hidden.err
    assert stream.child() == 0


def test_what_is_there_is_not_written_over(stream: Stream) -> None:
    stream.start()
    time.sleep(APART)
    stream.back_up()
    (stream.world.root / "out.db").write_bytes(b"mine")

    done = stream.restore()

    assert (done.status, "is there already" in done.out) == (1, True)
    assert (stream.world.root / "out.db").read_bytes() == b"mine"
