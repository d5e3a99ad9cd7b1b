"""A mirror is the same repository, byte for byte; and what may be all that is left stays in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import (
    ChainConflict,
    Damaged,
    HistoryChanged,
    NotARepository,
    RepositoryExists,
    StorageDenied,
    StorageError,
    StorageNotEmpty,
    StorageUnavailable,
    UsageError,
)
from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations.key_rotation import rotate
from backup_admin.operations.mirror_plan import plan_mirror
from backup_admin.operations.pinning import pinned
from backup_admin.operations.rekeying import RetireOptions, retire
from backup_admin.repository.chain import entry_name, find_last
from backup_admin.repository.creation import create_repository
from backup_admin.storage.local import LocalStorage
from backup_admin.storage.memory import MemoryStorage
from tests.factories import CLOCK, OTHER_SECRET, SECRET, SMALL
from tests.fakes import FaultyStorage
from tests.keyed import Site, make_site
from tests.mirrored import back_up_more, collect, contents, forget, keep

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.storage.base import Buffer, ObjectInfo, PutResult


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path, snapshots=2)


@pytest.fixture
def target(site: Site) -> MemoryStorage:
    """The mirror of the site as it is now."""
    made = MemoryStorage("mirror")
    assert keep(site.storage, made).ok
    return made


def flip(storage: MemoryStorage, name: str) -> None:
    data = bytearray(storage.get(name))
    data[len(data) // 2] ^= 1
    storage.put(name, data, if_absent=False)


def names(storage: MemoryStorage, prefix: str) -> list[str]:
    return [info.name for info in storage.list_objects(prefix)]


def read_all(site: Site, storage: MemoryStorage) -> bool:
    """Read every snapshot of a mirror, as a machine that saw neither storage before."""
    site.forget_head()
    found = site.reads_all(storage, OTHER_SECRET)
    site.forget_head()
    return found


# --- what is copied --------------------------------------------------------------------


def test_a_first_mirror_is_the_same_byte_for_byte_and_restores(site: Site) -> None:
    made = MemoryStorage("mirror")

    report = keep(site.storage, made)

    assert contents(made) == contents(site.storage)
    size = sum(len(data) for name, data in contents(made).items() if name != "config")
    assert (report.objects, report.bytes_copied) == (len(contents(made)) - 1, size)
    head = find_last(site.storage)
    assert (report.entries_behind, report.head_seq, report.deleted, report.ok) == (head, head, 0, True)
    assert read_all(site, made)


def test_a_folder_that_is_not_there_is_made_by_the_mirror_and_not_by_its_plan(
    site: Site, tmp_path: Path
) -> None:
    folder = LocalStorage(tmp_path / "new" / "mirror")

    plan = plan_mirror(site.storage, folder)

    assert not folder.folder.exists()
    assert (plan.is_first, plan.behind, plan.gone) == (True, find_last(site.storage), ())
    keep(site.storage, folder, plan)
    assert contents(folder) == contents(site.storage)


def test_a_repository_without_any_snapshot_can_be_mirrored(tmp_path: Path) -> None:
    site = make_site(tmp_path, snapshots=0)
    made = MemoryStorage("mirror")

    report = keep(site.storage, made)

    assert (report.ok, report.head_seq, contents(made)) == (True, 0, contents(site.storage))


def test_the_next_mirror_copies_only_what_is_new(site: Site, target: MemoryStorage) -> None:
    before = contents(target)
    back_up_more(site, 1)
    new = contents(site.storage).keys() - before.keys()

    report = keep(site.storage, target)

    assert (report.objects, report.entries_behind) == (len(new), 1)
    assert contents(target) == contents(site.storage)
    assert read_all(site, target)


def test_where_nothing_is_new_nothing_is_written(site: Site, target: MemoryStorage) -> None:
    watched = FaultyStorage(target)

    plan = plan_mirror(site.storage, watched)
    report = keep(site.storage, watched, plan)

    assert plan.in_sync
    assert (report.ok, report.objects, report.bytes_copied, report.entries_behind) == (True, 0, 0, 0)
    assert {method for method, _ in watched.calls} == {"get", "stat", "list"}


def test_keys_packs_index_manifests_and_history_are_stored_in_this_order(site: Site) -> None:
    watched = FaultyStorage(MemoryStorage("mirror"))

    keep(site.storage, watched)

    kinds = [name.partition("/")[0] for method, name in watched.calls if method == "put"]
    kinds = [kind for kind in kinds if not kind.startswith("probe-")]
    assert list(dict.fromkeys(kinds)) == ["keys", "packs", "index", "manifests", "chain", "config"]


def test_commits_are_copied_one_after_the_other(site: Site, target: MemoryStorage) -> None:
    for number in range(1, 4):
        back_up_more(site, number)
    watched = FaultyStorage(target)

    keep(site.storage, watched)

    put = [name for method, name in watched.calls if method == "put"]
    assert put[-3:] == sorted(name for name in put if name.startswith("chain/"))


def test_a_rotation_of_keys_reaches_the_mirror(site: Site, target: MemoryStorage) -> None:
    rotate(site.open(), [SECRET, OTHER_SECRET], actor="tests", clock=CLOCK)
    back_up_more(site, 1)

    assert keep(site.storage, target).ok

    assert contents(target) == contents(site.storage)
    assert names(target, "epochs/") == ["epochs/00002"]
    assert read_all(site, target)


def test_a_retired_key_leaves_the_mirror_too(site: Site, target: MemoryStorage) -> None:
    holders = [SECRET, OTHER_SECRET]
    rotate(site.open(), holders, actor="tests", clock=CLOCK)
    retire(
        site.open(),
        RetireOptions(1, holders),
        actor="tests",
        state=StateFolder(site.state),
        reporter=QuietReporter(),
        clock=CLOCK,
    )
    collect(site)

    report = keep(site.storage, target)

    assert (report.ok, report.kept) == (True, 0)
    assert contents(target) == contents(site.storage)
    assert read_all(site, target)


def test_what_is_not_of_the_repository_is_left_where_it_is(site: Site, target: MemoryStorage) -> None:
    site.storage.put("packs/readme.txt", b"not ours")
    target.put("packs/notes.txt", b"not ours either")

    assert keep(site.storage, target).ok

    assert target.stat("packs/readme.txt") is None
    assert target.stat("packs/notes.txt") is not None


def test_copies_of_damaged_objects_are_copied_and_never_deleted(site: Site, target: MemoryStorage) -> None:
    site.storage.put("quarantine/config", b"")
    keep(site.storage, target)
    site.storage.delete("quarantine/config")
    back_up_more(site, 1)

    report = keep(site.storage, target)

    assert target.get("quarantine/config") == b""
    assert (report.ok, report.deleted) == (True, 0)


def test_a_source_that_goes_on_meanwhile_is_copied_as_it_is_then(site: Site) -> None:
    made = MemoryStorage("mirror")
    done: list[str] = []

    def go_on(_method: str, name: str) -> None:
        if name.startswith("packs/") and not done:
            done.append(name)
            back_up_more(site, 1)

    report = keep(FaultyStorage(site.storage, before=go_on), made)

    assert (report.ok, contents(made)) == (True, contents(site.storage))


def test_a_plan_goes_no_further_than_what_was_committed_when_it_began(site: Site) -> None:
    done: list[str] = []

    def go_on(method: str, name: str) -> None:
        if (method, name) == ("list", "chain/") and not done:
            done.append(name)
            back_up_more(site, 1)

    plan = plan_mirror(FaultyStorage(site.storage, before=go_on), MemoryStorage("mirror"))

    assert (plan.head, [info.name for info in plan.entries]) == (2, [entry_name(1), entry_name(2)])


def test_a_source_that_never_rests_ends_the_call_and_leaves_the_mirror_as_it_was(
    site: Site, target: MemoryStorage
) -> None:
    numbers = iter(range(1, 1000))

    def go_on(method: str, name: str) -> None:
        if (method, name) == ("list", "packs/"):
            back_up_more(site, next(numbers))

    with pytest.raises(ChainConflict, match="kept changing"):
        keep(FaultyStorage(site.storage, before=go_on), target)
    site.snapshots = site.snapshots[:2]
    assert read_all(site, target)


# --- what is refused -------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["storage", "storage/mirror", "."])
def test_one_place_is_no_second_copy(tmp_path: Path, inner: str) -> None:
    source = LocalStorage(tmp_path / "storage")
    create_repository(source, [(SECRET, "")], clock=CLOCK, parameters=SMALL)
    before = contents(source)

    with pytest.raises(UsageError, match="one place"):
        plan_mirror(source, LocalStorage(tmp_path / inner))
    assert contents(source) == before


def test_one_place_under_two_names_is_no_second_copy(tmp_path: Path) -> None:
    site = make_site(tmp_path, snapshots=1)
    twin = MemoryStorage("another name")
    twin._objects = site.storage._objects

    with pytest.raises(UsageError, match="one place"):
        keep(site.storage, twin, state=StateFolder(site.state))

    assert not list(twin.list_objects("probe-"))


def test_a_source_without_config_is_no_repository(site: Site, target: MemoryStorage) -> None:
    before = contents(target)
    site.storage.delete("config")

    with pytest.raises(NotARepository):
        plan_mirror(site.storage, target)
    assert contents(target) == before


def test_another_repository_is_refused(site: Site) -> None:
    other = MemoryStorage("mirror")
    create_repository(other, [(SECRET, "")], clock=CLOCK, parameters=SMALL)

    with pytest.raises(RepositoryExists, match="another repository"):
        plan_mirror(site.storage, other)


def test_the_same_repository_with_another_config_is_refused(site: Site, target: MemoryStorage) -> None:
    flip(target, "config")

    with pytest.raises(RepositoryExists, match=r"same repository|another repository"):
        plan_mirror(site.storage, target)


@pytest.mark.parametrize("name", ["readme.txt", "chain/readme", "packs/aa/notes", "probe-1"])
def test_a_place_that_holds_other_things_is_refused(site: Site, name: str) -> None:
    place = MemoryStorage("mirror")
    place.put(name, b"something of mine")

    with pytest.raises(StorageNotEmpty, match=name):
        plan_mirror(site.storage, place)


def test_parts_of_another_repository_are_refused(site: Site, tmp_path: Path) -> None:
    other = make_site(tmp_path / "other").storage
    other.label = "other"
    other.delete("config")

    with pytest.raises(StorageNotEmpty, match="another repository"):
        plan_mirror(site.storage, other)


def test_a_mirror_that_is_ahead_is_refused_and_can_be_mirrored_back(
    site: Site, target: MemoryStorage
) -> None:
    before = contents(site.storage)
    site.forget_head()
    back_up_more(site, 1, target)

    with pytest.raises(HistoryChanged, match="is ahead: its history has 3 entries, that of memory has 2"):
        plan_mirror(site.storage, target)
    assert contents(site.storage) == before
    assert keep(target, site.storage).ok
    assert contents(site.storage) == contents(target)


@pytest.mark.parametrize("more", [0, 1])
def test_two_histories_are_refused(site: Site, target: MemoryStorage, more: int) -> None:
    site.forget_head()
    back_up_more(site, 1, target)
    site.forget_head()
    for number in range(1 + more):
        back_up_more(site, 5 + number)
    before = contents(target)

    for one, other in ((site.storage, target), (target, site.storage)):
        with pytest.raises(HistoryChanged, match="different histories: entry 3 is not the same"):
            plan_mirror(one, other)
    assert contents(target) == before


def test_a_list_out_of_order_is_not_believed(site: Site) -> None:
    class Shuffled(MemoryStorage):
        def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
            yield from reversed(list(super().list_objects(prefix)))

    shuffled = Shuffled()
    for name, data in contents(site.storage).items():
        shuffled.put(name, data)

    with pytest.raises(StorageError, match="nothing follows from such a list"):
        plan_mirror(shuffled, MemoryStorage("mirror"))


# --- damage ----------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["packs/", "index/"])
def test_a_damaged_object_is_named_and_makes_no_mirror(site: Site, prefix: str) -> None:
    name = names(site.storage, prefix)[0]
    flip(site.storage, name)
    made = MemoryStorage("mirror")

    report = keep(site.storage, made)

    assert report.problems == (
        f"{name} in memory is damaged and was not copied: Its name does not fit its bytes.",
        "mirror is no repository yet. Mend the source with `repair`, let `prune` delete what is damaged, and "
        "mirror again.",
    )
    assert (report.ok, report.head_seq) == (False, 0)
    assert made.stat("config") is None
    assert names(made, "chain/") == []


def test_a_mirror_stays_where_it_is_when_something_new_is_damaged(site: Site, target: MemoryStorage) -> None:
    old = set(names(site.storage, "packs/"))
    back_up_more(site, 1)
    name = next(name for name in names(site.storage, "packs/") if name not in old)
    flip(site.storage, name)

    report = keep(site.storage, target)

    assert name in report.problems[0]
    assert "stays at entry 2 of 3" in report.problems[1]
    assert (report.head_seq, report.entries_behind, find_last(target)) == (2, 1, 2)
    site.snapshots.pop()
    assert read_all(site, target)


@pytest.mark.parametrize("prefix", ["manifests/", "chain/", "keys/"])
def test_what_is_cut_short_is_not_copied(site: Site, prefix: str) -> None:
    name = names(site.storage, prefix)[-1]
    site.storage.put(name, site.storage.get(name)[:3], if_absent=False)
    made = MemoryStorage("mirror")

    report = keep(site.storage, made)

    assert f"{name} in memory is damaged" in report.problems[0]
    assert (made.stat(name), made.stat("config")) == (None, None)


def test_a_gap_in_the_history_ends_the_mirror_there(site: Site, target: MemoryStorage) -> None:
    for number in range(1, 5):
        back_up_more(site, number)
    third = site.storage.get(entry_name(3))
    plan = plan_mirror(site.storage, target)
    site.storage.delete(entry_name(3))

    report = keep(site.storage, target, plan)

    assert "chain/00000000000000000003 is missing" in report.problems[0]
    assert (report.head_seq, find_last(target)) == (2, 2)
    site.storage.put(entry_name(3), third)
    assert keep(site.storage, target).ok


def test_an_old_entry_that_the_source_lost_is_named_and_stays_in_the_mirror(
    site: Site, target: MemoryStorage
) -> None:
    for number in range(1, 5):
        back_up_more(site, number)
    keep(site.storage, target)
    back_up_more(site, 5)
    site.storage.delete(entry_name(5))

    report = keep(site.storage, target)

    assert [problem.split(",")[0] for problem in report.problems] == [
        f"{entry_name(5)} is missing from memory"
    ]
    assert target.stat(entry_name(5)) is not None
    assert report.head_seq == find_last(target) == 7


def test_a_new_entry_that_the_source_lost_makes_no_mirror(site: Site, target: MemoryStorage) -> None:
    for number in range(1, 5):
        back_up_more(site, number)
    site.storage.delete(entry_name(3))
    before = contents(target)

    for place in (target, MemoryStorage("new")):
        with pytest.raises(Damaged, match="chain/00000000000000000003 is missing from memory, and later"):
            plan_mirror(site.storage, place)
    assert contents(target) == before


def test_damage_ends_the_mirror_also_when_the_source_goes_on(site: Site) -> None:
    name = names(site.storage, "packs/")[0]
    flip(site.storage, name)
    done: list[str] = []

    def go_on(method: str, _name: str) -> None:
        if method == "get" and len(done) < 2:
            done.append("")
            back_up_more(site, len(done))

    report = keep(FaultyStorage(site.storage, after=go_on), MemoryStorage("mirror"))

    assert len(report.problems) == 2


@pytest.mark.parametrize("prefix", ["packs/", "index/", "manifests/", "chain/", "config", "keys/"])
def test_what_was_cut_short_in_the_mirror_is_stored_again(
    site: Site, target: MemoryStorage, prefix: str
) -> None:
    name = names(target, prefix)[-1]
    target.put(name, target.get(name)[:-7], if_absent=False)

    report = keep(site.storage, target)

    assert (report.ok, report.entries_behind) == (True, int(prefix == "chain/"))
    assert contents(target) == contents(site.storage)


def test_other_bytes_in_the_mirror_are_named_and_not_touched(site: Site, target: MemoryStorage) -> None:
    name = names(target, "manifests/")[0]
    target.put(name, b"something else", if_absent=False)

    report = keep(site.storage, target)

    assert report.problems[0].startswith(f"{name} has other bytes in mirror than in memory")
    assert target.get(name) == b"something else"


class Flipping(MemoryStorage):
    """Changes a bit of what is stored below a prefix."""

    def __init__(self, prefix: str) -> None:
        super().__init__("flipping")
        self._prefix = prefix

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        """Store other bytes."""
        stored = bytearray(data)
        stored[-1] ^= name.startswith(self._prefix)
        return super().put(name, stored, if_absent=if_absent)


@pytest.mark.parametrize("prefix", ["keys/", "index/", "manifests/", "chain/", "config"])
def test_everything_but_packs_is_read_back(site: Site, prefix: str) -> None:
    with pytest.raises(StorageError, match="gave back other bytes"):
        keep(site.storage, Flipping(prefix))


def test_packs_are_read_back_when_asked_for(site: Site) -> None:
    assert keep(site.storage, Flipping("packs/")).ok
    with pytest.raises(StorageError, match="gave back other bytes"):
        keep(site.storage, Flipping("packs/"), read_back=True)


# --- what is deleted -------------------------------------------------------------------


@pytest.fixture
def pruned(site: Site, target: MemoryStorage) -> Site:
    """A site that was mirrored with a third snapshot, which was forgotten and pruned."""
    third = back_up_more(site, 1)
    back_up_more(site, 2)
    keep(site.storage, target)
    forget(site, third)
    collect(site)
    return site


def test_what_a_prune_deleted_goes_from_the_mirror_after_the_history(
    pruned: Site, target: MemoryStorage
) -> None:
    watched = FaultyStorage(target)
    plan = plan_mirror(pruned.storage, target)

    report = keep(pruned.storage, watched)

    assert (report.ok, report.deleted, report.kept) == (True, len(plan.gone), 0)
    assert report.deleted > 2
    changes = [method for method, _ in watched.calls if method in ("put", "delete")]
    assert changes == sorted(changes, reverse=True)
    assert contents(target) == contents(pruned.storage)
    assert read_all(pruned, target)


def test_keep_removed_deletes_nothing(pruned: Site, target: MemoryStorage) -> None:
    before = contents(target)

    report = keep(pruned.storage, target, keep_removed=True)

    assert (report.ok, report.deleted) == (True, 0)
    assert report.kept == len(before.keys() - contents(pruned.storage).keys())
    assert before.keys() - contents(target).keys() == set()
    assert read_all(pruned, target)


def test_a_collector_that_comes_before_the_copying_does_no_harm(site: Site, target: MemoryStorage) -> None:
    third = back_up_more(site, 1)
    back_up_more(site, 2)
    plan = plan_mirror(site.storage, target)
    forget(site, third)
    collect(site)

    report = keep(site.storage, target, plan)

    assert (report.ok, report.head_seq) == (True, find_last(site.storage))
    assert contents(target) == contents(site.storage)


@pytest.mark.parametrize(
    "moment", [("list", "keys/"), ("list", "packs/"), ("list", "chain/"), ("get", "packs/")]
)
def test_a_collector_may_come_at_any_moment(site: Site, moment: tuple[str, str]) -> None:
    made = MemoryStorage("mirror")
    done: list[str] = []
    third = back_up_more(site, 1)
    back_up_more(site, 2)

    def come(method: str, name: str) -> None:
        if method == moment[0] and name.startswith(moment[1]) and not done:
            done.append(name)
            forget(site, third)
            collect(site)

    report = keep(FaultyStorage(site.storage, before=come), made)

    assert (done != [], report.ok, report.head_seq) == (True, True, find_last(site.storage))
    assert read_all(site, made)


def test_a_prune_that_may_not_delete_yet_is_followed_later(site: Site, target: MemoryStorage) -> None:
    class Locked(FaultyStorage):
        def delete(self, name: str) -> None:
            raise StorageDenied(f"{name} is locked.")

    third = back_up_more(site, 1)
    back_up_more(site, 2)
    keep(site.storage, target)
    forget(site, third)
    collect(site, Locked(site.storage))
    assert keep(site.storage, target).deleted == 0
    collect(site)

    report = keep(site.storage, target)

    assert report.ok
    assert contents(target) == contents(site.storage)


@pytest.mark.parametrize("committed", [False, True])
def test_what_the_history_does_not_account_for_stays_until_somebody_says_so(
    site: Site, target: MemoryStorage, committed: bool
) -> None:
    back_up_more(site, 1)
    keep(site.storage, target)
    whole = contents(target)
    lost = [
        *names(site.storage, "packs/")[1:],
        *names(site.storage, "manifests/"),
        *names(site.storage, "index/"),
    ]
    for name in lost:
        site.storage.delete(name)
    if committed:
        site.storage.put(entry_name(4), site.storage.get(entry_name(3)))

    report = keep(site.storage, target)

    assert "`check` of the source tells whether something is lost" in report.problems[0]
    assert (report.deleted, report.kept) == (0, len(lost))
    assert whole.items() <= contents(target).items()
    assert keep(site.storage, target, remove_all=True).deleted == len(lost)


@pytest.mark.parametrize("prefix", ["packs/", "keys/"])
def test_where_the_source_has_nothing_left_the_mirror_keeps_everything(
    site: Site, target: MemoryStorage, prefix: str
) -> None:
    before = contents(target)
    for name in names(site.storage, prefix):
        site.storage.delete(name)

    report = keep(site.storage, target, remove_all=True)

    assert f"which has nothing below {prefix} any more" in report.problems[0]
    assert contents(target) == before


class Forgetful(FaultyStorage):
    """Leaves an object out of each list of some kind: the first or the last."""

    prefixes: tuple[str, ...] = ()
    left_out = 0

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """List all but one."""
        found = list(super().list_objects(prefix))
        yield from [one for one in found if prefix not in self.prefixes or one is not found[self.left_out]]


def test_an_object_that_a_list_left_out_is_not_taken_for_gone(site: Site, target: MemoryStorage) -> None:
    before = contents(target)
    source = Forgetful(site.storage)
    source.prefixes = ("packs/", "manifests/", "index/", "keys/")

    report = keep(source, target, remove_all=True)

    assert (report.ok, report.deleted, contents(target)) == (True, 0, before)


@pytest.mark.parametrize("left_out", [0, -1])
def test_a_history_that_is_listed_in_part_is_not_mirrored_in_part(site: Site, left_out: int) -> None:
    source = Forgetful(site.storage)
    source.prefixes, source.left_out = ("chain/",), left_out

    with pytest.raises(StorageUnavailable, match="does not list chain/"):
        plan_mirror(source, MemoryStorage("mirror"))


def test_a_mirror_that_may_not_delete_says_so(pruned: Site, target: MemoryStorage) -> None:
    tried = []

    class Locked(FaultyStorage):
        def delete(self, name: str) -> None:
            tried.append(name)
            raise StorageDenied(f"{name} is locked.")

    report = keep(pruned.storage, Locked(target))

    assert (report.deleted, len(tried)) == (0, 3)
    assert report.kept > 3
    assert "cannot be deleted: " in report.problems[0]
    assert report.head_seq == find_last(pruned.storage)
    assert read_all(pruned, target)


# --- what the machine remembers --------------------------------------------------------


def test_a_mirror_that_is_behind_is_no_repository_that_lost_its_history(site: Site) -> None:
    made, state = MemoryStorage("mirror"), StateFolder(site.state)
    keep(site.storage, made, state=state)
    back_up_more(site, 1)

    assert site.open(made).state_name != site.open().state_name == site.open().repo_id
    assert (site.open(made).history_warning, site.open().history_warning) == ("", "")


def test_a_mirror_that_lost_its_own_tail_is_told(site: Site) -> None:
    made, state = MemoryStorage("mirror"), StateFolder(site.state)
    keep(site.storage, made, state=state)
    site.open(made)
    made.delete(entry_name(2))

    assert "ends at entry 1, but 2 was seen before" in site.open(made).history_warning


def test_a_restore_from_a_mirror_commits_nothing(site: Site) -> None:
    made, state = MemoryStorage("mirror"), StateFolder(site.state)
    keep(site.storage, made, state=state)
    repository = site.open(made)

    with pinned(repository, repository.snapshot_ids()[0], actor="tests", clock=CLOCK, warn=pytest.fail):
        assert contents(made) == contents(site.storage)
    assert contents(made) == contents(site.storage)


def test_who_is_mirrored_from_is_no_mirror_any_more(site: Site) -> None:
    made, state = MemoryStorage("mirror"), StateFolder(site.state)
    keep(site.storage, made, state=state)

    keep(made, MemoryStorage("third"), state=state)

    assert site.open(made).state_name == site.open().repo_id
