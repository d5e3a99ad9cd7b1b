"""Find what is damaged in a repository and decide how to mend it; reads only.

Every index object and every pack is read, what cannot be read once more. What a plan says will be whole was
looked up in an index as it will be after the repair, with each chunk read once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from backup_admin.core.errors import ObjectMissing, RepositoryError, StorageError, StorageUnavailable
from backup_admin.operations.affected import Losses, SnapshotCheck, lost_from
from backup_admin.operations.salvage import (
    Frame,
    frames_in_contents,
    frames_of_packs,
    records_of,
    sound_chunks,
)
from backup_admin.operations.scrub import scrub_packs
from backup_admin.repository.index import Index, PackInfo, open_index, seal_index
from backup_admin.repository.objects import HEADER_BYTES
from backup_admin.repository.packs import PREFIX as PACK_PREFIX
from backup_admin.repository.packs import pack_digest, pack_name
from backup_admin.repository.reader import ChunkReader

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from backup_admin.core.ids import SnapshotId
    from backup_admin.core.progress import Reporter
    from backup_admin.repository.keys import RepositoryKeys
    from backup_admin.repository.repository import Repository
    from backup_admin.storage.base import Storage

_ROW = 32 + HEADER_BYTES + 4
_RECORDS = 200_000


@dataclass(frozen=True, slots=True)
class BadPack:
    """A pack on the books that is not whole, and which of its chunks can be saved."""

    info: PackInfo
    message: str
    is_there: bool
    frames: tuple[Frame, ...]
    saved: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """What was found, and what a repair does about it.

    `stale` are sound index objects that list bad packs; `adopted` sound packs that no
    sound index object lists; `returned` packs that an earlier repair or prune took off
    the books and that are there. `damaged` are the snapshots that stay damaged.
    """

    lost_indexes: Mapping[str, str]
    bad: tuple[BadPack, ...]
    sound_indexes: tuple[str, ...]
    stale: tuple[str, ...]
    adopted: tuple[bytes, ...]
    returned: tuple[bytes, ...]
    damaged: Mapping[SnapshotId, Losses]
    noted: frozenset[str]
    """The snapshots that the chain names as damaged already."""

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to do in the storage."""
        work = self.lost_indexes or self.bad or self.adopted or self.returned
        return bool(work) or set(self.damaged) != self.noted


@dataclass(slots=True)
class _Books:
    """What the sound index objects list."""

    lost: dict[str, str] = field(default_factory=dict)
    packs_of: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    packs: dict[bytes, PackInfo] = field(default_factory=dict)


