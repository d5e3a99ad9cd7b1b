"""What may be interrupted: operations that change a repository, each with how to prepare and judge it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.errors import BackupAdminError
from backup_admin.core.progress import QuietReporter
from backup_admin.operations.key_rotation import rotate
from backup_admin.operations.prune import PruneOptions, prune
from backup_admin.operations.rebuild import repair
from backup_admin.operations.rekeying import RetireOptions, retire
from backup_admin.repository.repository import open_repository
from backup_admin.storage.local import LocalStorage
from tests.factories import CLOCK, OTHER_SECRET, SECRET
from tests.proof.site import Site, assert_sound, change_files, make_site

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from backup_admin.storage.base import Storage

SECRETS = (SECRET, OTHER_SECRET)


class Told(BackupAdminError):
    """The report of an operation names what it could not do."""


@dataclass(frozen=True)
class Scenario:
    """One operation. `act` may be called again after it was interrupted anywhere.

    `doomed` are how many of the oldest snapshots the operation is allowed to take away. `share`
    is how often it is tried in comparison with the others. What `heals` begins with damage, so
    that only its end can be judged. `unsaid` is where a failure needs no word, with the reason.
    """

    name: str
    act: Callable[[Site, Storage], None]
    prepare: Callable[[Site], None] = lambda _site: None
    snapshots: int = 2
    doomed: int = 0
    share: float = 1.0
    heals: bool = False
    unsaid: tuple[str, str] | None = None

    def make(self, root: Path) -> Site:
        """Make the place in which the operation is to run."""
        site = make_site(root, snapshots=self.snapshots)
        self.prepare(site)
        return site

    def assert_nothing_lost(self, site: Site, known_harm: str = "\0") -> None:
        """Judge what an interruption left."""
        must_stay = tuple(site.truths)[self.doomed : self.snapshots]
        for secret in SECRETS:
            open_repository(LocalStorage(site.objects), secret, state=None, clock=CLOCK)
        if self.heals:
            assert set(must_stay) <= set(site.open().snapshot_ids())
        else:
            site.learn()
            assert_sound(site, expected=must_stay, known_harm=known_harm)

    def assert_goes_on(self, site: Site, known_harm: str = "\0") -> None:
        """Call the operation again, and see that it ends well."""
        self.act(site, LocalStorage(site.objects))
        site.learn()
        must_stay = tuple(site.truths)[self.doomed : self.snapshots]
        assert_sound(site, expected=must_stay, known_harm=known_harm)


def _change(site: Site) -> None:
    change_files(site.files, 7)


def _back_up(site: Site, storage: Storage) -> None:
    site.back_up(storage)


def _back_up_with_database(site: Site, storage: Storage) -> None:
    site.back_up(storage, database=True)


def _forget_oldest(site: Site, storage: Storage) -> None:
    repository = site.open(storage)
    oldest = next(iter(site.truths))
    if oldest in repository.snapshot_ids():
        repository.record("forget", {"ids": [oldest]}, actor="proof")


def _prune(site: Site, storage: Storage) -> None:
    report = prune(
        site.open(storage),
        PruneOptions(max_unused_percent=0, every_unknown=True),
        actor="proof",
        state=site.state,
        reporter=QuietReporter(),
        clock=CLOCK,
    )
    _tell(report.notices)


def _tell(notices: Sequence[str]) -> None:
    if notices:
        raise Told("; ".join(notices))


def _forget_and_prune(site: Site, storage: Storage) -> None:
    _forget_oldest(site, storage)
    _prune(site, storage)


def _rotate(site: Site, storage: Storage) -> None:
    _tell(rotate(site.open(storage), SECRETS, actor="proof", clock=CLOCK).left)


def _rotate_first(site: Site) -> None:
    _rotate(site, LocalStorage(site.objects))


def _retire(site: Site, storage: Storage) -> None:
    repository = site.open(storage)
    if 1 in repository.keys.keyring.epochs:
        report = retire(
            repository,
            RetireOptions(kid=1, secrets=SECRETS),
            actor="proof",
            state=site.state,
            reporter=QuietReporter(),
            clock=CLOCK,
        )
        _tell((*report.notices, *report.left))


def _damage(site: Site) -> None:
    """Lose an index object, and harm the pack with a photo that is still among the sources."""
    index = sorted((site.objects / "index").iterdir())[0]
    index.unlink()
    pack = max((site.objects / "packs").glob("*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[80] ^= 1
    pack.write_bytes(data)


def _repair(site: Site, storage: Storage) -> None:
    repair(
        site.open(storage),
        site.sources(database=True),
        actor="proof",
        state=site.state,
        reporter=QuietReporter(),
        clock=CLOCK,
    )


NOTE_OF_DELETION = ("objects/chain", "without the note that slots are deleted they are deleted once more")
BACKUP = Scenario("backup", _back_up, _change)
SCENARIOS = (
    BACKUP,
    Scenario("first backup", _back_up_with_database, snapshots=0, share=0.2),
    Scenario("backup with a database", _back_up_with_database, _change, share=0.4),
    Scenario("forget", _forget_oldest, snapshots=3, doomed=1, share=0.3),
    Scenario("prune", _forget_and_prune, snapshots=4, doomed=1),
    Scenario("rotate", _rotate, share=0.7, unsaid=NOTE_OF_DELETION),
    Scenario("retire", _retire, _rotate_first, unsaid=NOTE_OF_DELETION),
    Scenario("repair", _repair, _damage, share=0.7, heals=True),
)


def part_of(count: int, scenario: Scenario) -> int:
    """Return how many of so many trials one scenario gets."""
    return max(1, round(count * scenario.share / sum(each.share for each in SCENARIOS)))
