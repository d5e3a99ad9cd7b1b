"""Builders with defaults: keys, small repositories, folders full of files, backups of them."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations.backup import back_up
from backup_admin.operations.results import BackupOptions, BackupResult, SourceSet, VerifyReport
from backup_admin.operations.verify import verify_snapshot
from backup_admin.repository.config import ContentDefined, Parameters
from backup_admin.repository.creation import create_repository
from backup_admin.repository.keys import Keyring, RepositoryKeys
from backup_admin.repository.repository import Repository, open_repository
from backup_admin.repository.secrets import RepositorySecret, SecretKind
from backup_admin.sources.app_settings import SettingsSource
from backup_admin.sources.files import FileSource
from backup_admin.storage.memory import MemoryStorage
from tests.fakes import SteppingClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from backup_admin.core.clock import Clock
    from backup_admin.storage.base import Storage

SECRET = RepositorySecret(SecretKind.RAW, bytes(range(32)))
# One for all, so that what is made later is later.
CLOCK = SteppingClock()
OTHER_SECRET = RepositorySecret(SecretKind.RECOVERY, bytes(range(32, 64)))
# Everything small, so that a few hundred kilobytes make many chunks and packs.
SMALL = Parameters(
    whole_file=4 << 10,
    media=ContentDefined(1 << 10, 4 << 10, 16 << 10),
    stream=ContentDefined(256, 1 << 10, 4 << 10),
    segment=16 << 10,
    pack=64 << 10,
    pack_padding=4 << 10,
    pages_per_shard=16,
)


def make_keys(byte: int = 7) -> RepositoryKeys:
    """Return keys that are the same in every run."""
    return RepositoryKeys(Keyring({1: bytes([byte]) * 32}, id_kid=1, write_kid=1), bytes([byte + 1]) * 32)


def noise(size: int, seed: int = 1) -> bytes:
    """Return bytes that do not compress, the same in every run."""
    return random.Random(seed).randbytes(size)


def prose(size: int, seed: int = 1) -> bytes:
    """Return bytes that compress well and yet differ all along, the same in every run."""
    words = random.Random(seed)
    lines = (f"{words.randrange(10**6):06d} a line like all the others\n" for _ in range(size // 30 + 1))
    return "".join(lines).encode()[:size]


def make_storage(
    storage: Storage | None = None, *, parameters: Parameters = SMALL, clock: Clock | None = None
) -> Storage:
    """Return a storage with an empty repository that `SECRET` opens."""
    storage = storage or MemoryStorage()
    create_repository(storage, [(SECRET, "test")], clock=clock or CLOCK, parameters=parameters)
    return storage


def open_test_repository(storage: Storage, state: Path, *, clock: Clock | None = None) -> Repository:
    """Open a repository made here, with a state folder of its own."""
    return open_repository(storage, SECRET, state=StateFolder(state), clock=clock or CLOCK)


def write_tree(root: Path, files: dict[str, bytes] | None = None) -> Path:
    """Fill a folder with files; without a list, with some of each kind."""
    contents = some_files() if files is None else files
    for name, data in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if files is None:
        (root / "link").symlink_to("text/long.txt")
        (root / "empty folder").mkdir(exist_ok=True)
        (root / os.fsdecode(b"not-utf8-\xff")).write_bytes(b"a name that is no text")
    return root


def some_files() -> dict[str, bytes]:
    """Return files small and large, that compress and that do not."""
    small = {f"small/{number:02d}.txt": prose(300 + number, seed=number) for number in range(12)}
    return small | {
        "empty": b"",
        "text/long.txt": prose(60_000, seed=50),
        "text/twin of long.txt": prose(60_000, seed=50),
        "media/photo.jpg": b"\xff\xd8\xff" + noise(90_000, seed=51),
        "media/small.png": b"\x89PNG\r\n" + noise(2_000, seed=52),
        "umlaut-ä-😀": "grün".encode(),
    }


def file_sources(root: Path) -> SourceSet:
    """Return sources without a database: one tree and the settings."""
    settings = SettingsSource(lambda: {"SITE_NAME": "Gallery", "API_TOKEN": "t-0123"})
    return SourceSet(files=(FileSource("uploads", root),), settings=settings)


def run_backup(
    repository: Repository, sources: SourceSet, state: Path, *, label: str = "", clock: Clock | None = None
) -> BackupResult:
    """Back up with everything that does not matter filled in."""
    return back_up(
        repository,
        sources,
        options=BackupOptions(label=label, actor="tests", app_version="1.2.3"),
        state=StateFolder(state),
        reporter=QuietReporter(),
        clock=clock or CLOCK,
    )


def verify_all(storage: Storage, state: Path) -> dict[str, VerifyReport]:
    """Open the repository anew and read every snapshot whole."""
    repository = open_test_repository(storage, state)
    return {
        snapshot: verify_snapshot(repository, snapshot, state=StateFolder(state), reporter=QuietReporter())
        for snapshot in repository.snapshot_ids()
    }


@dataclass(frozen=True, slots=True)
class Protected:
    """A storage with one snapshot of a folder, and the folder changed since."""

    storage: MemoryStorage
    sources: SourceSet
    first: str


def protected_folder(root: Path, state: Path, change: Callable[[Path], None] | None = None) -> Protected:
    """Back a folder up, then change some of it, so that a second backup has work."""
    storage = MemoryStorage()
    make_storage(storage)
    write_tree(root)
    sources = file_sources(root)
    result = run_backup(open_test_repository(storage, state), sources, state)
    (change or change_tree)(root)
    return Protected(storage, sources, result.snapshot.id)


def change_tree(root: Path) -> None:
    """Add, change and remove some files."""
    write_tree(
        root, {"new/photo.jpg": b"\xff\xd8\xff" + noise(150_000, seed=90), "new/a.txt": prose(9_000, 91)}
    )
    long = root / "text/long.txt"
    long.write_bytes(b"a new beginning\n" + long.read_bytes())
    (root / "small/03.txt").unlink()
