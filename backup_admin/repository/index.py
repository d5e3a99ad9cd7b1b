"""The index: which chunk lies where. Stored in objects, looked up in mapped files.

A record has 52 bytes: chunk id 32, pack number u32, frame offset u32, method u8,
frame length u24, frame number u16, offset in the segment u24, length u24, all
big-endian. Records are sorted by id; a table of packs stands before them. The
same bytes lie in an index object (sealed) and in the local cache (plain, with a
hash behind), where a search costs no memory.
"""

from __future__ import annotations

import heapq
import mmap
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blake3 import blake3

from backup_admin.core.durable import TEMPORARY_PREFIX, replace_file
from backup_admin.core.errors import Damaged, ObjectMissing
from backup_admin.repository.objects import HEADER_BYTES, ObjectType, open_object, seal_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from backup_admin.repository.keys import RepositoryKeys
    from backup_admin.storage.base import Storage

PREFIX = "index/"
RECORD_BYTES = 52
ID_BYTES = 32
_PACK_ROW = 32 + HEADER_BYTES + 4
_FRAME_RECORDS = 65_536
_CACHE_MAGIC = b"BKI1"
_CACHE_FILES = 8
_CACHE_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class PackInfo:
    """Name, header and size of one pack."""

    name: bytes
    header: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Location:
    """Where a chunk lies. `frame_offset` points behind the frame's length field."""

    pack: PackInfo
    frame_offset: int
    frame_length: int
    frame_number: int
    method: int
    offset: int
    length: int


def encode_record(
    chunk_id: bytes, pack_number: int, frame: tuple[int, int, int, int], span: tuple[int, int]
) -> bytes:
    """Write one record; `frame` is (offset, method, length, number), `span` (offset, length)."""
    offset, method, length, number = frame
    return b"".join(
        (
            chunk_id,
            pack_number.to_bytes(4, "big"),
            offset.to_bytes(4, "big"),
            bytes([method]),
            length.to_bytes(3, "big"),
            number.to_bytes(2, "big"),
            span[0].to_bytes(3, "big"),
            span[1].to_bytes(3, "big"),
        )
    )


def encode_table(packs: Sequence[PackInfo]) -> bytes:
    """Write the table of packs."""
    rows = [pack.name + pack.header + pack.size.to_bytes(4, "big") for pack in packs]
    return len(packs).to_bytes(4, "big") + b"".join(rows)


def seal_index(
    keys: RepositoryKeys, packs: Sequence[PackInfo], records: Sequence[bytes]
) -> tuple[str, bytes]:
    """Return name and bytes of an index object; the records must be sorted."""
    frames = [encode_table(packs)]
    frames += [b"".join(records[at : at + _FRAME_RECORDS]) for at in range(0, len(records), _FRAME_RECORDS)]
    data = seal_object(keys, ObjectType.INDEX, "index", frames)
    return PREFIX + blake3(data).hexdigest(), data


def open_index(keys: RepositoryKeys, name: str, data: bytes) -> tuple[bytes, bytes]:
    """Return the pack table and the records of an index object; raise `Damaged`."""
    if PREFIX + blake3(data).hexdigest() != name:
        raise Damaged(f"{name} is not what was written: its name does not fit its bytes.")
    table, *parts = open_object(keys, ObjectType.INDEX, "index", data)
    records = b"".join(parts)
    if len(table) != 4 + _PACK_ROW * int.from_bytes(table[:4], "big") or len(records) % RECORD_BYTES:
        raise Damaged(f"{name} has a table or records of an impossible length.")
    return table, records


