"""A retired key is needed for nothing, and nothing is lost by retiring it."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import Busy, KeyRefused, OldKey, PacksCollected, UsageError, WrongKey
from backup_admin.core.ids import SnapshotId, new_ulid
from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations.check import check_repository
from backup_admin.operations.key_rotation import rotate
from backup_admin.operations.key_slots import check_slots
from backup_admin.operations.rekeying import RetireOptions, RetireReport, retire
from backup_admin.repository import slots
from backup_admin.repository.keys import sha256
from backup_admin.repository.manifests import manifest_frames, manifest_name
from backup_admin.repository.objects import HEADER_BYTES, ObjectType, object_kid, seal_object
from backup_admin.repository.standing import refuse_retired
from tests.factories import CLOCK, OTHER_SECRET, SECRET, file_sources, run_backup
from tests.fakes import FaultyStorage
from tests.keyed import Site, make_site, sweep

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from backup_admin.repository.secrets import RepositorySecret
    from backup_admin.storage.base import Storage
    from backup_admin.storage.memory import MemoryStorage

BOTH = (SECRET, OTHER_SECRET)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return a repository with two snapshots under key 1 and one under key 2."""
    made = make_site(tmp_path, snapshots=2)
    rotate(made.open(), (SECRET,), actor="tests", clock=CLOCK)
    (made.root / "new").write_bytes(b"new\n" * 2000)
    made.snapshots.append(made.back_up())
    return made


def end(
    site: Site,
    *secrets: RepositorySecret,
    kid: int = 1,
    storage: Storage | None = None,
    drop: tuple[str, ...] = (),
) -> RetireReport:
    return retire(
        site.open(storage, (*secrets, SECRET)[0]),
        RetireOptions(kid, secrets or BOTH, drop),
        actor="tests",
        state=StateFolder(site.state),
        reporter=QuietReporter(),
        clock=CLOCK,
    )


def under(storage: MemoryStorage, kid: int) -> list[str]:
    """Return the objects that are sealed under a key."""
    names = [info.name for info in storage.list_objects("") if info.name[:5] not in ("confi", "keys/")]
    return [name for name in names if object_kid(storage.get(name, 0, HEADER_BYTES)) == kid]


def test_nothing_that_is_needed_stays_under_a_retired_key(site: Site) -> None:
    report = end(site)

    base = site.open().verify_history()
    assert (report.problems, report.left, report.notices) == ([], (), ())
    assert all(name.startswith("chain/") for name in under(site.storage, 1))
    assert {slot.epochs for slot in slots.list_slots(site.storage)} == {(2,)}
    assert base == site.open().head.seq
    assert all(site.reads_all(site.storage, secret) for secret in BOTH)
    assert (report.packs > 1, report.manifests) == (True, 2)


def test_entries_under_a_retired_key_are_not_needed(site: Site) -> None:
    end(site)

    for name in under(site.storage, 1):
        site.storage.delete(name)

    assert all(site.reads_all(site.storage, secret) for secret in BOTH)


def test_content_keeps_its_names_so_that_nothing_is_stored_again(site: Site) -> None:
    end(site)
    before = {info.name for info in site.storage.list_objects("packs/")}

    site.back_up()

    assert {info.name for info in site.storage.list_objects("packs/")} == before
    assert check_repository(site.open(), read_data=True, reporter=QuietReporter()).ok


def test_a_key_is_retired_again_and_again(site: Site) -> None:
    end(site)
    for kid in (2, 3):
        rotate(site.open(), (SECRET,), actor="tests", clock=CLOCK)
        site.snapshots.append(site.back_up())
        end(site, kid=kid)

    assert all(site.reads_all(site.storage, secret) for secret in BOTH)
    assert site.open().history.retired == {1, 2, 3}
    assert set(site.open().keys.keyring.epochs) == {4}


def test_the_key_in_use_and_one_that_is_not_there_are_refused(site: Site) -> None:
    with pytest.raises(KeyRefused, match="keys rotate"):
        end(site, kid=2)
    with pytest.raises(UsageError, match="has no key 3"):
        end(site, kid=3)
    end(site)
    with pytest.raises(UsageError, match="any more"):
        end(site)


def test_a_slot_whose_secret_is_not_given_has_to_be_given_up(site: Site) -> None:
    (paper,) = slots.opened_slots(site.storage, OTHER_SECRET, site.open().keys.repo_id)
    before = {info.name for info in site.storage.list_objects("")}
    with pytest.raises(KeyRefused, match=paper):
        end(site, SECRET)
    assert {info.name for info in site.storage.list_objects("")} == before

    end(site, SECRET, drop=(paper,))

    assert site.reads_all(site.storage, SECRET)
    with pytest.raises(WrongKey):
        site.open(secret=OTHER_SECRET)


@pytest.mark.parametrize(("every", "spread"), [(40, 3), pytest.param(1, 1, marks=pytest.mark.long)])
def test_retiring_that_stops_anywhere_leaves_every_snapshot_readable(
    site: Site, every: int, spread: int
) -> None:
    def act(storage: Storage) -> object:
        return end(site, storage=storage)

    points = 0
    for where, left in sweep(site, act, every=every, spread=spread):
        points += 1
        assert all(site.reads_all(left, secret) for secret in BOTH), where
        with suppress(UsageError):  # it was done; what is left to delete is deleted all the same
            act(left)
        assert all(site.reads_all(left, secret) for secret in BOTH), where
        assert check_slots(site.open(left)) == [], where
        assert {slot.epochs for slot in slots.list_slots(left)} == {(2,)}, where
    assert points > 20


