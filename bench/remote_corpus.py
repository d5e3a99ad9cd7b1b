"""What is backed up to remote storages: large files that do not compress, or many small ones."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

from bench.corpus import jpeg, prose

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_FIRST_DAY = 1_690_000_000
_PHOTO_BYTES = 2_000_000_000
_SMALL_FILES = 50_000
_IN_FOLDER = 500


def make_photos(root: Path, scale: float) -> None:
    """Make 2 GB of noise in files of 1 to 6 MB."""
    chance = random.Random("remote photos")
    left, number = round(_PHOTO_BYTES * scale), 0
    while left > 0:
        size = chance.randrange(10**6, 6 * 10**6)
        _write(root / f"event-{number // 40:03d}/photo_{number:05d}.jpg", chance.randbytes(size))
        left, number = left - size, number + 1


def make_small(root: Path, scale: float) -> None:
    """Make 50,000 files of 1 to 8 KiB: texts, and thumbnails that do not compress."""
    chance = random.Random("remote small files")
    for number in range(round(_SMALL_FILES * scale)):
        size = chance.randrange(1 << 10, 8 << 10)
        folder = root / f"folder-{number // _IN_FOLDER:03d}"
        if number % 2:
            _write(folder / f"thumb_{number:05d}.jpg", jpeg(chance, size))
        else:
            _write(folder / f"text_{number:05d}.txt", prose(chance, size))


CORPORA: dict[str, Callable[[Path, float], None]] = {"photos": make_photos, "small": make_small}


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (_FIRST_DAY, _FIRST_DAY))
