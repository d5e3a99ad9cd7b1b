"""The journal of a restore: on disk first, torn lines forgotten, damage named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backup_admin.core.clock import SystemClock
from backup_admin.core.errors import NeedsAttention, RestoreRefused, UsageError
from backup_admin.core.ids import RestoreId
from backup_admin.core.state import StateFolder
from backup_admin.operations.journal import (
    Step,
    list_journals,
    new_journal,
    open_journal,
    open_journals,
    refuse_unfinished,
)

if TYPE_CHECKING:
    from pathlib import Path

CLOCK = SystemClock()
ID = RestoreId("abc")


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    journal = new_journal(StateFolder(tmp_path), ID, CLOCK)
    journal.write(Step.PLANNED, plan={"snapshot_id": "s"}, actor="Ada")
    journal.write(Step.STAGING, parts=[])
    journal.write(Step.STAGED)
    return StateFolder(tmp_path)


def _path(state: StateFolder) -> Path:
    return state.restores / "restore-abc.journal"


def test_lines_come_back_as_written(state: StateFolder) -> None:
    journal = open_journal(state, ID, CLOCK)

    assert [line.step for line in journal.lines] == [Step.PLANNED, Step.STAGING, Step.STAGED]
    assert journal.find(Step.PLANNED) == {"plan": {"snapshot_id": "s"}, "actor": "Ada"}


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_line_cut_by_a_crash_counts_as_not_written(state: StateFolder, cut: int) -> None:
    data = _path(state).read_bytes()
    _path(state).write_bytes(data[:-cut])

    journal = open_journal(state, ID, CLOCK)
    journal.write(Step.ROLLING_BACK, reason="crash")

    steps = [line.step for line in open_journal(state, ID, CLOCK).lines]
    assert steps == [Step.PLANNED, Step.STAGING, Step.ROLLING_BACK]


def test_an_altered_line_in_the_middle_is_named(state: StateFolder) -> None:
    data = _path(state).read_bytes()
    _path(state).write_bytes(data.replace(b'"Ada"', b'"Eve"'))

    with pytest.raises(NeedsAttention, match="Line 2"):
        open_journal(state, ID, CLOCK)


def test_a_removed_line_is_named(state: StateFolder) -> None:
    lines = _path(state).read_bytes().splitlines(keepends=True)
    _path(state).write_bytes(lines[0] + lines[2] + lines[2])

    with pytest.raises(NeedsAttention):
        open_journal(state, ID, CLOCK)


def test_an_unfinished_restore_blocks_the_next(state: StateFolder) -> None:
    with pytest.raises(RestoreRefused, match="recover"):
        refuse_unfinished(state, CLOCK)

    open_journal(state, ID, CLOCK).write(Step.ROLLED_BACK)

    refuse_unfinished(state, CLOCK)


def test_the_same_restore_is_not_begun_twice(state: StateFolder) -> None:
    with pytest.raises(UsageError):
        new_journal(state, ID, CLOCK)


def test_an_id_that_is_a_path_is_refused(state: StateFolder) -> None:
    with pytest.raises(UsageError):
        open_journal(state, "../../etc/passwd", CLOCK)


def test_the_summary_says_who_and_what(state: StateFolder) -> None:
    (summary,) = list_journals(state, CLOCK)

    assert (summary.restore_id, summary.actor, summary.snapshot_id) == (ID, "Ada", "s")
    assert summary.step is Step.STAGED
    assert not summary.finished


def test_a_journal_without_a_whole_line_is_no_restore(state: StateFolder) -> None:
    _path(state).write_bytes(b'{"step":')

    assert list(open_journals(state, CLOCK)) == []
