"""A rotation changes the key of what comes after; every secret that shall go on, goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import ChainConflict, Damaged, KeyRefused, OldKey, WrongKey
from backup_admin.operations.key_rotation import RotationReport, rotate
from backup_admin.operations.key_slots import NewSlot, add_secret, check_slots, prove_secret
from backup_admin.repository import slots
from backup_admin.repository.epochs import epoch_name, seal_epoch
from backup_admin.repository.objects import HEADER_BYTES
from tests.factories import CLOCK, OTHER_SECRET, SECRET
from tests.fakes import FaultyStorage
from tests.keyed import NEW_RAW, NEW_RECOVERY, Site, make_site, sweep

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.repository.secrets import RepositorySecret
    from backup_admin.storage.base import Storage
    from backup_admin.storage.memory import MemoryStorage


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


def turn(
    site: Site,
    *more: RepositorySecret,
    storage: Storage | None = None,
    cut_off: bool = False,
    drop: tuple[str, ...] = (),
) -> RotationReport:
    return rotate(
        site.open(storage, more[0] if more else SECRET),
        more or (SECRET,),
        cut_off=cut_off,
        drop=drop,
        actor="tests",
        clock=CLOCK,
    )


def kids(storage: MemoryStorage, *names: str) -> set[int]:
    """Return the keys that objects are sealed under."""
    found = [info.name for info in storage.list_objects("") if info.name.startswith(names)]
    return {int.from_bytes(storage.get(name, 0, HEADER_BYTES)[8:10], "big") for name in found}


def slot_of(site: Site, secret: RepositorySecret) -> str:
    repository = site.open(secret=secret)
    (slot,) = slots.opened_slots(repository.storage, secret, repository.keys.repo_id)
    return slot


def test_what_comes_after_a_rotation_is_under_the_new_key_and_all_stays_readable(site: Site) -> None:
    before = {info.name for info in site.storage.list_objects("")}

    report = turn(site)
    (site.root / "later").write_bytes(b"later" * 999)
    site.snapshots.append(site.back_up())

    new = [info.name for info in site.storage.list_objects("") if info.name not in before]
    sealed = tuple(name for name in new if name.startswith(("packs/", "index/", "manifests/")))
    assert (report.kid, kids(site.storage, *sealed)) == (2, {2})
    assert site.reads_all(site.storage, SECRET)


def test_a_recovery_key_on_paper_goes_on_working_without_being_typed(site: Site) -> None:
    paper = slot_of(site, OTHER_SECRET)

    report = turn(site)
    turn(site)
    site.snapshots.append(site.back_up())

    assert report.bridged == (paper,)
    assert slot_of(site, OTHER_SECRET) == paper
    assert site.reads_all(site.storage, OTHER_SECRET)
    assert prove_secret(site.open(), OTHER_SECRET, clock=CLOCK) == (paper,)


def test_it_writes_under_the_new_key_too(site: Site) -> None:
    turn(site)
    before = {info.name for info in site.storage.list_objects("manifests/")}

    site.snapshots.append(site.back_up(secret=OTHER_SECRET))

    (manifest,) = {info.name for info in site.storage.list_objects("manifests/")} - before
    assert kids(site.storage, manifest) == {2}
    assert site.reads_all(site.storage, SECRET)


def test_a_secret_added_after_a_rotation_holds_all_keys(site: Site) -> None:
    turn(site)
    repository = site.open(secret=OTHER_SECRET)
    add_secret(repository, NewSlot(NEW_RAW, ""), actor="tests", clock=CLOCK)
    site.snapshots.append(site.back_up())

    for info in list(site.storage.list_objects("epochs/")):
        site.storage.delete(info.name)

    assert site.reads_all(site.storage, NEW_RAW)


def test_cutting_off_needs_every_secret_or_its_slot_given_up(site: Site) -> None:
    paper = slot_of(site, OTHER_SECRET)
    before = {info.name for info in site.storage.list_objects("")}

    with pytest.raises(KeyRefused, match=paper):
        turn(site, cut_off=True)
    assert {info.name for info in site.storage.list_objects("")} == before

    report = turn(site, cut_off=True, drop=(paper,))

    assert (report.bridged, report.dropped) == ((), (paper,))
    assert not site.opens(site.storage, OTHER_SECRET)
    assert site.reads_all(site.storage, SECRET)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_who_holds_an_old_slot_after_a_cut_is_told_so(site: Site, checkpoint: bool) -> None:
    old = {info.name: site.storage.get(info.name) for info in site.storage.list_objects("keys/")}
    turn(site, SECRET, OTHER_SECRET, cut_off=True)
    if checkpoint:
        site.open().write_checkpoint(actor="tests")
    opened = slots.opened_slots(site.storage, OTHER_SECRET, site.open().keys.repo_id)
    for slot in opened:
        site.storage.delete(slots.slot_name(slot))
    for name, data in old.items():
        site.storage.put(name, data)

    with pytest.raises(OldKey, match="rotated without this secret"):
        site.open(secret=OTHER_SECRET)


def test_an_old_copy_of_the_slots_opens_nothing_new_after_a_cut(site: Site) -> None:
    old = {info.name: site.storage.get(info.name) for info in site.storage.list_objects("keys/")}
    turn(site, SECRET, OTHER_SECRET, cut_off=True)
    for info in list(site.storage.list_objects("keys/")):
        site.storage.delete(info.name)
    for name, data in old.items():
        site.storage.put(name, data)

    with pytest.raises(Damaged, match="rotated without this secret"):
        site.open(secret=OTHER_SECRET)


def test_a_secret_that_opens_nothing_is_refused_before_anything_is_written(site: Site) -> None:
    before = {info.name for info in site.storage.list_objects("")}

    with pytest.raises(WrongKey, match="Nothing was changed"):
        turn(site, SECRET, NEW_RAW)

    assert {info.name for info in site.storage.list_objects("")} == before


@pytest.mark.parametrize("cut_off", [False, True])
@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.long)])
def test_a_rotation_that_stops_anywhere_leaves_every_snapshot_readable(
    site: Site, every: int, cut_off: bool
) -> None:
    secrets = (SECRET, OTHER_SECRET) if cut_off else (SECRET,)

    def act(storage: Storage) -> object:
        return turn(site, *secrets, storage=storage, cut_off=cut_off)

    points = 0
    for where, left in sweep(site, act, every=every):
        points += 1
        assert all(site.reads_all(left, one) for one in (SECRET, OTHER_SECRET)), where
        site.back_up(left)
        act(left)
        site.back_up(left, OTHER_SECRET)
        assert all(site.reads_all(left, one) for one in (SECRET, OTHER_SECRET)), where
        assert check_slots(site.open(left)) == [], where
        assert len(slots.survey_slots(left)) == 2, where
    assert points > 20


def test_what_one_secret_began_another_can_finish(site: Site) -> None:
    for where, left in sweep(site, lambda storage: turn(site, storage=storage), every=9):
        turn(site, OTHER_SECRET, storage=left)
        site.back_up(left)

        assert all(site.reads_all(left, one) for one in (SECRET, OTHER_SECRET)), where


def test_a_cut_goes_on_with_other_secrets_than_it_began_with(site: Site) -> None:
    add_secret(site.open(), NewSlot(NEW_RECOVERY, ""), actor="tests", clock=CLOCK)
    every = (SECRET, OTHER_SECRET, NEW_RECOVERY)

    def act(storage: Storage) -> object:
        return turn(site, *every, storage=storage, cut_off=True)

    for where, left in sweep(site, act, every=20):
        turn(site, NEW_RECOVERY, storage=left)
        site.back_up(left)

        assert all(site.reads_all(left, one) for one in every), where


def test_a_cut_never_uses_a_key_that_older_keys_open(site: Site) -> None:
    keys = site.open().keys
    site.storage.put(epoch_name(2), seal_epoch(keys, 2, bytes(32)))
    site.storage.put(epoch_name(4), seal_epoch(keys, 4, bytes(32)))

    cut = turn(site, SECRET, OTHER_SECRET, cut_off=True)
    later = turn(site)

    assert (cut.kid, later.kid) == (3, 5)


def test_a_rotation_goes_on_with_the_key_an_interrupted_one_stored(site: Site) -> None:
    site.storage.put(epoch_name(2), seal_epoch(site.open().keys, 2, bytes(32)))

    assert turn(site).kid == 2
    assert site.open().keys.keyring.epochs[2] == bytes(32)


def test_an_epoch_object_under_a_later_key_is_refused(site: Site) -> None:
    data = bytearray(seal_epoch(site.open().keys, 9, bytes(32)))
    data[9] = 9
    site.storage.put(epoch_name(9), bytes(data))

    with pytest.raises(Damaged, match="later key"):
        site.open().keys.knows(9)


def test_of_two_rotations_at_once_one_stands(site: Site) -> None:
    busy = FaultyStorage(site.storage)

    def overtake(method: str, name: str) -> None:
        if method == "put" and name.startswith("chain/"):
            busy.before = lambda _method, _name: None
            turn(site, OTHER_SECRET)

    busy.before = overtake
    with pytest.raises(ChainConflict, match="try again"):
        turn(site, storage=busy)

    site.back_up()
    assert all(site.reads_all(site.storage, one) for one in (SECRET, OTHER_SECRET))
    assert len(slots.survey_slots(site.storage)) == 2


def test_a_backup_that_runs_while_the_key_is_rotated_is_kept(site: Site) -> None:
    late = site.open()
    turn(site)

    late.record("pin", {"pin": "p", "snapshot": "s", "until": "", "reason": ""}, actor="tests")

    assert late.keys.keyring.write_kid == 2
    assert site.open().history.pins.keys() == {"p"}


def test_a_lost_bridge_is_a_problem_that_check_names(site: Site) -> None:
    turn(site)
    site.storage.delete("epochs/00002")

    (problem,) = check_slots(site.open())

    assert slot_of_paper(site) in problem
    assert "epochs/00002" in problem


def slot_of_paper(site: Site) -> str:
    (slot,) = slots.opened_slots(site.storage, OTHER_SECRET, site.open().keys.repo_id)
    return slot