class IndexFile:
    """Sorted records in a mapped file, with the names of the index objects they come from."""

    def __init__(self, path: Path) -> None:
        """Map and check a cache file; raise `Damaged` when it is not whole."""
        self.path = path
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        view = memoryview(self._map)
        if len(view) < 44 or view[:4] != _CACHE_MAGIC or blake3(view[:-32]).digest() != view[-32:]:
            raise Damaged(f"The cache file {path.name} is not whole.")
        name_count = int.from_bytes(view[4:8], "big")
        at = 8 + 32 * name_count
        self.names = tuple(PREFIX + bytes(view[p : p + 32]).hex() for p in range(8, at, 32))
        packs = int.from_bytes(view[at : at + 4], "big")
        self._table = at + 4
        self.table = view[at : at + 4 + packs * _PACK_ROW]
        self._start = at + 4 + packs * _PACK_ROW
        self.records = view[self._start : -32]
        self.count = len(self.records) // RECORD_BYTES

    def find(self, chunk_id: bytes) -> int:
        """Return the position of a record, or -1. Ids are hashes: guess by value."""
        low, high = 0, self.count - 1
        floor, ceiling = 0, 1 << 64
        key = int.from_bytes(chunk_id[:8], "big")
        data, start = self._map, self._start
        while low <= high:
            middle = low + (high - low) * (key - floor) // (ceiling - floor) if ceiling > floor else low
            middle = min(max(middle, low), high)
            at = start + middle * RECORD_BYTES
            found = data[at : at + ID_BYTES]
            if found == chunk_id:
                return middle
            if found < chunk_id:
                low, floor = middle + 1, int.from_bytes(found[:8], "big")
            else:
                high, ceiling = middle - 1, int.from_bytes(found[:8], "big")
        return -1

    def pack(self, number: int) -> PackInfo:
        """Return a row of the pack table; raise `Damaged` for a number beyond it."""
        at = self._table + number * _PACK_ROW
        if at + _PACK_ROW > self._start:
            raise Damaged(f"The cache file {self.path.name} names a pack it does not list.")
        row = self._map[at : at + _PACK_ROW]
        return PackInfo(row[:32], row[32:76], int.from_bytes(row[76:], "big"))

    def pack_count(self) -> int:
        """Return how many packs the table lists."""
        return (self._start - self._table) // _PACK_ROW

    def positions(self, chunk_id: bytes) -> Iterator[int]:
        """Return the position of every record of a chunk; a merged file may have several."""
        first = last = self.find(chunk_id)
        if first < 0:
            return
        while first > 0 and self.chunk_id(first - 1) == chunk_id:
            first -= 1
        while last + 1 < self.count and self.chunk_id(last + 1) == chunk_id:
            last += 1
        yield from range(first, last + 1)

    def chunk_id(self, position: int) -> bytes:
        """Return the id in the record at a position."""
        at = self._start + position * RECORD_BYTES
        return self._map[at : at + ID_BYTES]

    def location(self, position: int) -> Location:
        """Decode the record at a position."""
        at = self._start + position * RECORD_BYTES + ID_BYTES
        raw = self._map[at : at + RECORD_BYTES - ID_BYTES]
        return Location(
            self.pack(int.from_bytes(raw[:4], "big")),
            frame_offset=int.from_bytes(raw[4:8], "big"),
            method=raw[8],
            frame_length=int.from_bytes(raw[9:12], "big"),
            frame_number=int.from_bytes(raw[12:14], "big"),
            offset=int.from_bytes(raw[14:17], "big"),
            length=int.from_bytes(raw[17:20], "big"),
        )


