"""Repositories with several secrets, and a sweep that lets each storage call go wrong."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backup_admin.core.errors import BackupAdminError
from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations.verify import verify_snapshot
from backup_admin.repository.creation import create_repository
from backup_admin.repository.repository import Repository, open_repository
from backup_admin.repository.secrets import RepositorySecret, SecretKind
from backup_admin.storage.memory import MemoryStorage
from tests.factories import CLOCK, OTHER_SECRET, SECRET, SMALL, file_sources, run_backup, write_tree
from tests.fakes import Act, Fault, FaultyStorage, clone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from backup_admin.storage.base import Storage

NEW_RAW = RepositorySecret(SecretKind.RAW, bytes([200]) * 32)
NEW_RECOVERY = RepositorySecret(SecretKind.RECOVERY, bytes([201]) * 32)
_CHANGING = ("put", "delete")


class Stop(BaseException):
    """The process ends here: nothing after it is done, not even tidying up."""


@dataclass
class Site:
    """A repository in memory with snapshots, that `SECRET` and `OTHER_SECRET` open."""

    storage: MemoryStorage
    state: Path
    root: Path
    snapshots: list[str] = field(default_factory=list)

    def open(self, storage: Storage | None = None, secret: RepositorySecret = SECRET) -> Repository:
        return open_repository(storage or self.storage, secret, state=StateFolder(self.state), clock=CLOCK)

    def back_up(self, storage: Storage | None = None, secret: RepositorySecret = SECRET) -> str:
        result = run_backup(self.open(storage, secret), file_sources(self.root), self.state)
        return result.snapshot.id

    def forget_head(self) -> None:
        """Make the state folder that of a machine which has not seen the repository."""
        for path in StateFolder(self.state).heads.iterdir():
            path.unlink()

    def opens(self, storage: Storage, secret: RepositorySecret) -> bool:
        try:
            self.open(storage, secret)
        except BackupAdminError:
            return False
        return True

    def reads_all(self, storage: Storage, secret: RepositorySecret) -> bool:
        """Open by a secret and read every snapshot whole."""
        repository = self.open(storage, secret)
        reports = [
            verify_snapshot(repository, one, state=StateFolder(self.state), reporter=QuietReporter())
            for one in repository.snapshot_ids()
        ]
        return len(reports) >= len(self.snapshots) and all(report.ok for report in reports)


def make_site(folder: Path, *, snapshots: int = 1) -> Site:
    """Return a repository with one snapshot of three files, or with more."""
    storage = MemoryStorage()
    create_repository(
        storage, [(SECRET, "application key"), (OTHER_SECRET, "recovery key")], clock=CLOCK, parameters=SMALL
    )
    site = Site(storage, folder / "state", folder / "files")
    for number in range(snapshots):
        write_tree(site.root, {f"{number}.txt": b"text %d\n" % number * 900, "same": b"the same"})
        site.snapshots.append(site.back_up())
    return site


def sweep(
    site: Site, act: Callable[[Storage], object], *, every: int = 1, spread: int = 1
) -> Iterator[tuple[str, MemoryStorage]]:
    """Let each storage call of an action fail, lose its reply, or be the last; yield what is left.

    Gives a name for messages and the storage as it is then. Of calls that only read,
    one in `every` fails; of all points, one in `spread` is tried.
    """
    counting = FaultyStorage(clone(site.storage))
    site.forget_head()
    act(counting)
    for what, method, number, name in list(_points(counting.calls, every))[::spread]:
        site.forget_head()
        yield f"{what} at {method} of {name}", _left(site, act, (what, method, number))


def _points(calls: list[tuple[str, str]], every: int) -> Iterator[tuple[str, str, int, str]]:
    """Yield what to do, the method, and which call of it or of all."""
    counts: Counter[str] = Counter()
    for number, (method, name) in enumerate(calls, 1):
        counts[method] += 1
        if method in _CHANGING:
            yield from ((act, method, counts[method], name) for act in (Act.FAIL, Act.LOSE_REPLY))
            yield from ((act, method, number, name) for act in ("before", "after"))
        elif number % every == 0:
            yield Act.FAIL, method, counts[method], name


def _left(site: Site, act: Callable[[Storage], object], point: tuple[str, str, int]) -> MemoryStorage:
    what, method, number = point
    inner = clone(site.storage)
    if what in ("before", "after"):
        return _ended(site, act, number, before=what == "before")
    with suppress(BackupAdminError):
        act(FaultyStorage(inner, (Fault(method, number, Act(what)),)))
    return inner


def _ended(site: Site, act: Callable[[Storage], object], number: int, *, before: bool) -> MemoryStorage:
    inner = clone(site.storage)
    faulty = FaultyStorage(inner)

    def stop(_method: str, _name: str) -> None:
        if len(faulty.calls) >= number:
            raise Stop

    setattr(faulty, "before" if before else "after", stop)
    with suppress(Stop):
        act(faulty)
    return inner
