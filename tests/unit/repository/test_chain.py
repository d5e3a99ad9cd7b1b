"""The chain: one winner for each number, doubt settled by reading, lost history noticed."""

from __future__ import annotations

import threading
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from backup_admin.core.canonical import dump_canonical
from backup_admin.core.errors import (
    ChainConflict,
    Damaged,
    HistoryChanged,
    NewerVersion,
    StorageError,
)
from backup_admin.core.ids import new_ulid
from backup_admin.repository.chain import Chain, entry_name
from backup_admin.repository.checkpoints import decode_state, encode_state
from backup_admin.repository.config import read_config
from backup_admin.repository.history import ChainState, ManifestRef, Pin
from backup_admin.repository.keys import Keyring, RepositoryKeys, sha256
from backup_admin.repository.objects import ObjectType, seal_object
from backup_admin.repository.slots import open_slots
from backup_admin.storage.memory import MemoryStorage
from tests.factories import (
    SECRET,
    file_sources,
    make_keys,
    make_storage,
    open_test_repository,
    run_backup,
    write_tree,
)
from tests.fakes import Act, FarStorage, Fault, FaultyStorage, MeetingStorage, clone

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.storage.base import Storage

KEYS = make_keys()
PIN = {"pin": "p", "snapshot": "x", "until": "", "reason": "tests"}
TIME = "2026-01-01T00:00:00.000000Z"


def chain(storage: Storage, pin: Path | None = None) -> Chain:
    made = Chain(storage, KEYS, pin)
    made.refresh()
    return made


def snapshot(name: str) -> dict[str, Any]:
    return {"id": name, "manifest": "00" * 32, "indexes": []}


def append(to: Chain, name: str = "a") -> bool:
    return to.append("snapshot", snapshot(name), actor="tests", time=TIME) is not None


def write(storage: Storage, number: int, changes: dict[str, Any]) -> None:
    """Store an entry that the keys fit and that may say anything."""
    body = {"seq": number, "op": "snapshot", "payload": snapshot("x"), "actor": "", "time": TIME}
    body |= {"prev": "00" * 32, "base": 0} | changes
    name = entry_name(number)
    storage.put(name, seal_object(KEYS, ObjectType.CHAIN, name, [dump_canonical(body)]))


def test_entries_link_to_the_bytes_before_them() -> None:
    storage = MemoryStorage()
    writer = chain(storage)
    append(writer, "a")
    append(writer, "b")

    reader = chain(storage)

    assert reader.head == writer.head
    assert reader.head.digest == sha256(storage.get("chain/00000000000000000002")).hex()
    assert set(reader.state.manifests) == {"a", "b"}


def test_a_forgotten_snapshot_is_gone_and_that_is_no_change_of_history(tmp_path: Path) -> None:
    storage = MemoryStorage()
    writer = chain(storage, tmp_path / "pin")
    append(writer, "a")
    append(writer, "b")
    writer.append("forget", {"ids": ["a"]}, actor="tests", time=TIME)

    reader = chain(storage, tmp_path / "pin")

    assert set(reader.state.manifests) == {"b"}
    assert reader.warning == ""


def test_collected_packs_are_known_to_all() -> None:
    storage = MemoryStorage()
    chain(storage).append("gc-delete", {"packs": ["ab", "cd"]}, actor="tests", time=TIME)

    assert chain(storage).state.collected == {"ab", "cd"}


def test_who_comes_second_gets_nothing_and_sees_the_winner() -> None:
    storage = MemoryStorage()
    first, second = chain(storage), chain(storage)

    assert append(first, "first")
    assert not append(second, "second")
    assert [entry.payload["id"] for entry in second.refresh()] == ["first"]
    assert append(second, "second")
    assert set(chain(storage).state.manifests) == {"first", "second"}


def test_many_writers_at_once_lose_no_entry() -> None:
    storage = MemoryStorage()
    start = threading.Barrier(6)

    def work(number: int) -> None:
        own = chain(storage)
        start.wait()
        for turn in range(10):
            while not append(own, f"{number}-{turn}"):
                own.refresh()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    final = chain(storage)
    assert final.head.seq == 60
    assert len(final.state.manifests) == 60


