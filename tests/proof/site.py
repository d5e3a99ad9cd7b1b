"""A small protected place on disk, and the truth about what each snapshot must bring back."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations import extract as extracting
from backup_admin.operations.backup import back_up
from backup_admin.operations.check import check_repository
from backup_admin.operations.results import BackupOptions, SourceSet
from backup_admin.repository.config import ContentDefined, Parameters
from backup_admin.repository.creation import create_repository
from backup_admin.repository.repository import Repository, open_repository
from backup_admin.sources.app_settings import SettingsSource
from backup_admin.sources.files import FileSource
from backup_admin.sources.sqlite import SqliteSource
from backup_admin.storage.local import LocalStorage
from examples.gallery.compare import describe_database, describe_tree, differences
from tests.factories import CLOCK, OTHER_SECRET, SECRET, noise, prose

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from backup_admin.storage.base import Storage

# So small that a few kilobytes make several packs, segments, shards and page maps.
TINY = Parameters(
    whole_file=700,
    media=ContentDefined(256, 1 << 10, 2 << 10),
    stream=ContentDefined(64, 256, 1 << 10),
    segment=2 << 10,
    pack=5 << 10,
    pack_padding=64,
    pages_per_shard=4,
)


@dataclass(frozen=True)
class Truth:
    """What was protected when a snapshot was made, described without the product."""

    tree: dict[bytes, Any]
    database: dict[str, Any]


@dataclass
class Site:
    """Repository and state folder below a root, sources in their home, the truth by snapshot id."""

    root: Path
    home: Path
    truths: dict[str, Truth] = field(default_factory=dict)

    @property
    def objects(self) -> Path:
        """Where the repository lies."""
        return self.root / "objects"

    @property
    def state(self) -> StateFolder:
        """The state folder of the one who backs up."""
        return StateFolder(self.root / "state")

    @property
    def files(self) -> Path:
        """The folder that is protected."""
        return self.home / "files"

    @property
    def database(self) -> Path:
        """The database that is protected."""
        return self.home / "app.db"

    def sources(self, *, database: bool = False) -> SourceSet:
        """Return what is protected; a database takes a process of its own, so only on demand."""
        return SourceSet(
            files=(FileSource("uploads", self.files),),
            databases=(SqliteSource("app", self.database),) if database else (),
            settings=SettingsSource(lambda: {"SITE_NAME": "Gallery", "API_TOKEN": "t-0123"}),
        )

    def open(self, storage: Storage | None = None, state: StateFolder | None = None) -> Repository:
        """Open the repository as the next command would."""
        storage = storage or LocalStorage(self.objects)
        return open_repository(storage, SECRET, state=state or self.state, clock=CLOCK)

    def back_up(
        self,
        storage: Storage | None = None,
        *,
        database: bool = False,
    ) -> str:
        """Make a snapshot, keep the truth about it, and return its id."""
        truth = self._truth(database=database)
        result = back_up(
            self.open(storage),
            self.sources(database=database),
            options=BackupOptions(actor="proof", app_version="1"),
            state=self.state,
            reporter=QuietReporter(),
            clock=CLOCK,
        )
        self.truths[result.snapshot.id] = truth
        return result.snapshot.id

    def learn(self) -> None:
        """Take note of what an interrupted backup committed: the sources as they are now."""
        repository = self.open()
        for snapshot in repository.snapshot_ids():
            if snapshot not in self.truths:
                database = bool(repository.manifest(snapshot).databases)
                self.truths[snapshot] = self._truth(database=database)

    def _truth(self, *, database: bool) -> Truth:
        return Truth(describe_tree(self.files), describe_database(self.database) if database else {})

    def twin(self, root: Path) -> Site:
        """Return a copy of repository and state; the sources stay where they are."""
        root.mkdir(parents=True)
        shutil.copytree(self.objects, root / "objects")
        shutil.copytree(self.state.root, root / "state")
        return Site(root, self.home, dict(self.truths))


def make_site(root: Path, *, snapshots: int = 2, database: bool = True) -> Site:
    """Protect a small folder and database, change something, protect again, and so on."""
    root.mkdir(parents=True, exist_ok=True)
    site = Site(root, root)
    create_repository(
        LocalStorage(site.objects), [(SECRET, "test"), (OTHER_SECRET, "paper")], clock=CLOCK, parameters=TINY
    )
    site.state.root.mkdir()
    _first_files(site.files)
    _make_database(site.database)
    for number in range(snapshots):
        if number:
            change_files(site.files, number)
        site.back_up(database=database and number == 0)
    return site


def _first_files(root: Path) -> None:
    contents = {
        "notes/a.txt": b"a short note\n",
        "notes/b.txt": prose(900, seed=2),
        "notes/twin of b.txt": prose(900, seed=2),
        "photo.jpg": b"\xff\xd8\xff" + noise(2_500, seed=3),
        "empty": b"",
        "umlaut-\xe4": b"a name that is UTF-8",
    }
    for name, data in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (root / "link").symlink_to("notes/a.txt")
    os.link(root / "notes/a.txt", root / "notes/same as a.txt")


def change_files(root: Path, number: int) -> None:
    """Add, change and remove a little; each number does something else."""
    (root / f"new-{number}.jpg").write_bytes(b"\xff\xd8\xff" + noise(1_800, seed=100 + number))
    (root / "notes/b.txt").write_bytes(prose(900, seed=2)[: 400 + number] + prose(700, seed=200 + number))
    (root / f"new-{number - 2}.jpg").unlink(missing_ok=True)


def _make_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA page_size = 512")
        connection.execute("CREATE TABLE photos (id INTEGER PRIMARY KEY, name TEXT)")
        rows = [(number, f"photo {number} " + "x" * 40) for number in range(30)]
        connection.executemany("INSERT INTO photos VALUES (?, ?)", rows)
        connection.commit()


def assert_sound(site: Site, *, expected: Collection[str], known_harm: str = "\0") -> None:
    """Check every byte, restore every snapshot, and compare with what was protected.

    `expected` are the snapshots that must be there; no other may be there without a truth.
    A check may name a `known_harm` and nothing else.
    """
    repository = site.open()
    found = set(repository.snapshot_ids())
    assert set(expected) <= found
    report = check_repository(repository, read_data=True, reporter=QuietReporter())
    assert [problem for problem in report.problems if known_harm not in problem] == []
    for snapshot_id in repository.snapshot_ids():
        assert restore_differences(site, repository, snapshot_id) == []


def restore_differences(site: Site, repository: Repository, snapshot_id: str) -> list[str]:
    """Restore a snapshot into a new folder; say in which way it is not what was protected."""
    target = site.root / f"restored-{snapshot_id}"
    snapshot = repository.find_snapshot(snapshot_id).id
    try:
        with patch.object(extracting, "compare_database", return_value=()):  # it is compared here
            report = extracting.extract(repository, snapshot, target, reporter=QuietReporter())
        found = list(report.problems)
        truth = site.truths[snapshot_id]
        found += differences(truth.tree, describe_tree(target / "files/uploads"))
        if truth.database:
            found += differences(truth.database, describe_database(target / "databases/app.sqlite"))
        return found
    finally:
        shutil.rmtree(target, ignore_errors=True)
