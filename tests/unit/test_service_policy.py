"""A missing service is a skip on a laptop and a failure in strict mode."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from tests.services.report import announce, missing, pytest_terminal_summary


class Screen:
    """Collects what the closing summary would show."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def section(self, title: str) -> None:
        self.lines.append(f"= {title} =")

    def write_line(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def config() -> pytest.Config:
    return cast("pytest.Config", SimpleNamespace(stash=pytest.Stash()))


def summary(config: pytest.Config) -> list[str]:
    screen = Screen()
    pytest_terminal_summary(cast("pytest.TerminalReporter", screen), config)
    return screen.lines


def test_missing_service_skips_and_says_what_to_install(
    config: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BACKUP_ADMIN_TEST_STRICT", raising=False)

    with pytest.raises(pytest.skip.Exception, match="apt install rsync"):
        missing(config, "rsync", "apt install rsync")


def test_missing_service_fails_in_strict_mode(config: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKUP_ADMIN_TEST_STRICT", "1")

    with pytest.raises(pytest.fail.Exception, match="apt install rsync"):
        missing(config, "rsync", "apt install rsync")


def test_summary_names_each_service_once(config: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BACKUP_ADMIN_TEST_STRICT", raising=False)
    announce(config, "valkey", "9.1", "wheel", 0.05)
    for _ in range(2):
        with pytest.raises(pytest.skip.Exception):
            missing(config, "rsync", "apt install rsync")

    assert summary(config) == [
        "= services =",
        "valkey: 9.1 (wheel), up in 0.05 s",
        "rsync: MISSING, apt install rsync",
    ]


def test_summary_is_silent_when_no_test_needed_a_service(config: pytest.Config) -> None:
    assert summary(config) == []
