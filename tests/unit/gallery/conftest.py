"""A small gallery, filled once and copied for each test that changes it."""

import shutil
from pathlib import Path

import pytest

from examples.gallery.fill import TINY, fill


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder nobody may change."""
    data = tmp_path_factory.mktemp("gallery") / "data"
    fill(data, TINY)
    return data


@pytest.fixture
def data(filled: Path, tmp_path: Path) -> Path:
    """Return a data folder of the test's own."""
    return Path(shutil.copytree(filled, tmp_path / "data", symlinks=True))
