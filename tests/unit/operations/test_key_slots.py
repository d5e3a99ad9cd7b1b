"""Secrets come and go, and at every moment one of before or one of after opens all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import (
    ChainConflict,
    Damaged,
    HistoryChanged,
    KeyRefused,
    StorageDenied,
    StorageError,
    UsageError,
    WrongKey,
)
from backup_admin.operations.key_slots import (
    NewSlot,
    add_secret,
    check_slots,
    exchange_secret,
    find_slot,
    prove_secret,
    prove_slot,
    recorded_slots,
    remove_slot,
    usable_slots,
)
from backup_admin.repository import slots
from backup_admin.repository.secrets import RepositorySecret, SecretKind
from tests.factories import CLOCK, OTHER_SECRET, SECRET
from tests.fakes import Act, Fault, FaultyStorage, clone
from tests.keyed import NEW_RAW, NEW_RECOVERY, Site, make_site, sweep

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.operations.key_slots import SlotChange
    from backup_admin.storage.base import Storage


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


def add(site: Site, secret: RepositorySecret, storage: Storage | None = None) -> SlotChange:
    return add_secret(site.open(storage), NewSlot(secret, "new"), actor="tests", clock=CLOCK)


def slot_of(site: Site, secret: RepositorySecret) -> str:
    repository = site.open(secret=secret)
    (slot,) = slots.opened_slots(repository.storage, secret, repository.keys.repo_id)
    return slot


def exchange(site: Site, storage: Storage | None = None) -> SlotChange:
    repository = site.open(storage)
    old = slots.opened_slots(repository.storage, SECRET, repository.keys.repo_id)
    return exchange_secret(repository, old, NewSlot(NEW_RAW, "new"), actor="tests", clock=CLOCK)


def remove(
    site: Site,
    secret: RepositorySecret,
    storage: Storage | None = None,
    *,
    proven: tuple[RepositorySecret, ...] = (SECRET,),
    force: bool = True,
) -> SlotChange:
    slot = slot_of(site, secret)
    return remove_slot(
        site.open(storage, proven[0]), slot, proven=proven, force=force, actor="tests", clock=CLOCK
    )


def test_an_added_secret_reads_every_snapshot(site: Site) -> None:
    change = add(site, NEW_RECOVERY)

    assert site.reads_all(site.storage, NEW_RECOVERY)
    assert set(recorded_slots(site.open())) == {file.id for file in slots.survey_slots(site.storage)}
    assert set(change.added) <= usable_slots(site.open()).keys()


def test_a_secret_that_opens_already_is_not_added_twice(site: Site) -> None:
    before = site.open().head

    assert add(site, OTHER_SECRET).added == (slot_of(site, OTHER_SECRET),)
    assert site.open().head == before


def test_more_secrets_than_a_rotation_can_hold_are_refused(site: Site) -> None:
    for number in range(slots.MOST_IN_USE - 2):
        add(site, RepositorySecret(SecretKind.RAW, bytes([number + 1]) * 32))

    with pytest.raises(KeyRefused, match="remove one first"):
        add(site, NEW_RAW)


def test_a_removed_secret_opens_nothing_and_the_others_all(site: Site) -> None:
    add(site, NEW_RECOVERY)

    change = remove(site, OTHER_SECRET, force=False)

    assert change.left == ()
    assert not site.opens(site.storage, OTHER_SECRET)
    assert site.reads_all(site.storage, SECRET)
    assert site.reads_all(site.storage, NEW_RECOVERY)
    assert (check_slots(site.open()), site.open().history.doomed) == ([], set())


def test_the_last_slot_is_never_removed(site: Site) -> None:
    remove(site, OTHER_SECRET)

    with pytest.raises(KeyRefused, match="the last"):
        remove(site, SECRET)
    assert site.reads_all(site.storage, SECRET)


def test_the_slot_in_use_is_removed_only_when_another_was_proven(site: Site) -> None:
    with pytest.raises(KeyRefused, match="--prove-with"):
        remove(site, SECRET)

    remove(site, SECRET, proven=(SECRET, OTHER_SECRET))

    assert not site.opens(site.storage, SECRET)
    assert site.reads_all(site.storage, OTHER_SECRET)


def test_one_kind_alone_is_left_only_by_force(site: Site) -> None:
    with pytest.raises(KeyRefused, match=r"Only one kind .* \(application key\)"):
        remove(site, OTHER_SECRET, force=False)
    assert site.opens(site.storage, OTHER_SECRET)

    remove(site, OTHER_SECRET, force=True)

    assert not site.opens(site.storage, OTHER_SECRET)


def test_a_slot_whose_file_is_damaged_does_not_count_as_one_that_remains(site: Site) -> None:
    name = slots.slot_name(slot_of(site, OTHER_SECRET))
    data = site.storage.get(name)
    site.storage.put(name, data[:-1] + bytes([data[-1] ^ 1]), if_absent=False)

    with pytest.raises(KeyRefused, match="the last"):
        remove(site, SECRET)


def test_an_exchanged_secret_is_the_only_one_of_the_two_that_opens(site: Site) -> None:
    exchange(site)

    assert (site.opens(site.storage, SECRET), site.reads_all(site.storage, NEW_RAW)) == (False, True)
    assert site.reads_all(site.storage, OTHER_SECRET)


def test_a_secret_is_not_exchanged_for_itself(site: Site) -> None:
    with pytest.raises(UsageError):
        exchange_secret(site.open(), [slot_of(site, SECRET)], NewSlot(SECRET, ""), actor="tests", clock=CLOCK)
    assert site.opens(site.storage, SECRET)


@pytest.mark.parametrize("verb", ["add", "exchange", "remove"])
def test_a_change_that_stops_anywhere_leaves_every_snapshot_readable(site: Site, verb: str) -> None:
    def act(storage: Storage) -> object:
        if verb == "add":
            return add(site, NEW_RAW, storage)
        return exchange(site, storage) if verb == "exchange" else remove(site, OTHER_SECRET, storage)

    lost = []
    for where, left in sweep(site, act):
        secrets = [one for one in (SECRET, NEW_RAW) if site.opens(left, one)]
        if not secrets or not all(site.reads_all(left, one) for one in secrets):
            lost.append(where)
        if site.opens(left, SECRET) and not (verb == "remove" and not site.opens(left, OTHER_SECRET)):
            act(left)
        wanted = {"add": (True, True, True), "exchange": (False, True, True), "remove": (True, False, False)}
        opening = SECRET if wanted[verb][0] else NEW_RAW
        assert check_slots(site.open(left, opening)) == [], where
        ends = tuple(site.opens(left, one) for one in (SECRET, NEW_RAW, OTHER_SECRET))
        assert ends == wanted[verb], where

    assert lost == []


@pytest.mark.parametrize("act", [Act.LIE, Act.LIE_TORN])
def test_a_slot_that_was_not_stored_as_written_is_noticed_before_it_counts(site: Site, act: Act) -> None:
    before = site.open().head

    with pytest.raises((StorageError, Damaged)):
        add(site, NEW_RAW, FaultyStorage(site.storage, (Fault("put", 1, act),)))

    assert site.open().head == before
    assert site.reads_all(site.storage, SECRET)


def test_an_interrupted_add_leaves_no_second_slot_of_the_secret(site: Site) -> None:
    for where, left in sweep(site, lambda storage: add(site, NEW_RAW, storage)):
        add(site, NEW_RAW, left)

        assert len(slots.survey_slots(left)) == 3, where


def test_whoever_changes_the_keys_second_changes_nothing(site: Site) -> None:
    late = site.open()
    add(site, NEW_RAW)
    before = {info.name for info in site.storage.list_objects("keys/")}

    with pytest.raises(ChainConflict, match="try again"):
        add_secret(late, NewSlot(NEW_RECOVERY, ""), actor="tests", clock=CLOCK)

    assert {info.name for info in site.storage.list_objects("keys/")} == before


def test_a_backup_beside_a_change_of_keys_disturbs_neither(site: Site) -> None:
    late = site.open()
    site.snapshots.append(site.back_up())

    add_secret(late, NewSlot(NEW_RAW, ""), actor="tests", clock=CLOCK)

    assert site.reads_all(site.storage, NEW_RAW)


def test_a_slot_file_that_cannot_be_deleted_is_named_and_deleted_later(site: Site) -> None:
    name = slots.slot_name(slot_of(site, OTHER_SECRET))
    denying = FaultyStorage(site.storage)

    def deny(method: str, _name: str) -> None:
        if method == "delete":
            raise StorageDenied("no")

    denying.before = deny
    change = remove(site, OTHER_SECRET, denying)
    assert change.left == (name,)
    assert name in site.open().history.doomed

    add(site, NEW_RAW)

    assert not site.opens(site.storage, OTHER_SECRET)
    assert site.open().history.doomed == set()


def test_nothing_is_changed_in_an_older_copy(site: Site) -> None:
    old = clone(site.storage)
    site.back_up()

    with pytest.raises(HistoryChanged):
        add(site, NEW_RAW, old)

    assert not site.opens(old, NEW_RAW)


def test_damage_in_a_slot_that_the_given_key_does_not_open_is_seen(site: Site) -> None:
    name = slots.slot_name(slot_of(site, OTHER_SECRET))
    whole = site.storage.get(name)
    unseen = []
    for at in range(len(whole)):
        site.storage.put(name, whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], if_absent=False)
        if not any(name in problem for problem in check_slots(site.open())):
            unseen.append(at)
    site.storage.delete(name)

    assert unseen == []
    assert check_slots(site.open()) == [
        f"{name} is missing from the storage: its secret opens the repository no more."
    ]


def test_each_slot_is_proven_by_what_it_holds_alone(site: Site) -> None:
    slot = slot_of(site, OTHER_SECRET)

    prove_slot(site.open(), slot, OTHER_SECRET, clock=CLOCK)
    assert prove_secret(site.open(), OTHER_SECRET, clock=CLOCK) == (slot,)
    with pytest.raises(WrongKey):
        prove_slot(site.open(), slot, SECRET, clock=CLOCK)
    with pytest.raises(WrongKey):
        prove_secret(site.open(), NEW_RAW, clock=CLOCK)


def test_a_slot_is_found_by_the_beginning_of_its_id(site: Site) -> None:
    slot = slot_of(site, SECRET)

    assert find_slot(site.open(), slot.upper()) == slot
    for text in ("", "zz"):
        with pytest.raises(UsageError):
            find_slot(site.open(), text)
