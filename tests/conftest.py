"""What every test gets: services, markers and an environment without surprises."""

from __future__ import annotations

import os
import signal

import hypothesis
import pytest

pytest_plugins = (
    "tests.services.report",
    "tests.services.valkey",
    "tests.services.browser",
    "tests.services.s3",
    "tests.services.ssh",
    "tests.services.postgres",
    "tests.services.sqlite_tools",
)

# A busy machine is slow now and then; that is not what a property test is about.
hypothesis.settings.register_profile("house", deadline=None, print_blob=True)
# Where a failure is wanted, nobody needs the smallest example of it, which can take minutes.
hypothesis.settings.register_profile(
    "unshrunk",
    hypothesis.settings.get_profile("house"),
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
)
hypothesis.settings.load_profile("house")


def pytest_configure(config: pytest.Config) -> None:
    """Let no proxy stand between a test and its servers; let Ctrl-C and a hang-up reach what it starts.

    A shell that starts the tests in the background has them ignored, and programs inherit that.
    """
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests marked long unless `dev.py test --long` asks for them; the longest go first then."""
    if os.environ.get("BACKUP_ADMIN_TEST_LONG") == "1":
        items.sort(key=_minutes, reverse=True)
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


def _minutes(item: pytest.Item) -> float:
    mark = item.get_closest_marker("long")
    minutes = 0 if mark is None else mark.kwargs.get("minutes", 1)
    return float(minutes)
