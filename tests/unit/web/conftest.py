"""Hosts with the pages mounted: empty, set up, and with a month behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backup_admin.access.permissions import Actor, Permission
from tests.unit.web import seeds
from tests.unit.web.host import Host, create_host

if TYPE_CHECKING:
    from pathlib import Path

ADMIN = Actor(id="id-admin", name="admin", login_id="login", granted=frozenset(Permission))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host whose backups are not set up yet."""
    return create_host(tmp_path)


@pytest.fixture
def ready(host: Host) -> Host:
    """A host with a repository and a confirmed recovery key."""
    host.set_up(ADMIN)
    return host


@pytest.fixture
def month(ready: Host) -> Host:
    """A host with a month of nightly backups behind it."""
    with ready.app.app_context():
        seeds.fill_month(ready.installation.database.session(), ready.installation.clock.now())
    return ready
