"""A run ends well only when every pack it stored was read back and is what was meant."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import (
    BackupAdminError,
    Damaged,
    StorageError,
    StorageUnavailable,
    VerificationFailed,
)
from backup_admin.repository import store as store_module
from backup_admin.repository.index import Index, PackInfo
from backup_admin.repository.pack_proof import PackProver, Proof
from backup_admin.repository.packs import ChunkSpan, PackBuilder, pack_digest, pack_name
from backup_admin.repository.pending import PendingPacks
from backup_admin.repository.store import ChunkStore
from backup_admin.repository.types import ChunkKind
from backup_admin.storage.memory import MemoryStorage
from tests.factories import SMALL, make_keys, noise, prose
from tests.fakes import Act, FarStorage, Fault, FaultyStorage

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.storage.base import Storage

KEYS = make_keys()


def make_store(storage: Storage, cache: Path) -> ChunkStore:
    return ChunkStore(storage, KEYS, SMALL, Index(storage, KEYS, cache), PendingPacks(cache, 0))


def fill(store: ChunkStore, count: int = 24) -> None:
    """Store some packs, to the end of the run."""
    writer = store.writer()
    for number in range(count):
        writer.put(ChunkKind.DATA, noise(9_000, seed=number), compress=False)
        writer.put(ChunkKind.DATA, prose(9_000, seed=number), compress=True)
    store.finish()


def make_pack(plain: bytes, *, named: bytes | None = None, level: int = 0) -> tuple[PackInfo, bytes]:
    """Return a pack with one chunk, whose id may be that of other bytes."""
    builder = PackBuilder(KEYS, bytearray(1 << 20))
    identity = KEYS.chunk_id(ChunkKind.DATA, plain if named is None else named)
    builder.add(plain, [ChunkSpan(ChunkKind.DATA, identity, 0, len(plain))], level=level)
    data, info = builder.finish(4096)
    return info, bytes(data)


def test_every_pack_of_a_run_is_read_whole(tmp_path: Path) -> None:
    storage = FaultyStorage(MemoryStorage())
    store = make_store(storage, tmp_path)
    fill(store)
    read = sorted(name for method, name in storage.calls if method == "get" and name.startswith("packs/"))
    assert len(read) > 3
    assert read == sorted(pack_name(pack.name) for pack in store.new_packs)
    assert (store.proof.packs_read, store.proof.bytes_read) == (
        len(read),
        sum(pack.size for pack in store.new_packs),
    )


def test_packs_for_a_storage_far_away_are_stored_and_proved_at_the_same_time(tmp_path: Path) -> None:
    meeting = threading.Barrier(2, timeout=20)
    met: list[str] = []

    def meet(method: str, name: str) -> None:
        if method == "put" and name.startswith("packs/") and len(met) < 2:
            met.append(name)
            meeting.wait()

    storage = FarStorage(MemoryStorage(), before=meet)
    store = make_store(storage, tmp_path)
    before = set(threading.enumerate())
    fill(store)

    assert len(set(met)) == 2
    assert not set(threading.enumerate()) - before
    assert store.proof.packs_read == len(store.new_packs) == len(set(store.new_packs))
    proven = [name for method, name in storage.calls if method == "get" and name.startswith("packs/")]
    assert sorted(proven) == sorted(pack_name(pack.name) for pack in store.new_packs)


def test_writers_fill_one_pack_for_a_storage_far_away(tmp_path: Path) -> None:
    store = make_store(FarStorage(MemoryStorage()), tmp_path)
    for number, writer in enumerate([store.writer(), store.writer(), store.writer()]):
        writer.put(ChunkKind.DATA, noise(900, seed=number), compress=False)
        writer.put(ChunkKind.DATA, prose(900, seed=number), compress=True)
    store.finish()
    assert len(store.new_packs) == 1


def test_large_packs_take_turns_in_one_piece_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_LARGE_PACK", 1000)
    store = make_store(MemoryStorage(), tmp_path)
    taken, memory = store.take_builder, set()

    def noted() -> PackBuilder:
        builder = taken()
        memory.add(id(builder._buffer))
        return builder

    monkeypatch.setattr(store, "take_builder", noted)
    fill(store)
    assert len(store.new_packs) > 3
    assert len(memory) == 1


def test_what_was_sent_is_not_taken_for_what_was_read(tmp_path: Path) -> None:
    class Forgetful(FarStorage):
        def get_into(self, name: str, offset: int, buffer: bytearray | memoryview) -> int:
            return len(buffer)

    store = make_store(Forgetful(MemoryStorage()), tmp_path)
    with pytest.raises(VerificationFailed, match="No snapshot was made"):
        fill(store)
    store.close()


@pytest.mark.parametrize("kind", [FaultyStorage, FarStorage])
@pytest.mark.parametrize("act", [Act.LIE, Act.LIE_TORN])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_pack_the_storage_did_not_keep_ends_the_run(
    tmp_path: Path, act: Act, number: int, kind: type[FaultyStorage]
) -> None:
    store = make_store(kind(MemoryStorage(), (Fault("put", number, act),)), tmp_path)
    with pytest.raises(VerificationFailed, match="No snapshot was made"):
        fill(store)
    store.close()
    assert store.new_indexes == []


def test_the_first_bad_pack_stops_a_long_run(tmp_path: Path) -> None:
    storage = FaultyStorage(MemoryStorage(), (Fault("put", 1, Act.LIE),))
    store = make_store(storage, tmp_path)
    with pytest.raises(VerificationFailed):
        fill(store, count=100_000)
    store.close()
    assert storage.counts()["put"] < 1000


def test_an_unexpected_failure_of_the_reading_thread_reaches_the_caller(tmp_path: Path) -> None:
    def stumble(method: str, name: str) -> None:
        if method == "get" and name.startswith("packs/"):
            raise RuntimeError("no reason")

    store = make_store(FaultyStorage(MemoryStorage(), before=stumble), tmp_path)
    with pytest.raises(StorageError, match="no reason"):
        fill(store)
    store.close()


def test_a_run_that_is_given_up_reads_nothing_more() -> None:
    storage = FaultyStorage(MemoryStorage())
    proof = Proof(storage, KEYS)
    proof.close()
    proof.add(make_pack(b"data")[0])
    proof.close()
    assert storage.calls == []


@pytest.mark.parametrize("level", [0, 1])
def test_a_sound_pack_passes(level: int) -> None:
    info, data = make_pack(prose(50_000), level=level)
    storage = MemoryStorage()
    storage.put(pack_name(info.name), data)
    prover = PackProver(storage, KEYS)
    prover.prove(info)
    prover.prove(info)
    assert (prover.packs_read, prover.bytes_read) == (2, 2 * info.size)


@pytest.mark.parametrize("harm", ["missing", "short", "a byte", "a chunk of another name", "another size"])
def test_a_pack_that_is_not_what_was_meant_does_not_pass(harm: str) -> None:
    info, data = make_pack(prose(50_000), named=b"other" if harm == "a chunk of another name" else None)
    if harm == "short":
        data = data[:-4096]
    elif harm == "a byte":
        data = data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]
    elif harm == "another size":
        info = PackInfo(info.name, info.header, info.size - 4096)
    storage = MemoryStorage()
    if harm != "missing":
        storage.put(pack_name(info.name), data)
    with pytest.raises(BackupAdminError):
        PackProver(storage, KEYS).prove(info)


def test_a_byte_that_was_wrong_before_the_name_was_made_is_found_too() -> None:
    info, data = make_pack(prose(50_000))
    data = data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]
    info = PackInfo(pack_digest(data), info.header, info.size)
    storage = MemoryStorage()
    storage.put(pack_name(info.name), data)
    with pytest.raises(Damaged, match="seal"):
        PackProver(storage, KEYS).prove(info)


def test_a_sound_pack_under_another_name_does_not_pass() -> None:
    info, data = make_pack(prose(50_000))
    info = PackInfo(bytes(32), info.header, info.size)
    storage = MemoryStorage()
    storage.put(pack_name(info.name), data)
    with pytest.raises(Damaged, match="name does not fit"):
        PackProver(storage, KEYS).prove(info)


def test_a_storage_that_is_away_while_packs_are_read_back_is_no_damage(tmp_path: Path) -> None:
    class Away(MemoryStorage):
        def get_into(self, name: str, offset: int, buffer: bytearray | memoryview) -> int:
            raise StorageUnavailable("nothing listens.")

    store = make_store(Away(), tmp_path)

    with pytest.raises(StorageUnavailable, match=r"nothing listens\. No snapshot was made"):
        fill(store)
