"""Paths that a walk leaves alone: declared databases, our own folders."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from backup_admin.sources.base import SkipReason
from backup_admin.sources.sidecars import SIDECAR_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


class Pins:
    """Pinned paths as they appear below one root.

    They are known by name, so that a file that is made anew stays pinned, and
    by inode (`inodes`: device and number), so that a second name or a symlinked
    folder does not unpin them. Nothing is opened. `hold_root` tells that the root itself is pinned.
    """

    def __init__(self, root: Path, pinned: Iterable[Path]) -> None:
        real_root = os.fsencode(os.path.realpath(root))
        self.hold_root = False
        self._paths: set[bytes] = set()
        self._sidecars: set[bytes] = set()
        self.inodes: set[tuple[int, int]] = set()
        for path in pinned:
            with suppress(OSError):
                found = path.stat()
                self.inodes.add((found.st_dev, found.st_ino))
            for real in _real_names(path):
                self._add(real, real_root, is_folder=path.is_dir())

    def _add(self, real: bytes, real_root: bytes, *, is_folder: bool) -> None:
        if real == real_root or real_root.startswith(real.rstrip(b"/") + b"/"):
            self.hold_root = True
        prefix = real_root.rstrip(b"/") + b"/"
        if real.startswith(prefix):
            path = real.removeprefix(prefix)
            self._paths.add(path)
            if not is_folder:
                self._sidecars.update(path + suffix for suffix in SIDECAR_SUFFIXES)

    @property
    def names(self) -> frozenset[bytes]:
        """Pinned paths below the root, sidecars of databases included."""
        return frozenset(self._paths | self._sidecars)

    @property
    def has_names(self) -> bool:
        """Say whether any pinned path lies below the root."""
        return bool(self._paths)

    def reason_by_name(self, path: bytes, *, is_folder: bool) -> SkipReason | None:
        """Return why the path is left alone, or None when it is not."""
        if path in self._paths:
            return SkipReason.PINNED if is_folder else SkipReason.DECLARED_DATABASE
        # A folder whose name only looks like a sidecar's is none.
        if path in self._sidecars and not is_folder:
            return SkipReason.DECLARED_DATABASE
        return None


def _real_names(path: Path) -> Iterator[bytes]:
    """Give the path without symlinks, with and without following its last part."""
    yield os.fsencode(os.path.realpath(path))
    yield os.path.join(  # noqa: PTH118  bytes
        os.fsencode(os.path.realpath(path.parent)), os.fsencode(path.name)
    )
