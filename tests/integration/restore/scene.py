"""A small app on disk, with a repository: what the restore tests destroy and restore."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from backup_admin.core.clock import SystemClock
from backup_admin.core.ids import RestoreId, new_ulid
from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations.backup import back_up
from backup_admin.operations.plan_restore import plan_restore
from backup_admin.operations.plans import RestorePlan, Selection
from backup_admin.operations.restore import carry_out
from backup_admin.operations.restore_report import RestoreHooks, RestoreReport, RestoreTools
from backup_admin.operations.results import BackupOptions, BackupResult, SourceSet
from backup_admin.repository.creation import create_repository
from backup_admin.repository.repository import Repository, open_repository
from backup_admin.repository.secrets import RepositorySecret, generate_application_key, parse_application_key
from backup_admin.sources.files import FileSource
from backup_admin.sources.sqlite import SqliteSource
from backup_admin.storage.local import LocalStorage
from examples.gallery.compare import describe_database, describe_tree

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.storage.base import Storage

CLOCK = SystemClock()
EXCLUDE = ("temp/", ".cache/")


@dataclass(frozen=True)
class Scene:
    """Everything of one small app: folder, database, repository, state."""

    root: Path
    secret: RepositorySecret

    @property
    def tree(self) -> Path:
        """The app's folder."""
        return self.root / "app" / "files"

    @property
    def database(self) -> Path:
        """The app's database."""
        return self.root / "app" / "app.db"

    @property
    def state(self) -> StateFolder:
        """Where journals lie."""
        return StateFolder(self.root / "state")

    @property
    def storage(self) -> LocalStorage:
        """Where the repository lies."""
        return LocalStorage(self.root / "repository")

    @property
    def sources(self) -> SourceSet:
        """What is protected."""
        return SourceSet(
            (FileSource("files", self.tree, EXCLUDE, (self.database,)),),
            (SqliteSource("app", self.database),),
        )

    def open(self, storage: Storage | None = None) -> Repository:
        """Open the repository."""
        return open_repository(storage or self.storage, self.secret, state=self.state, clock=CLOCK)

    def back_up(self, repository: Repository | None = None, label: str = "") -> BackupResult:
        """Make a snapshot."""
        return back_up(
            repository or self.open(),
            self.sources,
            options=BackupOptions(label=label),
            state=self.state,
            reporter=QuietReporter(),
            clock=CLOCK,
        )

    def plan(self, snapshot: str = "latest", repository: Repository | None = None) -> RestorePlan:
        """Plan a restore of everything."""
        repository = repository or self.open()
        return plan_restore(
            repository,
            repository.find_snapshot(snapshot).id,
            self.sources,
            Selection(),
            state=self.state,
            reporter=QuietReporter(),
        )

    def restore(
        self, plan: RestorePlan, storage: Storage | None = None, *, reporter: QuietReporter | None = None
    ) -> RestoreReport:
        """Carry out a restore."""
        tools = self.tools()
        return carry_out(
            plan,
            self.open(storage),
            self.sources,
            restore_id=RestoreId(new_ulid(CLOCK.now())),
            actor="tester",
            tools=tools if reporter is None else replace(tools, reporter=reporter),
        )

    def tools(self, hooks: RestoreHooks | None = None) -> RestoreTools:
        """Return what a restore works with."""
        return RestoreTools(self.state, QuietReporter(), CLOCK, hooks or RestoreHooks())

    def keep(self) -> None:
        """Remember the whole scene as it is now."""
        subprocess.run(["cp", "-a", str(self.root), f"{self.root}.kept"], check=True)

    def reset(self) -> None:
        """Go back to what `keep` remembered."""
        shutil.rmtree(self.root)
        subprocess.run(["cp", "-a", f"{self.root}.kept", str(self.root)], check=True)

    def live(self) -> dict[str, Any]:
        """Describe what is live, by code that is not ours to test."""
        tree = describe_tree(self.tree) if self.tree.is_dir() else {}
        kept = {
            path: entry for path, entry in tree.items() if not path.startswith((b"temp", b"cached/.cache"))
        }
        database = describe_database(self.database) if self.database.exists() else {}
        return {"tree": kept, "database": database}


def make_scene(root: Path) -> Scene:
    """Make the app, a repository, and a first content."""
    scene = Scene(root, parse_application_key(generate_application_key().reveal()))
    scene.tree.mkdir(parents=True)
    for number in range(30):
        folder = scene.tree / f"folder {number % 5}"
        folder.mkdir(exist_ok=True)
        (folder / f"file {number}.bin").write_bytes(os.urandom(900 + number))
    (scene.tree / "empty").mkdir()
    (scene.tree / "temp").mkdir()
    (scene.tree / "temp" / "scratch").write_text("not backed up")
    (scene.tree / "cached" / ".cache").mkdir(parents=True)
    (scene.tree / "cached" / ".cache" / "thumb").write_text("not backed up either")
    (scene.tree / "link").symlink_to("folder 1/file 1.bin")
    os.link(scene.tree / "folder 2" / "file 2.bin", scene.tree / "hard link.bin")
    (scene.tree / "folder 3").chmod(0o750)
    with sqlite3.connect(scene.database) as connection:
        connection.execute("create table photos(id integer primary key, title text, body blob)")
        rows = ((f"photo {number}", os.urandom(200)) for number in range(500))
        connection.executemany("insert into photos(title, body) values (?, ?)", rows)
    connection.close()
    create_repository(scene.storage, [(scene.secret, "test")], clock=CLOCK)
    return scene


def damage(scene: Scene) -> None:
    """Lose photos and rows, and add some that the snapshot does not know."""
    for path in sorted((scene.tree / "folder 1").iterdir()):
        path.unlink()
    (scene.tree / "folder 2" / "file 2.bin").write_bytes(b"overwritten")
    (scene.tree / "new file").write_text("came after the backup")
    (scene.tree / "folder 4").chmod(0o700)
    with sqlite3.connect(scene.database) as connection:
        connection.execute("delete from photos where id % 2 = 0")
        connection.execute("create table later(x)")
    connection.close()
