"""A large set of chunk ids in little memory."""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_BYTES = 8
_FRESH = 1_000_000


class ChunkIds:
    """A set of ids that only grows, kept as the first eight bytes of each.

    It may take an id for another one that begins alike: use it only where one id too
    many does no harm.
    """

    def __init__(self) -> None:
        self._sorted = array("Q")
        self._fresh: set[int] = set()

    def update(self, chunk_ids: Iterable[bytes]) -> None:
        """Add ids, not very many at a time."""
        number = int.from_bytes
        self._fresh.update(number(chunk_id[:_BYTES], "big") for chunk_id in chunk_ids)
        if len(self._fresh) >= _FRESH:
            self._settle()

    def __contains__(self, chunk_id: bytes) -> bool:
        value = int.from_bytes(chunk_id[:_BYTES], "big")
        if value in self._fresh:
            return True
        at = bisect_left(self._sorted, value)
        return at < len(self._sorted) and self._sorted[at] == value

    def __len__(self) -> int:
        self._settle()
        return len(self._sorted)

    def _settle(self) -> None:
        if not self._fresh:
            return
        fresh = sorted(self._fresh)
        self._fresh = set()
        self._sorted = array("Q", _distinct(heapq.merge(self._sorted, fresh)) if self._sorted else fresh)


def _distinct(values: Iterable[int]) -> Iterator[int]:
    last = -1
    for value in values:
        if value != last:
            yield value
        last = value