@pytest.mark.parametrize("act", [Act.LOSE_REPLY, Act.DENY])
def test_an_entry_whose_reply_was_lost_counts_when_it_is_ours(act: Act) -> None:
    inner = MemoryStorage()
    writer = chain(FaultyStorage(inner, (Fault("put", 1, act),)))

    assert append(writer, "a")
    assert writer.head.seq == 1
    assert set(chain(inner).state.manifests) == {"a"}


def test_an_entry_whose_reply_was_lost_does_not_count_when_it_is_anothers() -> None:
    inner = MemoryStorage()
    faulty = FaultyStorage(inner, (Fault("put", 1, Act.LOSE_REPLY),))
    writer = chain(faulty)
    append(chain(inner), "theirs")

    assert not append(writer, "ours")
    assert set(chain(inner).state.manifests) == {"theirs"}


def test_an_entry_that_is_read_back_torn_once_is_still_ours() -> None:
    inner = MemoryStorage()
    writer = chain(FaultyStorage(inner, (Fault("get", 1, Act.LIE_TORN),)))

    assert append(writer)

    assert list(chain(inner).state.manifests) == ["a"]


def test_an_entry_that_stays_torn_is_neither_ours_nor_anothers() -> None:
    """Who took it for another's would undo what it made real: the key slots that it names, say."""
    writer = chain(FaultyStorage(MemoryStorage(), (Fault("put", 1, Act.LIE_TORN),)))

    with pytest.raises(Damaged, match="may be there and may not"):
        append(writer)


def test_an_entry_that_was_not_stored_is_told() -> None:
    inner = MemoryStorage()
    writer = chain(FaultyStorage(inner, (Fault("put", 1, Act.FAIL),)))

    with pytest.raises(StorageError, match="put of chain/"):
        append(writer)

    assert writer.head.seq == 0
    assert append(writer)


def test_an_entry_that_a_storage_only_claims_to_have_is_told() -> None:
    writer = chain(FaultyStorage(MemoryStorage(), (Fault("put", 1, Act.LIE),)))

    with pytest.raises(StorageError, match="is not there"):
        append(writer)

    assert writer.head.seq == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": 3},
        {"prev": "11" * 32},
        {"payload": {}},
        {"payload": []},
        {"seq": None},
        {"op": "forget", "payload": {}},
    ],
)
def test_an_entry_that_does_not_continue_the_chain_is_refused(changes: dict[str, Any]) -> None:
    storage = MemoryStorage()
    write(storage, 1, {})
    write(storage, 2, {"prev": sha256(storage.get(entry_name(1))).hex()} | changes)

    with pytest.raises(Damaged, match="00002"):
        chain(storage)


def test_an_entry_replayed_under_the_next_number_is_refused() -> None:
    storage = MemoryStorage()
    append(chain(storage))
    storage.put(entry_name(2), storage.get(entry_name(1)))

    with pytest.raises(Damaged, match="seal"):
        chain(storage)


def test_an_operation_nobody_knows_comes_from_a_newer_version() -> None:
    storage = MemoryStorage()
    write(storage, 1, {"op": "merge"})

    with pytest.raises(NewerVersion):
        chain(storage)


def test_an_entry_of_another_repository_is_refused() -> None:
    storage = MemoryStorage()
    foreign = Chain(storage, make_keys(9), None)
    foreign.append("snapshot", snapshot("x"), actor="", time=TIME)

    with pytest.raises(Damaged):
        chain(storage)