class Finder:
    """Finds damage. Keeps which packs were read and good, so that a second look is quick."""

    def __init__(self, repository: Repository, scratch: Path, reporter: Reporter) -> None:
        self._repository = repository
        self._storage = repository.storage
        self._keys = repository.keys
        self._scratch = scratch
        self._reporter = reporter
        self._good: set[bytes] = set()

    def find(self) -> RepairPlan:
        """Read everything that was not read yet, and plan; raise `StorageError`."""
        self._repository.refresh()
        books = self._read_indexes()
        listed = {info.name: info.size for info in self._storage.list_objects(PACK_PREFIX)}
        messages = self._find_bad(books, listed)
        unknown = self._unknown(books, listed)
        with TemporaryDirectory(prefix="repair-", dir=self._scratch) as folder:
            return self._plan(books, messages, unknown, _Expected(self._repository, Path(folder)))

    def _plan(
        self, books: _Books, messages: dict[bytes, str], unknown: list[bytes], expected: _Expected
    ) -> RepairPlan:
        stale = [name for name, packs in books.packs_of.items() if not messages.keys().isdisjoint(packs)]
        sound = [name for name in books.packs_of if name not in stale]
        frames = frames_of_packs(expected.load(books.packs_of), messages)
        expected.begin(sound, stale, messages.keys())
        adopted = list(self._adopt(unknown, expected)) if messages or books.lost else []
        bad = [
            self._examine(books.packs[name], text, frames[name], expected) for name, text in messages.items()
        ]
        damaged = self._damaged(expected)
        if damaged and not adopted and (adopted := list(self._adopt(unknown, expected))):
            damaged = self._damaged(expected)
        returned = self._returned(expected) if damaged else ()
        return RepairPlan(
            lost_indexes=books.lost,
            bad=tuple(bad),
            sound_indexes=tuple(sound),
            stale=tuple(stale),
            adopted=tuple(adopted),
            returned=returned,
            damaged=damaged,
            noted=frozenset(self._repository.history.damaged),
        )

    def _read_indexes(self) -> _Books:
        books = _Books()
        for name in self._repository.index_names():
            self._reporter.check_cancelled()
            try:
                table, _, records = open_index(self._keys, name, read_twice(self._storage, name))
                deque(records, maxlen=0)  # opens every frame
            except ObjectMissing:
                books.lost[name] = f"{name} is missing from the storage."
            except StorageUnavailable:
                raise
            except (RepositoryError, StorageError) as error:
                books.lost[name] = f"{name} is damaged: {error}"
            else:
                rows = [pack for pack in table_rows(table) if not self._is_collected(pack.name)]
                books.packs_of[name] = tuple(pack.name for pack in rows)
                books.packs.update((pack.name, pack) for pack in rows)
        return books

    def _find_bad(self, books: _Books, listed: dict[str, int]) -> dict[bytes, str]:
        bad: dict[bytes, str] = {}
        to_read = []
        for pack in books.packs.values():
            name = pack_name(pack.name)
            size = listed.get(name)
            if size is None and (info := self._storage.stat(name)) is not None:
                size = info.size
            if size != pack.size:
                bad[pack.name] = f"{name} is missing from the storage or cut short."
            elif pack.name not in self._good:
                to_read.append(pack)
        self._reporter.stage(
            "check", total_bytes=sum(pack.size for pack in to_read), total_items=len(to_read)
        )
        _, _, problems = scrub_packs(self._repository, to_read, reporter=self._reporter)
        doubtful = {problem.pack for problem in problems}
        again = [pack for pack in to_read if pack.name.hex() in doubtful]
        _, _, problems = scrub_packs(self._repository, again, reporter=self._reporter)
        bad |= {bytes.fromhex(problem.pack): problem.message for problem in problems}
        self._good.update(pack.name for pack in to_read if pack.name not in bad)
        return bad

    def _unknown(self, books: _Books, listed: dict[str, int]) -> list[bytes]:
        names = (name.rpartition("/")[2] for name in listed)
        found = [bytes.fromhex(name) for name in names if len(name) == 64]
        return [name for name in found if name not in books.packs and not self._is_collected(name)]

    def _adopt(self, unknown: list[bytes], expected: _Expected) -> Iterator[bytes]:
        """Yield those of the packs that are whole and hold what no listed pack holds."""
        self._reporter.stage("unlisted packs", total_items=len(unknown))
        for name in unknown:
            self._reporter.check_cancelled()
            pack = read_contents(self._repository, name)
            if pack is not None and expected.add_new(*pack):
                yield name
            self._reporter.advance(items=1)
        expected.flush()

    def _examine(
        self, pack: PackInfo, message: str, frames: tuple[Frame, ...], expected: _Expected
    ) -> BadPack:
        is_there = self._storage.stat(pack_name(pack.name)) is not None
        saved: frozenset[bytes] = frozenset()
        if is_there:
            chunks = sound_chunks(self._storage, self._keys, pack, frames)
            saved = frozenset(chunk.id for chunk in chunks if not expected.index.has(chunk.id))
            expected.add(pack, frames, saved)
            expected.flush()
        return BadPack(pack, message, is_there, frames, saved)

    def _damaged(self, expected: _Expected) -> dict[SnapshotId, Losses]:
        reader = ChunkReader(self._storage, self._keys, expected.index)
        check = SnapshotCheck(self._repository, reader, lost_from(expected.index, {}))
        return {name: losses for name, losses in check.check_all(self._reporter) if losses.count}

    def _returned(self, expected: _Expected) -> tuple[bytes, ...]:
        names = sorted(map(bytes.fromhex, self._repository.history.collected))
        found = []
        for name in names:
            pack = read_contents(self._repository, name)
            if pack is not None and any(
                not expected.index.has(span.id) for frame in pack[1] for span in frame.spans
            ):
                found.append(name)
        return tuple(found)

    def _is_collected(self, name: bytes) -> bool:
        return name.hex() in self._repository.history.collected


