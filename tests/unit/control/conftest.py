"""A host whose set-up is finished, and a session of its control database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.installations import Host, make_host, set_up

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.orm import Session


@pytest.fixture
def bare_host(tmp_path: Path) -> Host:
    """An app with a key and sources, and nothing else yet."""
    return make_host(tmp_path)


@pytest.fixture
def host(bare_host: Host) -> Host:
    """An app with storage, repository and a confirmed recovery key."""
    set_up(bare_host)
    return bare_host


@pytest.fixture
def session(bare_host: Host) -> Iterator[Session]:
    """A session of the control database."""
    with bare_host.installation.database.new_session() as session:
        yield session
