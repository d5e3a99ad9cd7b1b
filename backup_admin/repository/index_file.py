"""The local cache of the index: sorted records in a file that is mapped, not loaded.

    magic u32 || names u32 || packs u32 || bits u32 || records u64      in this machine's byte order
    rows of the pack table || records without their leading bytes
    names (32 bytes each) || first record of each bucket (u32) || sum of each block (16 bytes)
    sum of the header and of what stands behind the records (32 bytes)

A bucket is all records whose ids begin with the same `bits` bits, about a dozen: a
search is one look into the directory and one short scan. Leading bytes that the bucket
implies are left out. Opening reads the header and the end only; each block of 8 KiB
before is compared with its sum when it is touched first, so that no answer is ever
given from bytes that were not written so.
"""

from __future__ import annotations

import mmap
import os
import struct
from array import array
from bisect import bisect_left
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from backup_admin.core.durable import TEMPORARY_PREFIX, write_all
from backup_admin.core.errors import Damaged
from backup_admin.repository.objects import HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

RECORD_BYTES = 52
ID_BYTES = 32
PACK_ROW_BYTES = 32 + HEADER_BYTES + 4
SUFFIX = ".idx"
_MAGIC = 0x424B4932
_HEAD = struct.Struct("=IIIIQ")
_PLACE = struct.Struct(">IIBBHHBHBH")  # what follows the id; three bytes are read as one and two
_BLOCK_BITS = 13
_BLOCK = 1 << _BLOCK_BITS
_SUM_BYTES = 16
_SEAL_BYTES = 32
_BUCKET_RECORDS = 16
_MOST_BITS = 24
_BATCH = 8_192
_PACKS_KEPT = 4_096


class CacheDamaged(Damaged):
    """A cache file is not what was written; it is made again from the storage."""

    def __init__(self, file: IndexFile) -> None:
        super().__init__(
            f"The cache file {file.path} keeps being damaged although it was made again from the storage, "
            "which is not touched: the disk of the state folder fails."
        )
        self.file = file


@dataclass(frozen=True, slots=True)
class PackInfo:
    """Name, header and size of one pack."""

    name: bytes
    header: bytes
    size: int


class Location(NamedTuple):
    """Where a chunk lies. `frame_offset` points behind the frame's length field."""

    pack: PackInfo
    frame_offset: int
    frame_length: int
    frame_number: int
    method: int
    offset: int
    length: int


