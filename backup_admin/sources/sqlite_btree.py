"""Read the cells of a table from the pages of a SQLite file, without making values of them.

Part of the worker (`sqlite_worker`), for copies that nobody writes to. They may come from anywhere: no page
makes it read beyond the page, go in circles, or take memory without end.
"""

from __future__ import annotations

import os
import struct
from functools import cache
from itertools import pairwise
from operator import sub
from typing import TYPE_CHECKING

from backup_admin.sources.sqlite_open import Failure, header_page_size, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from io import FileIO

_HEADER_BYTES = 100
_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE = 2, 5, 10, 13
_HEAD = struct.Struct(">BHHHB")  # kind, first free block, cells, where they begin, scattered free bytes
_LEAF_HEAD, _INTERIOR_HEAD = 8, 12
_NUMBER = struct.Struct(">I")
_NUMBER_BYTES = 4
_LEAST_CELL = 4
"""Shorter cells are filled up to this size with bytes that mean nothing."""
_MAX_DEPTH = 40
_READ_BYTES = 256 << 10
_LONGEST_VARINT = 9
_MORE = 0x80
_LEAST_USABLE = 480


class PageFile:
    """The pages of a database file that nobody writes to."""

    def __init__(self, file: FileIO, path: str) -> None:
        """Read how large pages are; raise `Failure`."""
        self._file = file
        self._path = path
        header = os.pread(file.fileno(), _HEADER_BYTES, 0)
        self.page_size = header_page_size(header)
        self.usable = self.page_size - header[20]
        if self.usable < _LEAST_USABLE or self.page_size & (self.page_size - 1):
            raise self.damaged()
        self.count = os.fstat(file.fileno()).st_size // self.page_size
        self.at_once = max(1, _READ_BYTES // self.page_size)

    def read(self, first: int, count: int) -> memoryview:
        """Return some pages that follow each other; the first of the file has number 1. Raise `Failure`."""
        if first < 1 or first + count - 1 > self.count:
            raise self.damaged()
        size = count * self.page_size
        data = os.pread(self._file.fileno(), size, (first - 1) * self.page_size)
        if len(data) != size:
            raise self.damaged()
        return memoryview(data)

    def damaged(self) -> Failure:
        """Return what to raise when pages do not fit together."""
        return Failure("invalid", f"{shown(self._path)} is damaged: its pages do not fit together.")


class CellReader:
    """Gives the cells of one b-tree, the last first, as `sqlite_digest.digest_tables` describes them.

    Where a page was filled in order and nothing was removed from it since, as is the rule, its cells lie
    one behind the other from the last to the first: then they are given at once.
    """

    def __init__(self, file: PageFile, take: Callable[[bytes | memoryview], object]) -> None:
        """`take` gets the bytes of the cells, in pieces of any size."""
        self._file = file
        self._take = take
        self._usable = file.usable
        # What a cell keeps of a long row in its page, at least.
        self._least_local = (file.usable - 12) * 32 // 255 - 23
        self._pages_left = file.count
        self.cells = 0
        self.size = 0

    def read_tree(self, root: int) -> None:
        """Give all cells of the tree with this root; raise `Failure` when it is damaged."""
        try:
            self._read_page(self._file.read(root, 1), _MAX_DEPTH)
        except (IndexError, struct.error) as error:
            raise self._file.damaged() from error

    def _read_page(self, page: memoryview, depth: int) -> None:
        self._count_page()
        if not depth:
            raise self._file.damaged()
        kind, free, count, begin, scattered = _HEAD.unpack_from(page)
        if kind in (_LEAF_TABLE, _LEAF_INDEX):
            places = _places(count).unpack_from(page, _LEAF_HEAD)
            if free or scattered or not self._take_whole(page, places, begin):
                self._take_cells(page, places, is_table=kind == _LEAF_TABLE)
        elif kind in (_INTERIOR_TABLE, _INTERIOR_INDEX):
            places = _places(count).unpack_from(page, _INTERIOR_HEAD)
            self._read_below(page, places, depth - 1, is_table=kind == _INTERIOR_TABLE)
        else:
            raise self._file.damaged()

    def _read_below(self, page: memoryview, places: Sequence[int], depth: int, *, is_table: bool) -> None:
        numbers = [_NUMBER.unpack_from(page, place)[0] for place in (_LEAF_HEAD, *reversed(places))]
        below = self._read_pages(numbers)
        self._read_page(next(below), depth)
        for place, child in zip(reversed(places), below, strict=True):
            if not is_table:
                self._take_cells(page, (place + _NUMBER_BYTES,), is_table=False)
            self._read_page(child, depth)

    def _read_pages(self, numbers: Sequence[int]) -> Iterator[memoryview]:
        """Read pages in this order; those whose numbers go down by one are read together."""
        size, at_once = self._file.page_size, self._file.at_once
        ends = [at for at, (one, other) in enumerate(pairwise(numbers), 1) if other != one - 1]
        begin = 0
        for end in (*ends, len(numbers)):
            for first in range(begin, end, at_once):
                last = min(first + at_once, end) - 1
                data = self._file.read(numbers[last], last - first + 1)
                for offset in range((last - first) * size, -1, -size):
                    yield data[offset : offset + size]
            begin = end

    def _take_whole(self, page: memoryview, places: Sequence[int], begin: int) -> bool:
        """Give all cells of a leaf at once where no gap, no filling and no long row is among them."""
        if not places or places[-1] != begin:
            return False
        sizes = list(map(sub, (self._usable, *places), places))
        if min(sizes) <= _LEAST_CELL or max(sizes) >= self._least_local:
            return False
        self._take(page[begin : self._usable])
        self.size += self._usable - begin
        self.cells += len(places)
        return True

    def _take_cells(self, page: memoryview, places: Sequence[int], *, is_table: bool) -> None:
        usable = self._usable
        most_local = usable - 35 if is_table else (usable - 12) * 64 // 255 - 23
        waiting: list[memoryview] = []
        for place in reversed(places):
            size, at = page[place], place + 1
            if size >= _MORE:
                size, at = _read_varint(page, place)
            if is_table:
                at = _skip_varint(page, at)
            local = size if size <= most_local else self._local(size, most_local)
            if at + local > usable:
                raise self._file.damaged()
            waiting.append(page[place : at + local])
            if local < size:
                self._give(waiting)
                waiting = []
                self._take_overflow(_NUMBER.unpack_from(page, at + local)[0], size - local)
        self._give(waiting)
        self.cells += len(places)

    def _local(self, size: int, most_local: int) -> int:
        """Return how many bytes of a long row lie in its cell."""
        local = self._least_local + (size - self._least_local) % (self._usable - _NUMBER_BYTES)
        return local if local <= most_local else self._least_local

    def _take_overflow(self, number: int, left: int) -> None:
        """Give the rest of a long row; its pages are read together once two of them follow each other."""
        size, room = self._file.page_size, self._usable - _NUMBER_BYTES
        ahead = 1
        while left:
            count = min(ahead, -(-left // room), max(1, self._file.count - number + 1))
            data = self._file.read(number, count)
            first, ahead = number, min(2 * count, self._file.at_once)
            for offset in range(0, count * size, size):
                self._count_page()
                part = data[offset + _NUMBER_BYTES : offset + _NUMBER_BYTES + min(left, room)]
                self._give([part])
                left -= len(part)
                number = _NUMBER.unpack_from(data, offset)[0]
                if number != first + offset // size + 1:
                    ahead = 1
                    break

    def _count_page(self) -> None:
        """Notice when more pages were read than there are: then they refer to each other in a circle."""
        self._pages_left -= 1
        if self._pages_left < 0:
            raise self._file.damaged()

    def _give(self, parts: list[memoryview]) -> None:
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.size += len(data)
        self._take(data)


@cache
def _places(count: int) -> struct.Struct:
    return struct.Struct(f">{count}H")


def _read_varint(page: memoryview, at: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    value = 0
    for place in range(at, at + _LONGEST_VARINT - 1):
        byte = page[place]
        value = value << 7 | byte & (_MORE - 1)
        if byte < _MORE:
            return value, place + 1
    return value << 8 | page[at + _LONGEST_VARINT - 1], at + _LONGEST_VARINT


def _skip_varint(page: memoryview, at: int) -> int:
    last = at + _LONGEST_VARINT - 1
    while at < last and page[at] >= _MORE:
        at += 1
    return at + 1
