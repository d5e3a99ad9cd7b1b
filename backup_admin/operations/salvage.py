"""What can still be read of a pack that is not whole: frame by frame, each chunk by its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.errors import RepositoryError, StorageError, StorageUnavailable
from backup_admin.repository.index import PackInfo, encode_record
from backup_admin.repository.objects import HEADER_BYTES, ObjectCipher, ObjectType, check_header
from backup_admin.repository.packs import LOGICAL_NAME, decode_segment, pack_name, read_pack
from backup_admin.repository.types import MAX_SEGMENT_BYTES, ChunkKind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from backup_admin.repository.index import Index
    from backup_admin.repository.keys import RepositoryKeys
    from backup_admin.storage.base import Storage


@dataclass(frozen=True, slots=True)
class Span:
    """Where a chunk lies in its segment. The kind is found by trying."""

    id: bytes
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One segment of a pack, as an index or a table of contents gives it."""

    offset: int
    length: int
    number: int
    method: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class SoundChunk:
    """A chunk that is what its name says."""

    kind: ChunkKind
    id: bytes
    data: memoryview


def frames_of_packs(index: Index, packs: Collection[bytes]) -> dict[bytes, tuple[Frame, ...]]:
    """Return the frames of some packs as the index knows them, in the order of the packs' bytes."""
    found: dict[bytes, dict[int, Frame]] = {name: {} for name in packs}
    spans: dict[tuple[bytes, int], list[Span]] = {}
    for chunk_id, pack, place in index.iterate() if packs else ():
        if pack.name in found:
            found[pack.name].setdefault(
                place.frame_number,
                Frame(place.frame_offset, place.frame_length, place.frame_number, place.method, ()),
            )
            key = (pack.name, place.frame_number)
            spans.setdefault(key, []).append(Span(chunk_id, place.offset, place.length))
    return {
        name: tuple(
            Frame(frame.offset, frame.length, frame.number, frame.method, tuple(spans[name, number]))
            for number, frame in sorted(frames.items())
        )
        for name, frames in found.items()
    }


def frames_in_contents(
    keys: RepositoryKeys, name: bytes, data: memoryview
) -> tuple[PackInfo, tuple[Frame, ...]]:
    """Return a pack and its frames as its own table of contents gives them; raise `Damaged`.

    Needs no index: this is how a lost one is made again.
    """
    _, segments = read_pack(keys, data)
    frames = tuple(
        Frame(
            segment.frame_offset,
            segment.frame_length,
            segment.frame_number,
            segment.method,
            tuple(Span(chunk.id, chunk.offset, chunk.length) for chunk in segment.chunks),
        )
        for segment in segments
    )
    return PackInfo(name, bytes(data[:HEADER_BYTES]), len(data)), frames


def sound_chunks(
    storage: Storage, keys: RepositoryKeys, pack: PackInfo, frames: Collection[Frame]
) -> Iterator[SoundChunk]:
    """Yield every chunk of a pack that can be read and is what its name says.

    The header comes from the index or the table of contents, so damage to the
    pack's own beginning costs nothing.
    """
    check_header(pack.header, ObjectType.PACK)
    cipher = ObjectCipher(keys, pack.header, LOGICAL_NAME)
    for frame in frames:
        segment = _open_frame(storage, cipher, pack, frame)
        if segment is None:
            continue
        for span in frame.spans:
            data = memoryview(segment)[span.offset : span.offset + span.length]
            kind = _kind_of(keys, span.id, data)
            if kind is not None:
                yield SoundChunk(kind, span.id, data)


def readable_chunks(
    storage: Storage, keys: RepositoryKeys, index: Index, packs: Collection[PackInfo]
) -> dict[bytes, frozenset[bytes]]:
    """Return for each of the packs the chunks that can still be read, by reading them."""
    there = [pack for pack in packs if storage.stat(pack_name(pack.name)) is not None]
    frames = frames_of_packs(index, {pack.name for pack in there})
    found = dict.fromkeys((pack.name for pack in packs), frozenset[bytes]())
    for pack in there:
        found[pack.name] = frozenset(
            chunk.id for chunk in sound_chunks(storage, keys, pack, frames[pack.name])
        )
    return found


def records_of(number: int, frames: Collection[Frame], wanted: Collection[bytes]) -> list[bytes]:
    """Return the index records of the wanted chunks of a pack."""
    return [
        encode_record(
            span.id,
            number,
            (frame.offset, frame.method, frame.length, frame.number),
            (span.offset, span.length),
        )
        for frame in frames
        for span in frame.spans
        if span.id in wanted
    ]


def _open_frame(storage: Storage, cipher: ObjectCipher, pack: PackInfo, frame: Frame) -> bytes | None:
    """Return the plain segment, or None when it cannot be had: that is what is looked for here."""
    if frame.length > MAX_SEGMENT_BYTES + 4096:
        return None
    try:
        sealed = storage.get(pack_name(pack.name), frame.offset, frame.length)
        return decode_segment(cipher.open(sealed, frame.number, last=False), frame.method)
    except StorageUnavailable:
        raise
    except (StorageError, RepositoryError):
        return None


def _kind_of(keys: RepositoryKeys, chunk_id: bytes, data: memoryview) -> ChunkKind | None:
    return next((kind for kind in ChunkKind if keys.chunk_id(kind, data) == chunk_id), None)
