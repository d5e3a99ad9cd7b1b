"""What every test gets: services, markers and an environment without surprises."""

from __future__ import annotations

import os

import hypothesis
import pytest

pytest_plugins = (
    "tests.services.report",
    "tests.services.valkey",
    "tests.services.browser",
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
    """Let no proxy stand between a test and the servers it starts here."""
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"


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