def test_a_damaged_pack_keeps_the_key_and_is_named(site: Site) -> None:
    name = next(name for name in under(site.storage, 1) if name.startswith("packs/"))
    data = site.storage.get(name)
    site.storage.put(name, data[:-1] + bytes([data[-1] ^ 1]), if_absent=False)

    report = end(site)

    assert [name in problem for problem in report.problems] == [True]
    assert 1 in site.open().keys.keyring.epochs
    site.storage.put(name, data, if_absent=False)
    assert end(site).problems == []
    assert all(site.reads_all(site.storage, secret) for secret in BOTH)


@dataclass
class Overtaken:
    """Calls something once, just before the storage takes a chosen object."""

    storage: FaultyStorage
    prefix: str
    call: Callable[[], object]
    number: int = 1

    def arm(self) -> FaultyStorage:
        def before(method: str, name: str) -> None:
            if method == "put" and name.startswith(self.prefix):
                self.number -= 1
                if self.number == 0:
                    self.call()

        self.storage.before = before
        return self.storage


@pytest.mark.parametrize("prefix", ["packs/", "index/", "manifests/", "chain/", "keys/"])
def test_a_backup_by_a_process_that_knows_only_the_old_key_is_not_lost(site: Site, prefix: str) -> None:
    def back_up() -> None:
        (site.root / f"during {prefix[:3]}").write_bytes(prefix.encode() * 3000)
        site.snapshots.append(site.back_up())

    end(site, storage=Overtaken(FaultyStorage(site.storage), prefix, back_up).arm())

    assert all(site.reads_all(site.storage, secret) for secret in BOTH)
    assert all(name.startswith("chain/") for name in under(site.storage, 1))


@pytest.mark.parametrize("number", range(1, 8))
def test_what_somebody_commits_late_under_the_old_key_is_sealed_anew_too(tmp_path: Path, number: int) -> None:
    site = make_site(tmp_path, snapshots=2)
    late = site.open()
    manifest = late.manifest(site.snapshots[0])
    snapshot = SnapshotId(new_ulid(CLOCK.now()))
    frames = manifest_frames(
        dataclasses.replace(manifest, snapshot=dataclasses.replace(manifest.snapshot, id=snapshot))
    )
    name = manifest_name(snapshot)
    data = seal_object(late.keys, ObjectType.MANIFEST, name, frames)
    rotate(site.open(), (SECRET,), actor="tests", clock=CLOCK)
    committed = []

    def commit() -> None:
        if site.open().history.retired:
            return  # from here on a writer refuses by itself, see `refuse_retired`
        site.storage.put(name, data)
        payload = {"id": snapshot, "manifest": sha256(data).hex(), "indexes": []}
        site.open().record("snapshot", payload, actor="tests")
        committed.append(snapshot)

    end(site, storage=Overtaken(FaultyStorage(site.storage), "chain/", commit, number).arm())

    site.snapshots += committed
    assert set(site.snapshots) == set(site.open().snapshot_ids())
    assert all(site.reads_all(site.storage, secret) for secret in BOTH)
    used = {ref.name for ref in site.open().history.manifests.values()}
    assert used.isdisjoint(under(site.storage, 1))


def test_a_backup_older_than_rotation_and_retirement_fails_and_the_next_one_does_not(tmp_path: Path) -> None:
    site = make_site(tmp_path, snapshots=1)
    (site.root / "slow").write_bytes(b"slow\n" * 3000)

    def overtake() -> None:
        rotate(site.open(), (SECRET,), actor="tests", clock=CLOCK)
        end(site)

    storage = Overtaken(FaultyStorage(site.storage), "chain/", overtake).arm()
    with pytest.raises(OldKey, match="Open the repository again"):
        run_backup(site.open(storage), file_sources(site.root), site.state)

    site.snapshots.append(site.back_up())
    assert all(site.reads_all(site.storage, secret) for secret in BOTH)


def test_a_snapshot_forgotten_meanwhile_stays_forgotten(site: Site) -> None:
    def forget() -> None:
        site.open().record("forget", {"ids": [site.snapshots.pop(0)]}, actor="tests")

    end(site, storage=Overtaken(FaultyStorage(site.storage), "manifests/", forget).arm())

    assert list(site.open().snapshot_ids()) == site.snapshots
    assert site.reads_all(site.storage, SECRET)


def test_it_waits_for_no_prune_in_the_same_state_folder(site: Site) -> None:
    with StateFolder(site.state).lock("prune"), pytest.raises(Busy):
        end(site)


def test_who_kept_the_old_keyring_opens_nothing(site: Site) -> None:
    old = {info.name: site.storage.get(info.name) for info in site.storage.list_objects("keys/")}
    end(site)
    (paper,) = slots.opened_slots(site.storage, OTHER_SECRET, site.open().keys.repo_id)
    site.storage.delete(slots.slot_name(paper))
    for name, data in old.items():
        site.storage.put(name, data)

    with pytest.raises(OldKey):
        site.open(secret=OTHER_SECRET)


def test_a_run_under_a_retired_key_is_refused(site: Site) -> None:
    refuse_retired({1}, [b"BKA1" + bytes(4) + b"\0\2"])
    with pytest.raises(PacksCollected, match="made again"):
        refuse_retired({1}, [b"BKA1" + bytes(4) + b"\0\2", b"BKA1" + bytes(4) + b"\0\1"])
