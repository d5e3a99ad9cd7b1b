"""On a storage that ignores conditions, a contended name is still taken once."""

from __future__ import annotations

import threading
import time
from itertools import combinations

import pytest

from backup_admin.core.errors import Busy, StorageError
from backup_admin.storage.base import Buffer, KnowsFreeSpace, PutResult
from backup_admin.storage.memory import MemoryStorage
from backup_admin.storage.turns import ABANDONED_SECONDS, PREFIX, TakesTurns


class Ignorant(MemoryStorage):
    """Overwrites what it was told to keep."""

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        return super().put(name, data, if_absent=False)


class Leisurely(Ignorant):
    """Takes its time about it, so that others come in between."""

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        time.sleep(0.002)
        return super().put(name, data)


class Watch:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def names(storage: MemoryStorage) -> list[str]:
    return [info.name for info in storage.list_objects("")]


@pytest.mark.parametrize("name", ["chain/00000000000000000001", f"wal/{'0' * 16}/{'0' * 24}"])
def test_of_many_writers_exactly_one_takes_a_name(name: str) -> None:
    storage = Leisurely()
    results: dict[int, PutResult] = {}
    start = threading.Barrier(6)

    def write(number: int) -> None:
        writer = TakesTurns(storage)
        start.wait()
        results[number] = writer.put(name, str(number).encode())

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    winners = [number for number, result in results.items() if result is PutResult.STORED]
    assert len(winners) == 1
    assert storage.get(name) == str(winners[0]).encode()
    assert names(storage) == [name]


@pytest.mark.parametrize("order", list(combinations(range(6), 3)))
def test_two_writers_never_have_the_turn_at_once_however_their_steps_mix(order: tuple[int, ...]) -> None:
    """Each puts, lists and, alone, writes: every order of these six steps."""
    storage = MemoryStorage()
    step = {"a": 0, "b": 0}
    has_turn = []
    for at in range(6):
        who, other = ("a", "b") if at in order else ("b", "a")
        if step[who] == 0:
            storage.put(f"{PREFIX}{who}", b"")
        elif step[who] == 1:
            alone = storage.stat(f"{PREFIX}{other}") is None
            has_turn += [who] if alone else []
            if not alone:
                storage.delete(f"{PREFIX}{who}")
        step[who] += 1

    assert len(has_turn) <= 1


def test_a_turn_that_was_left_behind_ends() -> None:
    storage, watch = Ignorant(), Watch()
    storage.put(f"{PREFIX}of-the-dead", b"")
    writer = TakesTurns(storage, monotonic=watch.monotonic, sleep=watch.sleep)

    assert writer.put("chain/1", b"x") is PutResult.STORED

    assert ABANDONED_SECONDS < watch.now < ABANDONED_SECONDS + 10
    assert names(storage) == ["chain/1"]


def test_turns_that_never_end_are_an_error_after_a_while() -> None:
    watch = Watch()

    class Crowded(Ignorant):
        def delete(self, name: str) -> None:
            super().delete(name)
            self.put(f"{PREFIX}{watch.now // 1000}", b"")

    storage = Crowded()
    storage.put(f"{PREFIX}first", b"")
    writer = TakesTurns(storage, monotonic=watch.monotonic, sleep=watch.sleep)

    with pytest.raises(Busy):
        writer.put("chain/1", b"x")

    assert storage.stat("chain/1") is None


def test_a_turn_that_came_too_slowly_is_not_used() -> None:
    watch = Watch()

    class Slow(Ignorant):
        def stat(self, name: str) -> None:
            watch.now += 61

    storage = Slow()

    with pytest.raises(StorageError, match="too slow"):
        TakesTurns(storage, monotonic=watch.monotonic, sleep=watch.sleep).put("chain/1", b"x")

    assert names(storage) == []


def test_a_failing_put_gives_the_turn_back() -> None:
    class Failing(Ignorant):
        def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
            if name.startswith("chain/"):
                raise StorageError("as told")
            return super().put(name, data, if_absent=if_absent)

    storage = Failing()

    with pytest.raises(StorageError, match="as told"):
        TakesTurns(storage).put("chain/1", b"x")

    assert names(storage) == []


def test_names_nobody_contends_for_cost_nothing() -> None:
    storage = MemoryStorage()
    writer = TakesTurns(storage)
    storage.list_objects = None  # type: ignore[assignment, method-assign]  # a list would fail

    assert writer.put("packs/ab/1", b"x") is PutResult.STORED
    assert writer.put("config", b"y", if_absent=False) is PutResult.STORED


def test_what_only_some_storages_can_do_stays_possible() -> None:
    class Measured(MemoryStorage):
        def free_bytes(self) -> int:
            return 5

    writer = TakesTurns(Measured())

    assert isinstance(writer, KnowsFreeSpace)
    assert writer.free_bytes() == 5
    assert not isinstance(TakesTurns(MemoryStorage()), KnowsFreeSpace)
