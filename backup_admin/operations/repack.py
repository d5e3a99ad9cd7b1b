"""Storing the needed part of packs anew, and the index objects that name other packs only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backup_admin.core.errors import Damaged, ObjectMissing, VerificationFailed
from backup_admin.repository.index import open_index, seal_index
from backup_admin.repository.index_file import PACK_ROW_BYTES, PackInfo
from backup_admin.repository.objects import HEADER_BYTES
from backup_admin.repository.packs import Method, open_segment, pack_name, read_pack
from backup_admin.repository.store import put_object

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from backup_admin.core.progress import Reporter
    from backup_admin.repository.chunk_ids import ChunkIds
    from backup_admin.repository.packs import Segment
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.store import ChunkStore, ChunkWriter

_RECORDS = 200_000
_SMALL_BYTES = 256 << 10
_MANY_SMALL = 32


def repack(
    repository: Repository,
    packs: Iterable[PackInfo],
    needed: ChunkIds,
    store: ChunkStore,
    *,
    reporter: Reporter,
) -> tuple[str, ...]:
    """Store what is needed of some packs anew; return what is wrong with packs that cannot be read.

    The index behind the store must ignore those packs. Chunk ids stay.
    """
    problems: list[str] = []
    writer = store.writer()
    for pack in packs:
        reporter.check_cancelled()
        try:
            _move_chunks(repository, pack, needed, writer)
        except (Damaged, ObjectMissing) as error:
            problems.append(f"{pack_name(pack.name)} is damaged and was left as it is: {error}")
        reporter.advance(size=pack.size, items=1)
    store.finish()
    return tuple(problems)


def _move_chunks(repository: Repository, pack: PackInfo, needed: ChunkIds, writer: ChunkWriter) -> None:
    data = memoryview(repository.storage.get(pack_name(pack.name)))
    cipher, segments = read_pack(repository.keys, data)
    for segment in segments:
        wanted = [chunk for chunk in segment.chunks if chunk.id in needed]
        if not wanted:
            continue
        sealed = data[segment.frame_offset : segment.frame_offset + segment.frame_length]
        plain = memoryview(open_segment(cipher, segment, sealed))
        for chunk in wanted:
            part = plain[chunk.offset : chunk.offset + chunk.length]
            if writer.put(chunk.kind, part, compress=_is_packed(segment)).id != chunk.id:
                raise Damaged(f"Chunk {chunk.id.hex()[:16]} is not what its name says.")


def _is_packed(segment: Segment) -> bool:
    return segment.method != Method.RAW


@dataclass(slots=True)
class IndexChange:
    """Index objects that others take the place of."""

    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)


def rewrite_indexes(repository: Repository, names: Iterable[str], gone: Collection[bytes]) -> IndexChange:
    """Store index objects anew that name packs which are gone, and small ones when they are many.

    Everything is read back. Raises `Damaged` when an index object cannot be read.
    """
    change = IndexChange(_outdated(repository, names, gone))
    gathered = _Gathered()
    for name in change.old:
        table, _, records = open_index(repository.keys, name, _read(repository, name))
        gathered.begin(_packs(table), gone)
        for record in records:
            gathered.add(record)
            if len(gathered.records) >= _RECORDS:
                change.new.append(_store(repository, gathered))
    if gathered.packs:
        change.new.append(_store(repository, gathered))
    return change


def _outdated(repository: Repository, names: Iterable[str], gone: Collection[bytes]) -> list[str]:
    old: list[str] = []
    small: list[str] = []
    for name in names:
        data = _read(repository, name)
        table, _, _ = open_index(repository.keys, name, data)
        if any(pack.name in gone for pack in _packs(table)):
            old.append(name)
        elif len(data) < _SMALL_BYTES:
            small.append(name)
    return old + small if len(small) >= _MANY_SMALL else old


class _Gathered:
    """Records for one new index object, numbered for the packs they need."""

    def __init__(self) -> None:
        self._rows: list[PackInfo | None] = []
        self.clear()

    def clear(self) -> None:
        self.packs: dict[bytes, tuple[int, PackInfo]] = {}
        self.records: list[bytes] = []

    def begin(self, rows: Iterable[PackInfo], gone: Collection[bytes]) -> None:
        self._rows = [None if row.name in gone else row for row in rows]

    def add(self, record: bytes) -> None:
        pack = self._rows[int.from_bytes(record[32:36], "big")]
        if pack is not None:
            number, _ = self.packs.setdefault(pack.name, (len(self.packs), pack))
            self.records.append(record[:32] + number.to_bytes(4, "big") + record[36:])


def _packs(table: bytes) -> Iterator[PackInfo]:
    for at in range(4, len(table), PACK_ROW_BYTES):
        row = table[at : at + PACK_ROW_BYTES]
        end = 32 + HEADER_BYTES
        yield PackInfo(row[:32], row[32:end], int.from_bytes(row[end:], "big"))


def _store(repository: Repository, gathered: _Gathered) -> str:
    packs = [pack for _, pack in gathered.packs.values()]
    name, data = seal_index(repository.keys, packs, sorted(gathered.records))
    gathered.clear()
    put_object(repository.storage, name, data)
    if repository.storage.get(name) != data:
        raise VerificationFailed(
            f"{name} cannot be read back from {repository.label} as it was stored. Nothing was deleted."
        )
    return name


def _read(repository: Repository, name: str) -> bytes:
    try:
        return repository.storage.get(name)
    except ObjectMissing as error:
        raise Damaged(f"{error} Nothing was deleted; repair the repository first.") from error
