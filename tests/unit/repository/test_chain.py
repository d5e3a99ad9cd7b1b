"""The chain: one winner for each number, doubt settled by reading, lost history noticed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from backup_admin.core.canonical import dump_canonical
from backup_admin.core.errors import (
    ChainConflict,
    Damaged,
    HistoryChanged,
    NewerVersion,
    PacksCollected,
    StorageError,
)
from backup_admin.repository.chain import Chain, entry_name
from backup_admin.repository.keys import sha256
from backup_admin.repository.objects import ObjectType, seal_object
from backup_admin.repository.repository import refuse_collected
from backup_admin.storage.memory import MemoryStorage
from tests.factories import (
    file_sources,
    make_keys,
    make_storage,
    open_test_repository,
    run_backup,
    write_tree,
)
from tests.fakes import Act, Fault, FaultyStorage, clone

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
        {"repo_id": KEYS.repo_id.hex(), "seq": 1, "digest": chain(storage).head.digest}
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


def test_a_commit_behind_a_collector_is_refused(tmp_path: Path) -> None:
    storage = make_storage()
    ours = open_test_repository(storage, tmp_path / "ours")
    theirs = open_test_repository(storage, tmp_path / "theirs")
    theirs.record("gc-delete", {"packs": ["ab"]}, actor="collector")

    with pytest.raises(PacksCollected):
        ours.record("snapshot", snapshot("x"), actor="ours", look_again=refuse_collected)

    assert ours.head.seq == 1