class Index:
    """Looks chunks up in all index objects the chain names."""

    def __init__(self, storage: Storage, keys: RepositoryKeys, cache: Path) -> None:
        self._storage = storage
        self._keys = keys
        self._cache = cache
        self._files: list[IndexFile] = []
        self._collected: set[str] = set()
        self.lost: dict[str, str] = {}

    def load(self, names: Iterable[str], collected: Iterable[str]) -> None:
        """Make exactly these index objects searchable, through the local cache.

        The cache may be damaged, stale or gone: it is rebuilt from the storage.
        An index object that cannot be read is `lost`; its chunks are not known.
        """
        wanted = set(names)
        self._collected = set(collected)
        self.lost = {}
        self._files = self._usable_files(wanted)
        known = {name for file in self._files for name in file.names}
        for name in sorted(wanted - known):
            try:
                self.add(name, self._storage.get(name))
            except (Damaged, ObjectMissing) as error:
                self.lost[name] = str(error)
        while len(self._files) > _CACHE_FILES:
            self._merge_smallest()

    def add(self, name: str, data: bytes) -> None:
        """Take one more index object into account."""
        table, records = open_index(self._keys, name, data)
        self._files.append(self._write((name,), table, (records,)))

    def ignore(self, packs: Iterable[str]) -> None:
        """Treat these packs (hex names) as gone: their chunks are not known any more."""
        self._collected.update(packs)

    def names(self) -> frozenset[str]:
        """Return the names of the index objects taken into account."""
        return frozenset(name for file in self._files for name in file.names).union(self.lost)

    def find(self, chunk_id: bytes) -> Location | None:
        """Return where a chunk lies, or None."""
        return next(self.locations(chunk_id), None)

    def locations(self, chunk_id: bytes) -> Iterator[Location]:
        """Return every place a chunk lies in: one whose pack was lost is stored again."""
        for file in self._files:
            for position in file.positions(chunk_id):
                location = file.location(position)
                if not self._collected or location.pack.name.hex() not in self._collected:
                    yield location

    def has(self, chunk_id: bytes) -> bool:
        """Say whether a chunk is stored."""
        if self._collected:
            return self.find(chunk_id) is not None
        return any(file.find(chunk_id) >= 0 for file in self._files)

    def packs(self) -> Iterator[PackInfo]:
        """Return every pack once."""
        seen = set()
        for file in self._files:
            for number in range(file.pack_count()):
                pack = file.pack(number)
                if pack.name not in seen and pack.name.hex() not in self._collected:
                    seen.add(pack.name)
                    yield pack

    def chunk_count(self) -> int:
        """Return the number of records; a chunk stored twice counts twice."""
        return sum(file.count for file in self._files)

    def iterate(self) -> Iterator[tuple[bytes, PackInfo, Location]]:
        """Yield every record that counts as (chunk id, pack, location), file after file in id order."""
        for file in self._files:
            for position in range(file.count):
                location = file.location(position)
                if location.pack.name.hex() not in self._collected:
                    yield file.chunk_id(position), location.pack, location

    def _usable_files(self, wanted: set[str]) -> list[IndexFile]:
        files: list[IndexFile] = []
        covered: set[str] = set()
        for file in sorted(self._whole_files(), key=lambda file: -file.count):
            if covered.isdisjoint(file.names) and wanted.issuperset(file.names):
                files.append(file)
                covered.update(file.names)
            else:
                file.path.unlink(missing_ok=True)
        return files

    def _whole_files(self) -> Iterator[IndexFile]:
        for path in self._cache.glob("*.idx"):
            try:
                yield IndexFile(path)
            except (Damaged, OSError, ValueError):
                path.unlink(missing_ok=True)  # a cache: the storage has the truth

    def _merge_smallest(self) -> None:
        self._files.sort(key=lambda file: file.count)
        first, second = self._files[:2]
        shift = first.pack_count()
        table = (
            (shift + second.pack_count()).to_bytes(4, "big")
            + bytes(first.table[4:])
            + bytes(second.table[4:])
        )
        merged = self._write(
            first.names + second.names, table, heapq.merge(_records(first, 0), _records(second, shift))
        )
        for file in (first, second):
            file.path.unlink(missing_ok=True)
        self._files[:2] = [merged]

    def _write(self, names: tuple[str, ...], table: bytes, records: Iterable[bytes]) -> IndexFile:
        body = bytearray(_CACHE_MAGIC + len(names).to_bytes(4, "big"))
        body += b"".join(bytes.fromhex(name.removeprefix(PREFIX)) for name in names) + table
        for record in records:
            body += record
        path = self._cache / f"{blake3(''.join(names).encode()).hexdigest()[:32]}.idx"
        body += blake3(body).digest()
        for _ in range(_CACHE_ATTEMPTS):
            replace_file(path, bytes(body))
            with suppress(FileNotFoundError):  # another process tidied the cache just now
                return IndexFile(path)
        raise Damaged(f"The cache folder {self._cache} is being cleared by another process; try again.")


def _records(file: IndexFile, shift: int) -> Iterator[bytes]:
    for at in range(0, len(file.records), RECORD_BYTES):
        record = bytes(file.records[at : at + RECORD_BYTES])
        number = int.from_bytes(record[32:36], "big") + shift
        yield record[:32] + number.to_bytes(4, "big") + record[36:]


def clear_cache(cache: Path) -> None:
    """Remove every cache file and what a crash left half written."""
    for path in cache.iterdir():
        if path.suffix == ".idx" or path.name.startswith(TEMPORARY_PREFIX):
            path.unlink(missing_ok=True)
