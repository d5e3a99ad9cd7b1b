"""Files that a process aside writes are those that were handed over, and each that is not is told."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import SourceError
from backup_admin.sources import tree_aside
from backup_admin.sources.tree import TreeWriter
from backup_admin.sources.tree_aside import FilesAside

if TYPE_CHECKING:
    from pathlib import Path

TIME = 1_234_567_890_123_456_789


def test_files_come_out_as_they_went_in(tmp_path: Path) -> None:
    names = [b"a", b"deep/er/b", b"deep/c", b"\xff\xfe", b"line\nbreak", "ümlaut 'x'".encode()]
    files = {name: (os.urandom(number * 70_000), 0o600 + number) for number, name in enumerate(names)}

    with FilesAside(tmp_path) as aside:
        for name, (content, mode) in files.items():
            aside.write(name, mode, TIME, content)
        failures = aside.finish()

    assert failures == []
    for name, (content, mode) in files.items():
        path = os.path.join(os.fsencode(tmp_path), name)  # noqa: PTH118 - names that are no text
        with open(path, "rb") as file:  # noqa: PTH123
            assert file.read() == content
        found = os.stat(path)  # noqa: PTH116
        assert (found.st_mode & 0o7777, found.st_mtime_ns) == (mode, TIME)


@pytest.mark.parametrize("time_ns", [-1, 13_569_465_600 * 10**9 + 999_999_999])
def test_a_time_far_from_ours_is_kept(tmp_path: Path, time_ns: int) -> None:
    with TreeWriter(tmp_path / "near") as writer, writer.file(b"a", 0o644, time_ns, 4) as file:
        file.write(b"data")
    (tmp_path / "far").mkdir()

    with FilesAside(tmp_path / "far") as aside:
        aside.write(b"a", 0o644, time_ns, b"data")
        assert aside.finish() == []

    # What the file system cannot hold it cuts, for both.
    assert (tmp_path / "far/a").stat().st_mtime_ns == (tmp_path / "near/a").stat().st_mtime_ns


def test_what_cannot_be_written_is_told_and_the_rest_is_written(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"old")
    (tmp_path / "link").symlink_to("/tmp")

    with FilesAside(tmp_path) as aside:
        for name in (b"taken", b"../outside", b"/etc/outside", b"link/x", b"taken/x", b"new"):
            aside.write(name, 0o644, TIME, b"data")
        failures = dict(aside.finish())

    assert set(failures) == {b"taken", b"../outside", b"/etc/outside", b"link/x", b"taken/x"}
    assert all(failures.values())
    assert (tmp_path / "taken").read_bytes() == b"old"
    assert (tmp_path / "new").read_bytes() == b"data"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "new", "taken"]


def test_more_failures_than_a_pipe_holds_are_all_told(tmp_path: Path) -> None:
    with FilesAside(tmp_path) as aside:
        for number in range(5_000):
            aside.write(b"../" + b"x" * 200 + b"%d" % number, 0o644, TIME, b"data")

        assert len(aside.finish()) == 5_000


def test_a_process_that_was_killed_is_no_success(tmp_path: Path) -> None:
    with FilesAside(tmp_path) as aside:
        aside.write(b"a", 0o644, TIME, b"data")
        os.kill(aside._talk._process.pid, 9)

        with pytest.raises(SourceError, match="ended"):
            aside.finish()


def test_why_a_process_ended_is_told_also_when_it_took_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_aside, "_COMMAND", (sys.executable, "-c", "raise MemoryError('no room')"))

    with FilesAside(tmp_path) as aside, pytest.raises(SourceError, match="MemoryError: no room"):
        aside.write(b"a", 0o644, TIME, bytes(20 << 20))


def test_what_was_not_finished_ends_with_the_block(tmp_path: Path) -> None:
    with FilesAside(tmp_path) as aside:
        aside.write(b"a", 0o644, TIME, bytes(1 << 20))
        process = aside._talk._process

    assert process.poll() is not None
    time.sleep(0.1)
    assert {path.name for path in tmp_path.iterdir()} <= {"a"}


def test_a_root_that_was_not_empty_or_gets_few_files_is_not_shared(tmp_path: Path) -> None:
    with TreeWriter(tmp_path / "new") as shared, TreeWriter(tmp_path / "few", few_files=True) as few:
        (tmp_path / "old").mkdir()
        (tmp_path / "old/file").touch()
        with TreeWriter(tmp_path / "old") as old:
            roots = [shared.shared_root, few.shared_root, old.shared_root]

    assert roots == [tmp_path / "new", None, None]
