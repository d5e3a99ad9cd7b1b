"""Say what a path is that was taken for the folder of a captured PostgreSQL database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.sources.postgres.parts import CONTENTS
from backup_admin.sources.sqlite import looks_like_database

if TYPE_CHECKING:
    from pathlib import Path

_SHOWN = 10
_WANTED = "a folder DIR/databases/NAME that `restore --to DIR` wrote"


def not_a_capture(path: Path) -> str:
    """Return what it is, and what to do instead."""
    if path.is_file():
        if looks_like_database(path):
            return (
                f"{path} is a SQLite database, which needs no loading: give it to the app as it is, or "
                "bring it into the one in use with `restore --in-place`. `load` is for PostgreSQL."
            )
        return f"{path} is a file; `load` takes {_WANTED}."
    if not path.is_dir():
        return f"{path} is not there; `load` takes {_WANTED}."
    for folder in (path / "databases", path):
        if found := sorted(inner.parent for inner in folder.glob(f"*/{CONTENTS}")):
            listed = ", ".join(map(str, found[:_SHOWN]))
            return f"{path} holds no captured PostgreSQL database itself. Name one of these: {listed}."
    return f"{path} holds no captured PostgreSQL database: {CONTENTS} is missing. `load` takes {_WANTED}."
