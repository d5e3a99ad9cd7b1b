"""Ctrl-C, SIGTERM, SIGKILL and readers that go away leave everything in order."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
import time

import pytest

from examples.gallery.compare import describe_tree, differences
from tests.e2e.cli.command import World, objects

# Tells when a stage of the work begins, and makes the reading of files slow.
_SLOW = """
import sys, time
from backup_admin.cli.main import run
from backup_admin.cli.stopping import StoppableReporter
stage = StoppableReporter.stage
advance = StoppableReporter.advance
def told(self, name, **totals):
    print("STAGE", name, file=sys.stderr, flush=True)
    stage(self, name, **totals)
def slow(self, **done):
    time.sleep(0.05)
    advance(self, **done)
StoppableReporter.stage, StoppableReporter.advance = told, slow
sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture
def full(repository: World) -> World:
    for number in range(1500):
        (repository.files / f"{number}").write_bytes(os.urandom(20_000))
    return repository


def start_slowly(world: World, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _SLOW, *map(str, arguments)],
        env={**os.environ, "BACKUP_ADMIN_STATE_DIR": str(world.state)},
        cwd=world.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def wait_for(process: subprocess.Popen[str], stage: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line.split() == ["STAGE", stage]:
            return
    raise AssertionError(f"{stage} never began")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_stops_a_backup_and_leaves_no_snapshot(full: World, number: signal.Signals) -> None:
    process = start_slowly(
        full, "run", full.storage, "--key-file", full.key, "--files", f"files={full.files}", "--json"
    )
    wait_for(process, "files")
    time.sleep(0.3)
    started = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)

    assert time.monotonic() - started < 10
    assert process.returncode == 1
    assert '"code": "cancelled"' in out
    assert "No snapshot was made" in err
    assert len(full.call("list").result["snapshots"]) == 1
    assert list((full.state / "scratch").iterdir()) == []
    assert [path for path in objects(full.storage, "") if path.name.startswith(".tmp-")] == []
    assert full.back_up().status == 0


def test_signal_stops_a_backup_that_waits_for_a_locked_database(repository: World) -> None:
    holder = sqlite3.connect(repository.database, isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    process = start_slowly(
        repository, "run", repository.storage, "--key-file", repository.key, "--sqlite", "app=app.db"
    )
    time.sleep(3)
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    holder.close()

    assert time.monotonic() - started < 10
    assert process.returncode in (1, 5, 130), err
    assert "Traceback" not in err
    assert list((repository.state / "scratch").iterdir()) == []


def test_second_signal_ends_at_once(full: World) -> None:
    process = start_slowly(
        full, "run", full.storage, "--key-file", full.key, "--files", f"files={full.files}"
    )
    wait_for(process, "files")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)

    assert process.returncode in (1, 130)
    assert "Traceback" not in err
    assert len(full.call("list").result["snapshots"]) == 1


def test_killed_backup_is_no_snapshot_and_hinders_nobody(full: World) -> None:
    tree = describe_tree(full.files)
    process = start_slowly(
        full, "run", full.storage, "--key-file", full.key, "--files", f"files={full.files}"
    )
    wait_for(process, "files")
    time.sleep(0.5)
    process.kill()
    process.communicate()

    assert len(full.call("list").result["snapshots"]) == 1
    assert full.call("check", "--read-data").status == 0
    assert full.back_up().status == 0
    assert full.restore(full.root / "out").status == 0
    assert differences(tree, describe_tree(full.root / "out/files/files")) == []


def test_second_backup_at_the_same_time_is_busy(full: World) -> None:
    process = start_slowly(
        full, "run", full.storage, "--key-file", full.key, "--files", f"files={full.files}"
    )
    wait_for(process, "files")
    done = full.back_up("--json")
    process.send_signal(signal.SIGTERM)
    process.communicate()

    assert (done.status, done.error["code"]) == (5, "busy")


def test_signal_stops_a_restore_into_a_folder(full: World) -> None:
    assert full.back_up().status == 0
    process = start_slowly(full, "restore", "latest", full.storage, "--key-file", full.key, "--to", "out")
    wait_for(process, "restore")
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)

    assert process.returncode == 1
    assert "not complete" in err


def test_reader_that_goes_away_is_no_error(full: World) -> None:
    assert full.back_up().status == 0
    for verb in (["show", "latest"], ["list"], ["diff", "latest", "latest"]):
        with full.start(*verb, full.storage, "--key-file", full.key) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.read(10)
            process.stdout.close()
            err = process.stderr.read()
        assert (process.returncode, err) == (0, ""), verb


def test_progress_is_drawn_on_a_terminal_and_only_on_stderr(full: World) -> None:
    shown, out, status = on_a_terminal(
        full, ["run", full.storage, "--key-file", full.key, "--files", f"files={full.files}"]
    )

    assert status == 0
    assert "Files" in shown
    assert "\x1b[" in shown
    assert "\x1b" not in out


def test_terminal_is_asked_before_a_restore_in_place(repository: World) -> None:
    (repository.files / "readme.txt").write_text("spoilt")
    arguments: list[object] = [
        "restore",
        "latest",
        repository.storage,
        "--key-file",
        repository.key,
        "--in-place",
        "--files",
        f"files={repository.files}",
    ]

    asked, _, refused = on_a_terminal(repository, arguments, "no\n")
    assert refused == 1
    assert "Restore this now?" in asked
    assert (repository.files / "readme.txt").read_text() == "spoilt"
    _, _, agreed = on_a_terminal(repository, arguments, "yes\n")
    assert agreed == 0
    assert (repository.files / "readme.txt").read_text() == "hello\n"


def test_terminal_is_asked_for_a_key_and_does_not_show_it(repository: World) -> None:
    key = repository.recovery.read_text()

    shown, out, status = on_a_terminal(repository, ["list", repository.storage], key)

    assert status == 0
    assert "recovery key:" in shown
    assert key.strip() not in shown
    assert re.search(r"^0\w{25} ", out, re.MULTILINE)


def on_a_terminal(world: World, arguments: list[object], typed: str = "") -> tuple[str, str, int]:
    """Run with stdin and stderr on a terminal of its own; return what it showed, stdout, status."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "backup_admin.cli", *map(str, arguments)],
        env={**os.environ, "BACKUP_ADMIN_STATE_DIR": str(world.state), "TERM": "xterm"},
        cwd=world.root,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,
        encoding="utf-8",
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
        if typed and shown.rstrip().endswith(b":"):
            time.sleep(0.2)
            os.write(ours, typed.encode())
            typed = ""
    out, _ = process.communicate(timeout=60)
    os.close(ours)
    return shown.decode("utf-8", "replace"), out, process.returncode
