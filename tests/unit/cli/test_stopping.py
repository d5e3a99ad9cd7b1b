"""The first signal asks, the second insists."""

from __future__ import annotations

import os
import signal

import pytest

from backup_admin.cli import stopping
from backup_admin.cli.stopping import Stop, StoppableReporter, reporting
from backup_admin.core.errors import Cancelled


class Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def begin(self, stage: str, total_bytes: int, total_items: int) -> None:
        self.calls.append(("begin", stage, total_bytes, total_items))

    def add(self, size: int, items: int, current: str) -> None:
        self.calls.append(("add", size, items, current))

    def close(self) -> None:
        self.calls.append(("close",))


def test_first_signal_is_heard_at_the_next_safe_point() -> None:
    stop = Stop()
    reporter = StoppableReporter(stop, "All is well.", None)
    with stop.on_signals():
        reporter.check_cancelled()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Cancelled, match="All is well"):
            reporter.check_cancelled()


def test_second_signal_insists() -> None:
    with Stop().on_signals():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_work_that_does_not_hear_is_ended_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "PATIENCE_SECONDS", 0.1)
    stop = Stop()
    with stop.on_signals(), reporting(stop, {}, ""):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.sigtimedwait([], 5)


def test_work_on_live_data_is_never_ended_by_impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "PATIENCE_SECONDS", 0.1)
    stop = Stop()
    with stop.on_signals(), reporting(stop, {}, "", patient=True):
        os.kill(os.getpid(), signal.SIGINT)
        signal.sigtimedwait([], 0.3)

    assert stop.asked


def test_handlers_are_as_before_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]

    with Stop().on_signals():
        pass

    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_display_sees_every_step() -> None:
    display = Recorder()
    reporter = StoppableReporter(Stop(), "", display)

    reporter.stage("files", total_bytes=5)
    reporter.advance(size=2, items=1, current="a")
    reporter.warn("twice is enough")

    assert display.calls == [("begin", "files", 5, 0), ("add", 2, 1, "a")]


def test_without_a_terminal_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    with reporting(Stop(), {"TERM": "xterm"}, "") as reporter:
        reporter.stage("files", total_items=3)
        reporter.advance(items=1)

    shown = capsys.readouterr()
    assert shown.out + shown.err == ""
