"""Whether sources and storage lie so that a backup makes sense."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from backup_admin.core.errors import UsageError
from backup_admin.storage.open import local_folder

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.operations.results import SourceSet
    from backup_admin.storage.base import Storage

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_layout(storage: Storage, sources: SourceSet) -> None:
    """Refuse names that are no file names, and a repository that would hold itself.

    Raises `UsageError`.
    """
    databases = sources.database_names()
    if not sources.files and not databases and sources.settings is None:
        raise UsageError("There is nothing to back up: name at least one folder or database.")
    _check_names([source.name for source in sources.files])
    _check_names(databases)
    folder = local_folder(storage)
    if folder is None:
        return
    for name, path in _paths(sources):
        if _contains(path, folder) or _contains(folder, path):
            raise UsageError(
                f"{name} ({path}) and the storage {folder} lie inside each other: each backup would "
                "hold the one before. Put the storage elsewhere. Nothing was written."
            )


def _check_names(names: list[str]) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no name for a source: use letters, digits, dot, dash, underscore.")
    if len(set(names)) != len(names):
        raise UsageError("Two sources have the same name.")


def _paths(sources: SourceSet) -> list[tuple[str, Path]]:
    return [(source.name, source.root) for source in sources.files] + [
        (source.name, source.path) for source in sources.databases
    ]


def _contains(outer: Path, inner: Path) -> bool:
    return inner.resolve().is_relative_to(outer.resolve())
