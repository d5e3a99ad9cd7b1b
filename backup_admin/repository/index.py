"""The index: which chunk lies where. Stored in objects, looked up in mapped files.

A record has 52 bytes: chunk id 32, pack number u32, frame offset u32, method u8,
frame length u24, frame number u16, offset in the segment u24, length u24, all
big-endian. Records are sorted by id; a table of packs stands before them. The
local cache holds them in files (`index_file.py`), where a search costs no memory.
"""

from __future__ import annotations

import heapq
import threading
from itertools import chain
from typing import TYPE_CHECKING

from blake3 import blake3

from backup_admin.core.durable import TEMPORARY_PREFIX
from backup_admin.core.errors import Damaged, ObjectMissing
from backup_admin.repository.index_file import (
    PACK_ROW_BYTES,
    RECORD_BYTES,
    SUFFIX,
    CacheDamaged,
    IndexContent,
    IndexFile,
    Location,
    PackInfo,
    merge_records,
    open_index_file,
    write_index_file,
)
from backup_admin.repository.objects import (
    HEADER_BYTES,
    TAG_BYTES,
    ObjectCipher,
    ObjectType,
    check_header,
    frame_spans,
    seal_object,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from backup_admin.repository.keys import RepositoryKeys
    from backup_admin.storage.base import Storage

__all__ = [
    "RECORD_BYTES",
    "Index",
    "Location",
    "PackInfo",
    "clear_cache",
    "encode_record",
    "encode_table",
    "open_index",
    "seal_index",
]

PREFIX = "index/"
_FRAME_RECORDS = 65_536
# Each file costs a look-up one or two microseconds, each merge writes its files anew.
_MOST_FILES = 4
_MOST_FILES_WHILE_ADDING = 8
_MOST_FILES_WHILE_LOADING = 32
_MOST_REPAIRS = 5


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


def open_index(keys: RepositoryKeys, name: str, data: bytes) -> tuple[bytes, int, Iterator[bytes]]:
    """Return the pack table, the number of records, and the records; raise `Damaged`.

    The records come one by one, so that memory holds one frame of them; a frame that
    does not open raises only when it is reached.
    """
    if PREFIX + blake3(data).hexdigest() != name:
        raise Damaged(f"{name} is not what was written: its name does not fit its bytes.")
    check_header(data[:HEADER_BYTES], ObjectType.INDEX)
    cipher = ObjectCipher(keys, data[:HEADER_BYTES], "index")
    spans = frame_spans(data)
    sizes = [size - TAG_BYTES for _, size in spans[1:]]
    table = _open_frame(cipher, data, spans, 0)
    if len(table) != 4 + PACK_ROW_BYTES * int.from_bytes(table[:4], "big") or any(
        size % RECORD_BYTES for size in sizes
    ):
        raise Damaged(f"{name} has a table or records of an impossible length.")
    frames = (_open_frame(cipher, data, spans, number) for number in range(1, len(spans)))
    records = (frame[at : at + RECORD_BYTES] for frame in frames for at in range(0, len(frame), RECORD_BYTES))
    return table, sum(sizes) // RECORD_BYTES, records


def _open_frame(cipher: ObjectCipher, data: bytes, spans: list[tuple[int, int]], number: int) -> bytes:
    offset, size = spans[number]
    return cipher.open(memoryview(data)[offset : offset + size], number, last=number == len(spans) - 1)


class Index:
    """Looks chunks up in all index objects the chain names.

    Threads may look up while one adds. A cache file that proves damaged in between
    is made again from the storage, unseen by the caller.
    """

    def __init__(self, storage: Storage, keys: RepositoryKeys, cache: Path) -> None:
        self._storage = storage
        self._keys = keys
        self._cache = cache
        self._files: tuple[IndexFile, ...] = ()
        self._changing = threading.RLock()
        self._repairs = 0
        self._collected: set[bytes] = set()
        self.lost: dict[str, str] = {}

    def load(self, names: Iterable[str], collected: Iterable[str]) -> None:
        """Make exactly these index objects searchable, through the local cache.

        The cache may be damaged, stale or gone: it is rebuilt from the storage.
        An index object that cannot be read is `lost`; its chunks are not known.
        """
        wanted = {name.removeprefix(PREFIX) for name in names}
        self._collected = {bytes.fromhex(pack) for pack in collected}
        self.lost = {}
        self._files = self._usable_files(wanted)
        known = {name for file in self._files for name in file.names}
        for name in sorted(wanted - known):
            self._files += self._fetched(name)
            self._merge(_MOST_FILES_WHILE_LOADING)
        self._merge(_MOST_FILES)

    def add(self, name: str, data: bytes) -> None:
        """Take one more index object into account."""
        with self._changing:
            self._files += (self._written(name, data),)
            self._merge(_MOST_FILES_WHILE_ADDING)

    def ignore(self, packs: Iterable[str]) -> None:
        """Treat these packs (hex names) as gone: their chunks are not known any more."""
        self._collected.update(bytes.fromhex(pack) for pack in packs)

    def names(self) -> frozenset[str]:
        """Return the names of the index objects taken into account."""
        return frozenset(PREFIX + name for file in self._files for name in file.names).union(self.lost)

    def find(self, chunk_id: bytes) -> Location | None:
        """Return where a chunk lies, or None."""
        return next(self.locations(chunk_id), None)

    def locations(self, chunk_id: bytes) -> Iterator[Location]:
        """Return every place a chunk lies in: one whose pack was lost is stored again."""
        try:
            found = [location for file in self._files for location in file.locations(chunk_id)]
        except CacheDamaged as error:
            self._repair(error)
            return self.locations(chunk_id)
        if self._collected:
            return (location for location in found if location.pack.name not in self._collected)
        return iter(found)

    def has(self, chunk_id: bytes) -> bool:
        """Say whether a chunk is stored."""
        try:
            collected = self._collected
            for file in self._files:
                position = file.find(chunk_id)
                if position >= 0 and (
                    not collected
                    or file.pack_name(position) not in collected
                    or any(found.pack.name not in collected for found in file.locations(chunk_id))
                ):
                    return True
        except CacheDamaged as error:
            self._repair(error)
            return self.has(chunk_id)
        return False

    def chunk_count(self) -> int:
        """Return the number of records; a chunk stored twice counts twice."""
        return sum(file.count for file in self._files)

    def iterate(self) -> Iterator[tuple[bytes, PackInfo, Location]]:
        """Yield every record that counts as (chunk id, pack, location), file after file in id order."""
        for file in self._sound_files(IndexFile.check_all):
            for chunk_id, location in file.all_locations():
                if location.pack.name not in self._collected:
                    yield chunk_id, location.pack, location

    def all_records(self) -> tuple[tuple[PackInfo, ...], Iterator[bytes]]:
        """Return every pack, some twice, and every record in the order of ids, numbered for these packs.

        What is ignored is in it.
        """
        files = self._sound_files(IndexFile.check_all)
        packs = tuple(file.pack(number) for file in files for number in range(file.pack_count))
        return packs, heapq.merge(*merge_records(files))

    def packs(self) -> Iterator[PackInfo]:
        """Return every pack once."""
        seen = set()
        for file in self._sound_files(IndexFile.check_table):
            for number in range(file.pack_count):
                pack = file.pack(number)
                if pack.name not in seen and pack.name not in self._collected:
                    seen.add(pack.name)
                    yield pack

    def _usable_files(self, wanted: set[str]) -> tuple[IndexFile, ...]:
        files: list[IndexFile] = []
        covered: set[str] = set()
        for file in sorted(self._whole_files(), key=lambda file: -file.count):
            if covered.isdisjoint(file.names) and wanted.issuperset(file.names):
                files.append(file)
                covered.update(file.names)
            else:
                file.path.unlink(missing_ok=True)
        return tuple(files)

    def _whole_files(self) -> Iterator[IndexFile]:
        for path in self._cache.glob(f"*{SUFFIX}"):
            try:
                yield open_index_file(path)
            except (Damaged, OSError, ValueError):
                path.unlink(missing_ok=True)  # a cache: the storage has the truth

    def _fetched(self, name: str) -> tuple[IndexFile, ...]:
        """Return the file of an index object in the storage; none when that is lost."""
        try:
            return (self._written(PREFIX + name, self._storage.get(PREFIX + name)),)
        except (Damaged, ObjectMissing) as error:
            self.lost[PREFIX + name] = str(error)
            return ()

    def _written(self, name: str, data: bytes) -> IndexFile:
        table, count, records = open_index(self._keys, name, data)
        packs = int.from_bytes(table[:4], "big")
        names = (name.removeprefix(PREFIX),)
        return write_index_file(self._cache, IndexContent(names, packs, (table[4:],), count, records))

    def _merge(self, most: int) -> None:
        """Make one file of the smallest while there are too many.

        Files of about the same size go together, so that a record is seldom written anew.
        """
        while len(self._files) > most:
            files = sorted(self._files, key=lambda file: file.count)
            small = files[: 1 + len(files) - most]
            total = sum(file.count for file in small)
            for file in files[len(small) :]:
                if file.count > 2 * total:
                    break
                small.append(file)
                total += file.count
            try:
                merged = self._merged(small)
            except CacheDamaged as error:
                self._repair(error)
                continue
            self._files = (*files[len(small) :], merged)
            for file in small:
                file.path.unlink(missing_ok=True)

    def _merged(self, files: Sequence[IndexFile]) -> IndexFile:
        content = IndexContent(
            tuple(name for file in files for name in file.names),
            sum(file.pack_count for file in files),
            chain.from_iterable(file.rows() for file in files),
            sum(file.count for file in files),
            heapq.merge(*merge_records(files)),
        )
        return write_index_file(self._cache, content)

    def _sound_files(self, check: Callable[[IndexFile], None]) -> tuple[IndexFile, ...]:
        files = self._files
        try:
            for file in files:
                check(file)
        except CacheDamaged as error:
            self._repair(error)
            return self._sound_files(check)
        return files

    def _repair(self, error: CacheDamaged) -> None:
        """Make a damaged cache file again; give up when that happens again and again."""
        with self._changing:
            if error.file not in self._files:
                return  # another thread was first
            error.file.path.unlink(missing_ok=True)
            self._repairs += 1
            if self._repairs > _MOST_REPAIRS:
                raise error
            again = tuple(chain.from_iterable(self._fetched(name) for name in error.file.names))
            self._files = tuple(file for file in self._files if file is not error.file) + again


def clear_cache(cache: Path) -> None:
    """Remove every cache file and what a crash left half written."""
    for path in cache.iterdir():
        if path.suffix == SUFFIX or path.name.startswith(TEMPORARY_PREFIX):
            path.unlink(missing_ok=True)