def test_the_newest_entry_is_pinned_outside(tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    storage = MemoryStorage()
    append(chain(storage, pin))

    assert chain(storage, pin).warning == ""
    assert pin.read_bytes() == dump_canonical(
        {
            "repo_id": KEYS.repo_id.hex(),
            "seq": 1,
            "digest": chain(storage).head.digest,
            "snapshots": ["a"],
        }
    )


def test_a_rolled_back_copy_is_noticed_and_not_written(tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    storage = MemoryStorage()
    writer = chain(storage, pin)
    append(writer, "a")
    old = clone(storage)
    append(writer, "b")

    seen = chain(old, pin)

    assert "older copy" in seen.warning
    with pytest.raises(HistoryChanged, match="Nothing was written"):
        seen.require_history()
    assert b'"seq":2' in pin.read_bytes()


def test_a_cut_tail_is_noticed_also_when_nothing_is_left(tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    storage = MemoryStorage()
    writer = chain(storage, pin)
    append(writer, "a")
    append(writer, "b")
    storage.delete(entry_name(2))

    assert "ends at entry 1, but 2" in chain(storage, pin).warning
    storage.delete(entry_name(1))
    assert "ends at entry 0, but 2" in chain(storage, pin).warning


def test_a_gap_hides_what_comes_after_and_is_noticed(tmp_path: Path) -> None:
    storage = MemoryStorage()
    writer = chain(storage, tmp_path / "pin")
    for name in "abc":
        append(writer, name)
    storage.delete(entry_name(2))

    assert chain(storage, tmp_path / "pin").warning != ""


def test_a_fork_is_noticed_however_long_it_grew(tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    storage = MemoryStorage()
    writer = chain(storage, pin)
    append(writer, "a")
    fork = clone(storage)
    append(writer, "b")
    other = chain(fork)
    for name in ("c", "d", "e"):
        append(other, name)

    assert "Entry 2" in chain(fork, pin).warning
    assert b'"seq":2' in pin.read_bytes()


def test_the_pin_of_another_repository_says_nothing(tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_bytes(dump_canonical({"repo_id": "00" * 32, "seq": 9, "digest": "00" * 32}))
    storage = MemoryStorage()

    assert append(chain(storage, pin))
    assert chain(storage, pin).warning == ""


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"repo_id":1'])
def test_a_pin_that_cannot_be_read_is_never_ignored(tmp_path: Path, text: bytes) -> None:
    pin = tmp_path / "pin"
    pin.write_bytes(text)

    with pytest.raises(HistoryChanged, match="Remove it"):
        chain(MemoryStorage(), pin)


def test_a_backup_into_a_rolled_back_copy_writes_nothing(tmp_path: Path) -> None:
    storage = make_storage()
    assert isinstance(storage, MemoryStorage)
    sources = file_sources(write_tree(tmp_path / "files"))
    old = clone(storage)
    run_backup(open_test_repository(storage, tmp_path / "state"), sources, tmp_path / "state")
    before = dict(old._objects)

    repository = open_test_repository(old, tmp_path / "state")

    with pytest.raises(HistoryChanged):
        run_backup(repository, sources, tmp_path / "state")
    assert old._objects == before


def test_a_backup_that_lost_packs_to_a_collector_is_made_again(tmp_path: Path) -> None:
    inner = make_storage()
    faulty = FaultyStorage(inner)
    collected: list[str] = []

    def collect(method: str, name: str) -> None:
        if method == "put" and name.startswith("manifests/") and not collected:
            collector = open_test_repository(inner, tmp_path / "other")
            collected.extend(i.name.rpartition("/")[2] for i in inner.list_objects("packs/"))
            collector.record("gc-delete", {"packs": collected}, actor="collector")
            for info in list(inner.list_objects("packs/")):
                inner.delete(info.name)

    faulty.before = collect
    repository = open_test_repository(faulty, tmp_path / "state")
    result = run_backup(repository, file_sources(write_tree(tmp_path / "files")), tmp_path / "state")

    fresh = open_test_repository(inner, tmp_path / "fresh")
    assert fresh.snapshot_ids() == (result.snapshot.id,)
    assert collected
    assert not {pack.name.hex() for pack in fresh.index().packs()} & set(collected)
    assert fresh.missing_packs() == ()


def test_who_always_loses_gives_up_with_a_reason(tmp_path: Path) -> None:
    inner = make_storage()
    faulty = FaultyStorage(inner)
    rival = open_test_repository(inner, tmp_path / "rival")

    def rush(method: str, name: str) -> None:
        if method == "put" and name.startswith("chain/"):
            rival.refresh()
            rival.record("pin", PIN, actor="rival")

    faulty.before = rush
    repository = open_test_repository(faulty, tmp_path / "state")

    with pytest.raises(ChainConflict):
        repository.record("pin", PIN, actor="ours")


def long_chain(storage: Storage, entries: int, *, checkpoints: tuple[int, ...] = ()) -> Chain:
    writer = chain(storage)
    while writer.head.seq < entries:
        if writer.head.seq + 1 in checkpoints:
            assert writer.append_checkpoint(actor="tests", time=TIME)
        else:
            assert append(writer, f"s{writer.head.seq + 1}")
    return writer


def test_a_state_survives_a_checkpoint_whole() -> None:
    state = ChainState(
        manifests={"b": ManifestRef("manifests/b", "11"), "a": ManifestRef("manifests/other", "22")},
        indexes={"index/2": None, "index/1": None},
        collected={"p2", "p1"},
        doomed={"index/0"},
        forgotten={"manifests/c"},
        damaged={"a"},
        pins={"pin": Pin("a", "", "a reason", "somebody", TIME)},
        slots={"slot": "33"},
        write_kid=2,
        retired={1},
    )
    assert all(getattr(state, field.name) for field in fields(ChainState))

    read = decode_state(encode_state(state))

    assert read == state
    assert list(read.manifests) == ["b", "a"]
    assert list(read.indexes) == ["index/2", "index/1"]


def test_a_state_of_thirty_thousand_snapshots_fits_into_an_entry() -> None:
    state = ChainState()
    for number in range(30_000):
        digest = sha256(number.to_bytes(4, "big")).hex()
        state.manifests[f"{number:026d}"] = ManifestRef(f"manifests/{number:026d}", digest)
        state.indexes[f"index/{sha256(digest.encode()).hex()}"] = None
    storage = MemoryStorage()
    writer = chain(storage)
    writer.state = state

    assert writer.append_checkpoint(actor="tests", time=TIME)

    assert chain(storage).state == state
    assert len(storage.get(entry_name(1))) < 4 << 20


@pytest.mark.parametrize("size", [0, 7, (64 << 20) + 1, 0xFFFFFFFF])
def test_a_state_of_another_size_than_it_says_is_refused(size: int) -> None:
    block = encode_state(ChainState())

    with pytest.raises(Damaged, match="checkpoint"):
        decode_state(block[:1] + size.to_bytes(4, "big") + block[5:])


def test_opening_reads_the_newest_checkpoint_and_what_came_after() -> None:
    storage = MemoryStorage()
    written = long_chain(storage, 300, checkpoints=(70, 200, 295))
    counting = FaultyStorage(storage)

    reader = chain(counting)

    assert reader.head == written.head
    assert reader.state == written.state
    assert (reader.base, reader.begin) == (295, 295)
    read = [name for method, name in counting.calls if method == "get"]
    # Steps that double up to the end and halve back to it, then the entries since the checkpoint.
    assert len(read) == len(set(read)) <= 2 * 9 + 2 + 6
    assert set(counting.counts()) == {"get"}


def test_opening_a_chain_known_to_its_end_looks_for_one_more_entry(tmp_path: Path) -> None:
    storage = MemoryStorage()
    long_chain(storage, 300, checkpoints=(295,))
    chain(storage, tmp_path / "pin")
    counting = FaultyStorage(storage)

    chain(counting, tmp_path / "pin")

    # The newest, the next, which is not there, the checkpoint, and the entries between.
    assert counting.calls == [("get", entry_name(seq)) for seq in (300, 301, *range(295, 300))]


def test_from_far_away_the_end_of_a_chain_is_found_in_one_round_trip(tmp_path: Path) -> None:
    storage = MemoryStorage()
    long_chain(storage, 3, checkpoints=())
    chain(storage, tmp_path / "pin")
    far = MeetingStorage(2)
    for info in storage.list_objects(""):
        far.put(info.name, storage.get(info.name))

    # Each call waits for another at the same time: 3 with 4, which is not there, then 1 with 2.
    assert chain(far, tmp_path / "pin").head.seq == 3


@pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 65, 100])
def test_the_end_of_a_chain_is_found_whatever_its_length(count: int, tmp_path: Path) -> None:
    storage = MemoryStorage()
    written = long_chain(storage, count, checkpoints=(50,))

    assert chain(storage).head == written.head
    for known in {1, count // 2, count - 1} - {0}:
        pin = tmp_path / f"pin-{known}"
        digest = sha256(storage.get(entry_name(known))).hex()
        pin.write_bytes(dump_canonical({"repo_id": KEYS.repo_id.hex(), "seq": known, "digest": digest}))
        assert (chain(storage, pin).head, chain(storage, pin).warning) == (written.head, "")


@pytest.mark.parametrize("storage", [FaultyStorage(MemoryStorage()), FarStorage(MemoryStorage())])
def test_an_early_entry_that_cannot_be_read_hinders_nobody_who_needs_later_ones(
    storage: FaultyStorage,
) -> None:
    writer = chain(storage)
    for number in range(6):
        append(writer, f"a{number}")
    writer.append_checkpoint(actor="tests", time=TIME)
    append(writer, "last")

    def before(method: str, name: str) -> None:
        if method == "get" and name in (entry_name(1), entry_name(3)):
            raise StorageError(f"{name} lies on a bad block.")

    storage.before = before

    assert set(chain(storage).state.manifests) == set(writer.state.manifests)


def test_a_checkpoint_that_was_stored_meanwhile_is_seen_by_all() -> None:
    storage = MemoryStorage()
    first = long_chain(storage, 3)
    second = chain(storage)
    assert first.append_checkpoint(actor="tests", time=TIME)

    assert second.append_checkpoint(actor="tests", time=TIME) is None
    second.refresh()

    assert append(second, "after")
    assert (second.base, second.state) == (4, chain(storage).state)


def test_a_copy_older_than_its_newest_checkpoint_is_noticed(tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    storage = MemoryStorage()
    long_chain(storage, 10, checkpoints=(9,))
    chain(storage, pin)
    for seq in (9, 10):
        storage.delete(entry_name(seq))

    seen = chain(storage, pin)

    assert "ends at entry 8, but 10" in seen.warning
    assert "No longer there: s10" in seen.warning


def test_another_entry_below_the_checkpoint_than_the_one_seen_is_noticed(tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    storage = MemoryStorage()
    writer = long_chain(storage, 3)
    other = clone(storage)
    append(writer, "x")
    chain(storage, pin)

    long_chain(other, 12, checkpoints=(9,))

    assert "Entry 4" in chain(other, pin).warning
    assert "No longer there: x" in chain(other, pin).warning


def test_a_missing_checkpoint_is_noticed_and_leaves_what_came_before(tmp_path: Path) -> None:
    storage = MemoryStorage()
    long_chain(storage, 12, checkpoints=(4, 9))
    storage.delete(entry_name(9))

    seen = chain(storage)

    assert seen.head.seq == 8
    assert "Entry 9 is missing and 12 is there" in seen.warning
    with pytest.raises(HistoryChanged):
        seen.require_history()


def test_a_gap_is_noticed_also_by_who_sees_the_repository_first() -> None:
    storage = MemoryStorage()
    long_chain(storage, 12)
    storage.delete(entry_name(6))

    assert chain(storage).warning != ""


def test_a_snapshot_that_is_gone_is_named_with_its_time(tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    storage = MemoryStorage()
    writer = chain(storage, pin)
    append(writer, "a")
    old = clone(storage)
    gone = new_ulid(datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC))
    append(writer, gone)

    assert f"No longer there: {gone} of 2026-03-04 05:06 UTC." in chain(old, pin).warning


def test_the_pin_of_a_process_that_saw_more_is_kept(tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    storage = MemoryStorage()
    slow = chain(storage, pin)
    append(slow, "a")
    append(chain(storage, pin), "b")
    before = pin.read_bytes()

    slow.pin()

    assert pin.read_bytes() == before


def test_the_whole_history_can_be_read_and_compared() -> None:
    storage = MemoryStorage()
    long_chain(storage, 40, checkpoints=(10, 30))

    assert chain(storage).verify() == 40


@pytest.mark.parametrize("seq", [1, 9, 10, 25])
def test_a_history_with_a_changed_or_missing_entry_is_damaged(seq: int) -> None:
    storage = MemoryStorage()
    long_chain(storage, 40, checkpoints=(10, 30))
    data = storage.get(entry_name(seq))
    reader = chain(storage)

    storage.delete(entry_name(seq))
    with pytest.raises(Damaged, match=f"{seq:020d} is missing"):
        reader.verify()
    storage.put(entry_name(seq), data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Damaged, match=f"{seq:020d}"):
        reader.verify()


def test_a_checkpoint_that_says_something_else_than_its_history_is_damaged() -> None:
    storage = MemoryStorage()
    writer = long_chain(storage, 5)
    writer.state.collected.add("ab")
    assert writer.append_checkpoint(actor="tests", time=TIME)

    with pytest.raises(Damaged, match="00006"):
        chain(storage).verify()


def test_an_entry_that_belongs_elsewhere_is_found_in_the_history() -> None:
    storage, other = MemoryStorage(), MemoryStorage()
    long_chain(storage, 12, checkpoints=(9,))
    foreign = chain(other)
    for name in ("a", "b", "c"):
        append(foreign, name)
    reader = chain(storage)
    storage.put(entry_name(3), other.get(entry_name(3)), if_absent=False)

    with pytest.raises(Damaged, match=r"0003 .* does not continue"):
        reader.verify()


def test_history_under_a_retired_key_counts_only_below_a_checkpoint() -> None:
    storage = MemoryStorage()
    old = RepositoryKeys(Keyring({1: bytes(32), 2: bytes(31) + b"2"}, 1, 1), bytes(32))
    writer = Chain(storage, old, None)
    writer.refresh()
    for name in "abc":
        append(writer, name)
    writer.append("config", {"write_kid": 2}, actor="", time=TIME)
    writer.append("config", {"retired": [1]}, actor="", time=TIME)
    writer.append_checkpoint(actor="", time=TIME)
    append(writer, "d")

    fresh = Chain(storage, RepositoryKeys(old.without([1]), bytes(32)), None)
    fresh.refresh()

    assert set(fresh.state.manifests) == {"a", "b", "c", "d"}
    assert fresh.verify() == 7
    storage.delete(entry_name(2))
    with pytest.raises(Damaged, match="0002 is missing"):
        fresh.verify()


@pytest.mark.parametrize("changes", [{"base": 1}, {"base": 2}, {"base": 9}])
def test_an_entry_that_names_another_checkpoint_than_there_is_is_refused(changes: dict[str, Any]) -> None:
    storage = MemoryStorage()
    write(storage, 1, {})
    write(storage, 2, {"prev": sha256(storage.get(entry_name(1))).hex()} | changes)

    with pytest.raises(Damaged, match=r"checkpoint|00002"):
        chain(storage)


def test_a_checkpoint_with_another_state_than_it_names_is_refused() -> None:
    storage = MemoryStorage()
    body = {"seq": 1, "op": "checkpoint", "payload": {"state": "00" * 32}, "actor": "", "time": TIME}
    frames = [dump_canonical(body | {"prev": "00" * 32, "base": 0}), encode_state(ChainState())]
    storage.put(entry_name(1), seal_object(KEYS, ObjectType.CHAIN, entry_name(1), frames))

    with pytest.raises(Damaged, match="belongs there"):
        chain(storage)


def test_a_repository_writes_a_checkpoint_now_and_then(tmp_path: Path) -> None:
    storage = make_storage()
    repository = open_test_repository(storage, tmp_path / "state")
    for number in range(150):
        repository.record("pin", PIN | {"pin": str(number)}, actor="tests")

    operations = [entry.op for entry in chain_of(storage).entries(1, repository.head.seq)]

    assert [number for number, op in enumerate(operations, 1) if op == "checkpoint"] == [65, 130]
    assert repository.verify_history() == 152
    assert open_test_repository(storage, tmp_path / "other").history == repository.history


def test_a_checkpoint_that_cannot_be_stored_hinders_no_commit(tmp_path: Path) -> None:
    inner = make_storage()
    faulty = FaultyStorage(inner, (Fault("put", 65, Act.FAIL),))
    repository = open_test_repository(faulty, tmp_path / "state")
    for number in range(66):
        repository.record("pin", PIN | {"pin": str(number)}, actor="tests")

    assert len(open_test_repository(inner, tmp_path / "other").history.pins) == 66
    assert chain_of(inner).base > 0


def chain_of(storage: Storage) -> Chain:
    config, _ = read_config(storage)
    made = Chain(storage, RepositoryKeys(open_slots(storage, SECRET, config.repo_id), config.repo_id), None)
    made.refresh()
    return made