class IndexFile:
    """Sorted records in a mapped file, with the names of the index objects they come from."""

    def __init__(self, path: Path, handle: int) -> None:
        """Map a cache file that is open; raise `Damaged` when its header or end is not whole."""
        self.path = path
        self._map = mmap.mmap(handle, 0, access=mmap.ACCESS_READ)
        view = memoryview(self._map)
        if len(view) < _HEAD.size + _SEAL_BYTES or _HEAD.unpack_from(view)[0] != _MAGIC:
            raise Damaged(f"The cache file {path.name} is not one of this version.")
        numbers: tuple[int, ...] = _HEAD.unpack_from(view)
        _, name_count, self.pack_count, bits, self.count = numbers
        self._shift, self._dropped = 32 - bits, _dropped_bytes(bits)
        self._step = RECORD_BYTES - self._dropped
        self._start = _HEAD.size + self.pack_count * PACK_ROW_BYTES
        self._end = self._start + self.count * self._step
        directory = self._end + 32 * name_count
        self._sums = directory + 4 * ((1 << bits) + 1)
        blocks = -(-self._end // _BLOCK)
        if bits > _MOST_BITS or len(view) != self._sums + blocks * _SUM_BYTES + _SEAL_BYTES:
            raise Damaged(f"The cache file {path.name} is not whole.")
        if _seal(view[: _HEAD.size], view[self._end : -_SEAL_BYTES]) != view[-_SEAL_BYTES:]:
            raise Damaged(f"The cache file {path.name} is not whole.")
        self._directory = view[directory : self._sums].cast("I")
        self.names = tuple(bytes(view[at : at + 32]).hex() for at in range(self._end, directory, 32))
        self._checked = bytearray(blocks)
        self._packs: dict[int, PackInfo] = {}

    def find(self, chunk_id: bytes) -> int:
        """Return the position of the first record of a chunk, or -1."""
        bucket = int.from_bytes(chunk_id[:4], "big") >> self._shift
        directory, step, start, checked = self._directory, self._step, self._start, self._checked
        at = start + directory[bucket] * step
        end = start + directory[bucket + 1] * step
        if at == end:
            return -1
        if not (checked[at >> _BLOCK_BITS] and checked[(end - 1) >> _BLOCK_BITS]):
            self._check(at, end)
        tail = chunk_id[self._dropped :]
        at = self._map.find(tail, at, end)
        while at >= 0:
            position, rest = divmod(at - start, step)
            if not rest:
                return position
            at = self._map.find(tail, at + 1, end)  # it only looked like one, across two records
        return -1

    def locations(self, chunk_id: bytes) -> list[Location]:
        """Decode every record of a chunk."""
        position = self.find(chunk_id)
        if position < 0:
            return []
        found = [self.location(position)]
        tail = chunk_id[self._dropped :]
        while (position := position + 1) < self.count and self._tail(position) == tail:
            found.append(self.location(position))
        return found

    def pack(self, number: int) -> PackInfo:
        """Return a row of the pack table; raise `Damaged` for a number beyond it."""
        found = self._packs.get(number)
        if found is None:
            row = self._row(number)
            found = PackInfo(row[:32], row[32:76], int.from_bytes(row[76:], "big"))
            if len(self._packs) >= _PACKS_KEPT:
                self._packs.clear()
            self._packs[number] = found
        return found

    def pack_name(self, position: int) -> bytes:
        """Return the name of the pack that the record at a position lies in."""
        at = self._start + (position + 1) * self._step - (RECORD_BYTES - ID_BYTES)
        return self._row(int.from_bytes(self._bytes(at, at + 4), "big"))[:32]

    def location(self, position: int) -> Location:
        """Decode the record at a position."""
        end = self._start + (position + 1) * self._step
        raw = self._bytes(end - (RECORD_BYTES - ID_BYTES), end)
        return _location(raw, self.pack(int.from_bytes(raw[:4], "big")))

    def records(self) -> Iterator[bytes]:
        """Yield all records whole, in the order of their ids."""
        step, kept = self._step, self._dropped
        shift = 32 - self._shift - 8 * kept
        for prefix in range(1 << 8 * kept):
            lead = prefix.to_bytes(kept, "big")
            low, high = self._directory[prefix << shift], self._directory[(prefix + 1) << shift]
            for first in range(low, high, _BATCH):
                last = min(first + _BATCH, high)
                data = self._bytes(self._start + first * step, self._start + last * step)
                for at in range(0, len(data), step):
                    yield lead + data[at : at + step]

    def all_locations(self) -> Iterator[tuple[bytes, Location]]:
        """Yield every chunk id with its location, in the order of the ids."""
        packs: dict[int, PackInfo] = {}
        for record in self.records():
            number = int.from_bytes(record[32:36], "big")
            if number not in packs:
                if len(packs) >= _BATCH:
                    packs.clear()
                packs[number] = self.pack(number)
            yield record[:ID_BYTES], _location(record[ID_BYTES:], packs[number])

    def rows(self) -> Iterator[bytes]:
        """Yield the pack table in pieces."""
        for at in range(_HEAD.size, self._start, _BLOCK):
            yield self._bytes(at, min(at + _BLOCK, self._start))

    def _row(self, number: int) -> bytes:
        if number >= self.pack_count:
            raise Damaged(f"The cache file {self.path.name} names a pack it does not list.")
        at = _HEAD.size + number * PACK_ROW_BYTES
        return self._bytes(at, at + PACK_ROW_BYTES)

    def _tail(self, position: int) -> bytes:
        at = self._start + position * self._step
        return self._bytes(at, at + ID_BYTES - self._dropped)

    def _bytes(self, at: int, end: int) -> bytes:
        first, last = at >> _BLOCK_BITS, (end - 1) >> _BLOCK_BITS
        if last - first > 1 or not (self._checked[first] and self._checked[last]):
            self._check(at, end)
        return self._map[at:end]

    def check_table(self) -> None:
        """Compare the whole pack table with its sums; raise `CacheDamaged`."""
        self._check(0, self._start)

    def check_all(self) -> None:
        """Compare everything with its sums; raise `CacheDamaged`."""
        self._check(0, self._end)

    def _check(self, at: int, end: int) -> None:
        """Compare each block that holds these bytes with its sum, once; raise `CacheDamaged`."""
        for block in range(at >> _BLOCK_BITS, ((end - 1) >> _BLOCK_BITS) + 1):
            if not self._checked[block]:
                with memoryview(self._map) as view:
                    part = view[block << _BLOCK_BITS : min((block + 1) << _BLOCK_BITS, self._end)]
                    place = self._sums + block * _SUM_BYTES
                    if _block_sum(part) != view[place : place + _SUM_BYTES]:
                        raise CacheDamaged(self)
                self._checked[block] = 1


def _location(raw: bytes, pack: PackInfo) -> Location:
    _, frame, method, high, low, number, from_high, from_low, size_high, size_low = _PLACE.unpack(raw)
    return Location(
        pack, frame, high << 16 | low, number, method, from_high << 16 | from_low, size_high << 16 | size_low
    )


def open_index_file(path: Path) -> IndexFile:
    """Open a cache file; raise `Damaged` or `OSError`."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return IndexFile(path, handle)
    finally:
        os.close(handle)


def merge_records(files: Sequence[IndexFile]) -> Iterator[Iterator[bytes]]:
    """Yield the records of each file, numbered for a pack table that holds all tables."""
    shift = 0
    for file in files:
        yield _renumbered(file, shift) if shift else file.records()
        shift += file.pack_count


def _renumbered(file: IndexFile, shift: int) -> Iterator[bytes]:
    for record in file.records():
        number = int.from_bytes(record[32:36], "big") + shift
        yield record[:32] + number.to_bytes(4, "big") + record[36:]


@dataclass(frozen=True, slots=True)
class IndexContent:
    """What a cache file is made of; the records must be sorted and as many as `count`."""

    names: tuple[str, ...]
    pack_count: int
    rows: Iterable[bytes]
    count: int
    records: Iterable[bytes]


def write_index_file(folder: Path, content: IndexContent) -> IndexFile:
    """Write a cache file and open it. Memory does not grow with its size.

    It is not synced: a file that a power cut leaves half written does not fit its
    sums. Another process that tidies the folder meanwhile does no harm: the file
    is mapped already. Raises `Damaged` when the records are not in order.
    """
    name = blake3("".join(sorted(content.names)).encode()).hexdigest()[:32]
    path = folder / f"{name}{SUFFIX}"
    temporary = folder / f"{TEMPORARY_PREFIX}{os.urandom(8).hex()}"
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _Writer(handle).write(content)
        file = IndexFile(path, handle)
        with suppress(FileNotFoundError):
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
    return file


class _Writer:
    """Streams a cache file, summing its blocks and noting where each bucket begins."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._waiting = bytearray()
        self._sums = bytearray()

    def write(self, content: IndexContent) -> None:
        bits = min((content.count // _BUCKET_RECORDS).bit_length(), _MOST_BITS)
        head = _HEAD.pack(_MAGIC, len(content.names), content.pack_count, bits, content.count)
        self._put(head)
        for piece in content.rows:
            self._put(piece)
        directory = self._put_records(content.records, bits)
        if directory[-1] != content.count:
            raise Damaged(f"An index has {directory[-1]} records and announces {content.count}.")
        self._flush(len(self._waiting))
        tail = b"".join(bytes.fromhex(name) for name in content.names) + directory.tobytes() + self._sums
        write_all(self._handle, tail + _seal(head, tail))

    def _put(self, data: bytes) -> None:
        self._waiting += data
        if len(self._waiting) >= 128 * _BLOCK:
            self._flush(len(self._waiting) & -_BLOCK)

    def _flush(self, size: int) -> None:
        with memoryview(self._waiting) as view:
            for at in range(0, size, _BLOCK):
                self._sums += _block_sum(view[at : min(at + _BLOCK, size)])
            write_all(self._handle, view[:size])
        del self._waiting[:size]

    def _put_records(self, records: Iterable[bytes], bits: int) -> array[int]:
        directory = array("I", [0])
        dropped, count, last, source = _dropped_bytes(bits), 0, b"", iter(records)
        while batch := list(islice(source, _BATCH)):
            if batch[0] < last or sorted(batch) != batch:
                raise Damaged("The records of an index are not in order.")
            last = batch[-1]
            bucket = int.from_bytes(last[:4], "big") >> (32 - bits)
            at = 0
            for begun in range(len(directory), bucket + 1):
                at = bisect_left(batch, (begun << (32 - bits)).to_bytes(4, "big"), at)
                directory.append(count + at)
            self._put(b"".join([record[dropped:] for record in batch]))
            count += len(batch)
        directory.extend([count] * ((1 << bits) + 1 - len(directory)))
        return directory


def _dropped_bytes(bits: int) -> int:
    """Return how many leading bytes of an id its bucket implies, at most two."""
    return min(bits // 8, 2)


def _block_sum(block: memoryview) -> bytes:
    return blake3(block).digest(_SUM_BYTES)


def _seal(head: bytes | memoryview, tail: bytes | memoryview) -> bytes:
    return blake3(head).update(tail).digest()
