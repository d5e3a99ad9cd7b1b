"""What a storage is: named byte objects, put whole or not at all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from backup_admin.core.errors import BadObjectName

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from backup_admin.core.errors import StorageError

Buffer = bytes | bytearray | memoryview

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*(/[a-z0-9][a-z0-9.-]*)*")
MAX_NAME_LENGTH = 99


class PutResult(StrEnum):
    """What a put did."""

    STORED = "stored"
    EXISTS = "exists"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """Name and size of one stored object."""

    name: str
    size: int


class Storage(Protocol):
    """Named byte objects. `put` is all or nothing; `if_absent` never overwrites.

    Every method raises `StorageError` or one of its kinds, never an error of
    the library or system below.
    """

    label: str

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        """Store an object durably; `EXISTS` when the name is taken."""
        ...

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Read an object or a part; fewer bytes only where the object ends.

        Raises `ObjectMissing`.
        """
        ...

    def stat(self, name: str) -> ObjectInfo | None:
        """Return name and size, or None when there is no such object."""
        ...

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """List objects whose name begins with the prefix, in order of name."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object; one that is gone already is no error."""
        ...


class ReadsInto(Protocol):
    """A storage that can read into a buffer the caller owns."""

    def get_into(self, name: str, offset: int, buffer: bytearray | memoryview) -> int:
        """Fill the buffer from an object; fewer bytes only where it ends.

        Raises `ObjectMissing`.
        """
        ...


@runtime_checkable
class CanBeMade(Protocol):
    """A storage whose place can be created when it is not there yet."""

    def make(self) -> None:
        """Create the place; one that exists stays as it is."""
        ...

    def is_made(self) -> bool:
        """Say whether the place is there; False only where `make` would create it."""
        ...


@runtime_checkable
class LooksBeforePut(Protocol):
    """A storage that looks whether a name is taken and leaves the rest to a condition it sends."""

    def overwrites(self, name: str, data: Buffer) -> bool:
        """Put a taken name under that condition alone; say whether it was ignored."""
        ...


@runtime_checkable
class KeepsLocked(Protocol):
    """A storage that can lock what is put: until a time nobody deletes it, or puts other bytes in its place.

    With `lock_days` 0 it locks nothing.
    """

    lock_days: int

    def extend_lock(self, name: str) -> datetime:
        """Lock an object for `lock_days` from now, never shorter than it is; return until when it is then.

        Raises `ObjectMissing`.
        """
        ...

    def locked_until(self, name: str) -> datetime | None:
        """Return until when an object is locked; None when it is not, or that may not be seen.

        Raises `ObjectMissing`.
        """
        ...


@runtime_checkable
class FarAway(Protocol):
    """A storage behind a line: a call takes long, and several at once hardly longer than one."""

    parallel_calls: int


@runtime_checkable
class KnowsFreeSpace(Protocol):
    """A storage that can say how much room is left."""

    def free_bytes(self) -> int | None:
        """Return the free bytes, or None when that is not known."""
        ...


class Hurdle(StrEnum):
    """What a first contact with a storage failed at."""

    REACH = "reach"
    NO_CREDENTIALS = "no_credentials"
    CREDENTIALS = "credentials"
    CLOCK = "clock"
    PLACE = "place"
    RIGHTS = "rights"


@runtime_checkable
class NamesHurdles(Protocol):
    """A storage that others keep for us: it must be reached, and must know who asks."""

    def hurdle_of(self, error: StorageError) -> Hurdle | None:
        """Say what an error of this storage means for a first contact; None when it says nothing."""
        ...


@runtime_checkable
class TellsTime(Protocol):
    """A storage that has a clock."""

    def tell_time(self, name: str) -> datetime:
        """Return what its clock shows; the object `name` is there and may be touched for it."""
        ...


class Known(StrEnum):
    """Whether something holds, as far as one can tell."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class BucketFacts:
    """What a bucket does besides keeping objects."""

    versioning: Known
    object_lock: Known
    compares_sums: Known


@runtime_checkable
class AnswersMore(Protocol):
    """A storage in a bucket, whose settings can be asked for."""

    def bucket_facts(self, name: str) -> BucketFacts:
        """Find out; a put of `name` with a wrong sum is tried, and may leave that object."""
        ...

    def purge(self, name: str) -> bool:
        """Remove what a bucket keeps of a deleted object; say whether nothing is left of it."""
        ...


@dataclass(frozen=True, slots=True)
class Leftover:
    """What an interrupted write left beside the objects. `id` tells several of one name apart."""

    name: str
    size: int
    since: datetime
    id: str = ""


@runtime_checkable
class HasLeftovers(Protocol):
    """A storage where an interrupted write may leave what no list of objects shows."""

    def leftovers(self) -> Iterator[Leftover]:
        """List them, those of writes that are under way too."""
        ...

    def remove_leftover(self, leftover: Leftover) -> None:
        """Remove one; it is no error when it is gone already."""
        ...


def get_into(storage: Storage, name: str, offset: int, buffer: bytearray | memoryview) -> int:
    """Fill a buffer from an object, with as few copies as the storage allows."""
    if hasattr(storage, "get_into"):  # asking with `isinstance` takes longer than reading a piece
        return cast("ReadsInto", storage).get_into(name, offset, buffer)
    data = storage.get(name, offset, len(buffer))
    buffer[: len(data)] = data
    return len(data)


def locking(storage: Storage) -> KeepsLocked | None:
    """Return the storage when it locks what is put."""
    return storage if isinstance(storage, KeepsLocked) and storage.lock_days else None


def parallel_calls(storage: Storage) -> int:
    """Return how many calls at once serve a storage best: 1 where each is quick."""
    return storage.parallel_calls if isinstance(storage, FarAway) else 1


def check_name(name: str) -> str:
    """Return the name when every storage can keep it, else raise `BadObjectName`."""
    if not is_name(name):
        raise BadObjectName(f"{name[:120]!r} is not a name a storage can keep.")
    return name


def is_name(name: str) -> bool:
    """Say whether every storage can keep an object of this name."""
    return len(name) <= MAX_NAME_LENGTH and _NAME.fullmatch(name) is not None
