"""A machine with an app, and the same with a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.cli.command import World, make_database

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a machine with two folders, three files and a database."""
    made = World(tmp_path, tmp_path / "state")
    (made.files / "photos" / "2024").mkdir(parents=True)
    (made.files / "empty").mkdir()
    (made.files / "readme.txt").write_text("hello\n")
    (made.files / "photos" / "one.jpg").write_bytes(bytes(range(256)) * 400)
    (made.files / "photos" / "2024" / "two.jpg").write_bytes(b"two" * 1000)
    make_database(made.database)
    return made


@pytest.fixture
def repository(world: World) -> World:
    """Return the machine with a repository and one snapshot."""
    world.init()
    done = world.back_up("--json")
    assert done.status == 0, done.err
    return world
