"""In which chunks the pages of a shard lie, and when they had better be stored anew."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backup_admin.repository.types import ChunkRef

_MAX_EXTENTS = 512
_SMALL_CHUNK = 256 << 10
"""Smaller chunks lie in one segment with others: to read one is to decode them all."""
_MAX_SMALL_CHUNKS = 6
_MAX_STORED = 1.5
"""The most bytes of chunks a shard may lie in, as a multiple of its own."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of pages of a shard that lies together in one page chunk."""

    first: int
    count: int
    chunk: ChunkRef
    offset: int


def runs_of(pages: list[int] | range, longest: int) -> Iterator[tuple[int, int]]:
    """Give the first and the number of each run of pages that follow each other."""
    first = count = 0
    for page in pages:
        if count and (page != first + count or count == longest):
            yield first, count
            count = 0
        if not count:
            first = page
        count += 1
    if count:
        yield first, count


def pages_to_gather(extents: list[Extent], fresh: int) -> set[int]:
    """Return unchanged pages that had better be stored once more, beside `fresh` changed ones.

    Small chunks are joined as a counter carries: the smallest first, and larger ones
    only by as much as was gathered, so that a page is stored a few times in all.
    """
    live: Counter[ChunkRef] = Counter()
    for extent in extents:
        if extent.chunk.size < _SMALL_CHUNK:
            live[extent.chunk] += extent.count
    left = len(live)
    gathered: set[ChunkRef] = set()
    for chunk, pages in sorted(live.items(), key=lambda item: (item[1], item[0].id)):
        if left < _MAX_SMALL_CHUNKS and (not gathered or pages > fresh):
            break
        gathered.add(chunk)
        fresh += pages
        left -= 1
    return {
        page
        for extent in extents
        if extent.chunk in gathered
        for page in range(extent.first, extent.first + extent.count)
    }


def is_dear_to_read(
    extents: list[Extent], runs: list[tuple[int, int]], page_count: int, page_size: int
) -> bool:
    """Say whether a shard would lie in too many pieces, or in chunks with too much beside it."""
    stored = sum(chunk.size for chunk in {extent.chunk for extent in extents})
    stored += sum(count for _, count in runs) * page_size
    pieces = len(extents) + len(runs)
    return pieces > max(_MAX_EXTENTS, page_count // 2) or stored > _MAX_STORED * page_count * page_size


def keep_extents(
    extents: tuple[Extent, ...], changed: set[int], page_count: int, page_size: int
) -> list[Extent]:
    """Return where the pages lie that did not change."""
    kept: list[Extent] = []
    for extent in extents:
        numbers = range(extent.first, extent.first + extent.count)
        pages = [number for number in numbers if number not in changed and number < page_count]
        kept += [
            Extent(first, count, extent.chunk, extent.offset + (first - extent.first) * page_size)
            for first, count in runs_of(pages, extent.count)
        ]
    return kept