class _Expected:
    """The index as it will be after the repair, in a folder of its own."""

    def __init__(self, repository: Repository, folder: Path) -> None:
        self._repository = repository
        self._folder = folder
        self._packs: list[PackInfo] = []
        self._records: list[bytes] = []
        self.index = Index(repository.storage, repository.keys, folder)

    def load(self, names: Collection[str]) -> Index:
        """Load what the index objects say now."""
        self.index.load(names, ())
        return self.index

    def begin(self, sound: Collection[str], stale: Collection[str], bad: Collection[bytes]) -> None:
        """Load what stays, and of the stale index objects what is not about bad packs."""
        collected = self._repository.history.collected
        if stale:
            self.index.load(sound, collected)
        else:
            self.index.ignore(collected)
        for name in stale:
            rewritten = without_packs(self._repository.keys, self._repository.storage.get(name), name, bad)
            if rewritten is not None:
                self.index.add(*rewritten)

    def add_new(self, pack: PackInfo, frames: Collection[Frame]) -> bool:
        """List a whole pack if it holds a chunk that is not listed yet."""
        wanted = {span.id for frame in frames for span in frame.spans}
        if all(self.index.has(chunk_id) for chunk_id in wanted):
            return False
        self.add(pack, frames, wanted)
        return True

    def add(self, pack: PackInfo, frames: Collection[Frame], wanted: Collection[bytes]) -> None:
        """List some chunks of a pack."""
        self._records += records_of(len(self._packs), frames, wanted)
        self._packs.append(pack)
        if len(self._records) >= _RECORDS:
            self.flush()

    def flush(self) -> None:
        """Make what was listed searchable."""
        if self._packs:
            self.index.add(*seal_index(self._repository.keys, self._packs, sorted(self._records)))
        self._packs, self._records = [], []


def read_contents(repository: Repository, name: bytes) -> tuple[PackInfo, tuple[Frame, ...]] | None:
    """Return a pack by its own table of contents, or None when it is not there or not whole."""
    try:
        data = read_twice(repository.storage, pack_name(name))
        if pack_digest(data) != name:
            return None
        return frames_in_contents(repository.keys, name, memoryview(data))
    except StorageUnavailable:
        raise
    except (StorageError, RepositoryError):
        return None


def read_twice(storage: Storage, name: str) -> bytes:
    """Read an object; a reading that failed once is no damage yet."""
    try:
        return storage.get(name)
    except (ObjectMissing, StorageUnavailable):
        raise
    except StorageError:
        return storage.get(name)


def without_packs(
    keys: RepositoryKeys, data: bytes, name: str, unwanted: Collection[bytes]
) -> tuple[str, bytes] | None:
    """Return a new index object with all that one says, but nothing about some packs.

    None when nothing is left. Raises `Damaged`.
    """
    table, _, records = open_index(keys, name, data)
    rows = list(table_rows(table))
    kept = [pack for pack in rows if pack.name not in unwanted]
    numbers = {pack.name: number.to_bytes(4, "big") for number, pack in enumerate(kept)}
    renumbered = {number.to_bytes(4, "big"): numbers.get(pack.name) for number, pack in enumerate(rows)}
    left = [
        record[:32] + number + record[36:]
        for record in records
        if (number := renumbered.get(record[32:36])) is not None
    ]
    return seal_index(keys, kept, left) if kept else None


def table_rows(table: bytes) -> Iterator[PackInfo]:
    """Yield the packs of an index object's table."""
    for at in range(4, len(table), _ROW):
        row = bytes(table[at : at + _ROW])
        yield PackInfo(row[:32], row[32 : 32 + HEADER_BYTES], int.from_bytes(row[-4:], "big"))
