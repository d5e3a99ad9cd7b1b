"""Stand-ins for the outside world: a clock that waits for nobody, a storage that fails on demand."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from backup_admin.core.errors import StorageError
from backup_admin.storage.base import Buffer, ObjectInfo, PutResult, Storage, get_into
from backup_admin.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

METHODS = ("put", "get", "stat", "list", "delete")


@dataclass(slots=True)
class SteppingClock:
    """A clock that goes on by a second each time somebody looks at it."""

    moment: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        self.moment += timedelta(seconds=1)
        return self.moment

    def monotonic(self) -> float:
        return self.now().timestamp()

    def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


class Act(StrEnum):
    """What goes wrong at a call."""

    FAIL = "fail"  # nothing happens, an error is raised
    LOSE_REPLY = "lose_reply"  # it happens, an error is raised all the same
    TEAR = "tear"  # half of it happens, an error is raised
    LIE = "lie"  # nothing happens, and the caller is told that it did
    LIE_TORN = "lie_torn"  # half of it happens, and the caller is told that all did
    DENY = "deny"  # a put happens, and the caller is told that the name was taken


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, and at which call of a method, counted from one."""

    method: str
    number: int
    act: Act


@dataclass
class FaultyStorage:
    """Hands calls on to another storage; chosen ones go wrong.

    `before` and `after` are called around each call with its method and name.
    """

    inner: Storage
    faults: tuple[Fault, ...] = ()
    before: Callable[[str, str], None] = lambda _method, _name: None
    after: Callable[[str, str], None] = lambda _method, _name: None
    calls: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.label = f"faulty {self.inner.label}"
        self._lock = threading.Lock()

    def counts(self) -> Counter[str]:
        """Return how often each method was called."""
        return Counter(method for method, _ in self.calls)

    def reset(self, *faults: Fault) -> None:
        """Forget the calls so far and take other faults."""
        self.calls, self.faults = [], faults

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        act = self._begin("put", name)
        if act in (Act.TEAR, Act.LIE_TORN):
            self.inner.put(name, bytes(data)[: len(data) // 2], if_absent=if_absent)
        elif act not in (Act.FAIL, Act.LIE):
            result = self.inner.put(name, data, if_absent=if_absent)
        self._end("put", name, act)
        if act is None:
            return result
        return PutResult.EXISTS if act is Act.DENY else PutResult.STORED

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        act = self._begin("get", name)
        data = self.inner.get(name, offset, length)
        self._end("get", name, act)
        return data[: len(data) // 2] if act is Act.LIE_TORN else data

    def get_into(self, name: str, offset: int, buffer: bytearray | memoryview) -> int:
        act = self._begin("get", name)
        count = get_into(self.inner, name, offset, buffer)
        self._end("get", name, act)
        return count // 2 if act is Act.LIE_TORN else count

    def stat(self, name: str) -> ObjectInfo | None:
        act = self._begin("stat", name)
        info = self.inner.stat(name)
        self._end("stat", name, act)
        return info

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        act = self._begin("list", prefix)
        found = list(self.inner.list_objects(prefix))
        if act in (Act.TEAR, Act.LIE_TORN):
            found = found[: len(found) // 2]
        yield from found
        self._end("list", prefix, act)

    def delete(self, name: str) -> None:
        act = self._begin("delete", name)
        if act not in (Act.FAIL, Act.LIE):
            self.inner.delete(name)
        self._end("delete", name, act)

    def _begin(self, method: str, name: str) -> Act | None:
        with self._lock:
            self.calls.append((method, name))
            number = self.counts()[method]
        act = next((f.act for f in self.faults if (f.method, f.number) == (method, number)), None)
        self.before(method, name)
        if act is Act.FAIL:
            raise StorageError(f"{method} of {name} failed, as it was told to.")
        return act

    def _end(self, method: str, name: str, act: Act | None) -> None:
        self.after(method, name)
        if act in (Act.LOSE_REPLY, Act.TEAR):
            raise StorageError(f"The reply to {method} of {name} was lost, as it was told to.")


def clone(storage: MemoryStorage) -> MemoryStorage:
    """Return a storage of its own with the same objects."""
    copy = MemoryStorage(storage.label)
    copy._objects = dict(storage._objects)
    return copy


class FarStorage(FaultyStorage):
    """The same, and it says that it is far away."""

    parallel_calls = 4


class MeetingStorage(MemoryStorage):
    """Answers a call only when so many others are under way."""

    def __init__(self, parallel_calls: int) -> None:
        super().__init__()
        self.parallel_calls = parallel_calls
        self._together = threading.Barrier(parallel_calls, timeout=20)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._together.wait()
        return super().get(name, offset, length)
