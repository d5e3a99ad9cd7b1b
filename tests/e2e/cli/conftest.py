"""A machine with an app, and the same with a repository."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.e2e.cli.command import World, make_database

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a machine with two folders, three files and a database."""
    return make_world(tmp_path)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a machine with a repository and one snapshot, to be copied."""
    made = make_world(tmp_path_factory.mktemp("model"))
    made.init()
    done = made.back_up("--json")
    assert done.status == 0, done.err
    return made.root


@pytest.fixture
def repository(model: Path, tmp_path: Path) -> World:
    """Return a machine with a repository and one snapshot."""
    shutil.copytree(model, tmp_path, symlinks=True, dirs_exist_ok=True)
    return World(tmp_path, tmp_path / "state")


def make_world(root: Path) -> World:
    made = World(root, root / "state")
    (made.files / "photos" / "2024").mkdir(parents=True)
    (made.files / "empty").mkdir()
    (made.files / "readme.txt").write_text("hello\n")
    (made.files / "photos" / "one.jpg").write_bytes(bytes(range(256)) * 400)
    (made.files / "photos" / "2024" / "two.jpg").write_bytes(b"two" * 1000)
    make_database(made.database)
    return made
