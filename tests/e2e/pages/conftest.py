"""A host served on a port of its own, and the browser looking at it."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from werkzeug.serving import make_server

from backup_admin.control import app_streams
from backup_admin.control.app_streams import StreamState
from tests.unit.web import seeds
from tests.unit.web.conftest import ADMIN
from tests.unit.web.host import Host, create_host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session


@contextmanager
def serve(host: Host) -> Iterator[str]:
    """Serve a host; yield its address."""
    server = make_server("127.0.0.1", 0, host.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def session_of(host: Host) -> Session:
    """Return a session of the host's control database; needs the app's context."""
    session: Session = host.installation.database.session()
    return session


@pytest.fixture
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    """A host with a repository, and one real backup in it."""
    made = create_host(tmp_path_factory.mktemp("host"))
    made.set_up(ADMIN)
    return made


@pytest.fixture
def address(host: Host) -> Iterator[str]:
    """Where the host is served."""
    with serve(host) as address:
        yield address


@pytest.fixture(scope="module")
def fresh_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a host without any set-up is served."""
    with serve(create_host(tmp_path_factory.mktemp("fresh"), BACKUP_ADMIN_STORAGE="")) as address:
        yield address


@pytest.fixture(scope="module")
def busy_host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    """A host with a month behind it, and a backup and a restore under way."""
    server = {"address": "postgresql://replica@db.example.com/postgres", "storage": "s3://my-backups/main"}
    servers = {"main": server, "reports": server}
    made = create_host(
        tmp_path_factory.mktemp("busy"),
        BACKUP_ADMIN_STREAMS=["gallery"],
        BACKUP_ADMIN_POSTGRES_CLUSTERS=servers,
    )
    made.set_up(ADMIN)
    with made.app.app_context():
        session, now = session_of(made), made.installation.clock.now()
        app_streams.write_states(session, made.installation, [StreamState("gallery", now, now, now, now)])
        seeds.add_storages(session, seeds.fill_month(session, now), now)
        seeds.add_running(session, now)
        seeds.add_base_backups(session, now)
        session.commit()
    return made


@pytest.fixture(scope="module")
def busy_address(busy_host: Host) -> Iterator[str]:
    """Where it is served."""
    with serve(busy_host) as address:
        yield address
