"""Reading ahead from a storage that is far away: in large pieces, several at once.

Who will read chunks tells of them first, in order. What lies close together in a pack becomes one
span, a few threads load the spans in that order, and who reads finds them in memory. All of it is
a hint: a chunk nobody told of, or whose span could not be loaded, is read as ever.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from backup_admin.core.direct_io import aligned_buffer
from backup_admin.repository.packs import pack_name
from backup_admin.repository.types import MAX_SEGMENT_BYTES
from backup_admin.storage.base import Storage, get_into

if TYPE_CHECKING:
    from collections.abc import Iterator
    from mmap import mmap

    from backup_admin.repository.index import Location

_REGION_BYTES = 4 << 20
SPAN_BYTES = _REGION_BYTES + MAX_SEGMENT_BYTES + 64 * 1024
"""The most that one call reads; most calls read a region."""
_GAP_BYTES = 256 << 10  # reading so much for nothing takes less time than a call
_CALL_BYTES = 9 << 19
_FEWEST_CALLS = 6  # what is read waits for who wants it, also where few calls are made at once
_SPARE_BYTES = 512 << 10
# Threads that stored at once took turns in a pack: what lies between the chunks of one file is told of
# a little later, so that a few parts of a pack stay open.
_OPEN_BATCHES = 12
_OPEN_WHEN_IDLE = 4
_IDLE_SECONDS = 0.5

_Frame = tuple[bytes, int]


class _State(StrEnum):
    PLANNED = "planned"
    LOADING = "loading"
    LOADED = "loaded"
    DROPPED = "dropped"


@dataclass(slots=True, eq=False)
class _Span:
    """A part of a pack that one call reads; `expected` counts the chunks in it that are still to be read."""

    pack: bytes
    start: int
    end: int
    expected: int
    frames: list[int]
    state: _State = _State.PLANNED
    readers: int = 0
    memory: mmap | None = None


class Held(NamedTuple):
    """The bytes of a sealed frame, in memory that stays as it is until they are released."""

    view: memoryview
    span: _Span


class _Batch:
    """Frames of one pack that were told of and lie within the reach of one call."""

    def __init__(self, pack: bytes, start: int, end: int) -> None:
        self.pack = pack
        self.region = _region(pack, start)
        self._start, self._end = start, end
        self._ends: dict[int, int] = {}
        self.expected: dict[int, int] = {}

    def has_room(self, start: int, end: int) -> bool:
        """Say whether a frame lies within reach."""
        return max(self._end, end) - min(self._start, start) <= SPAN_BYTES

    def add(self, start: int, end: int) -> None:
        """Count a chunk in a frame."""
        self._start, self._end = min(self._start, start), max(self._end, end)
        self._ends[start] = end
        self.expected[start] = self.expected.get(start, 0) + 1

    def spans(self) -> Iterator[_Span]:
        """Yield a span for each part with no large gap between its frames."""
        span: _Span | None = None
        for start, end in sorted(self._ends.items()):
            expected = self.expected[start]
            if expected <= 0:
                continue
            if span is None or start - span.end > _GAP_BYTES:
                if span is not None:
                    yield span
                span = _Span(self.pack, start, end, 0, [])
            span.end = max(span.end, end)
            span.expected += expected
            span.frames.append(start)
        if span is not None:
            yield span


class ReadAhead:
    """Loads what will be read soon, within a bound of memory. May be used from several threads."""

    def __init__(self, storage: Storage, threads: int) -> None:
        self._storage = storage
        self._lock = threading.Lock()
        self._loadable = threading.Condition(self._lock)
        self._changed = threading.Condition(self._lock)
        self._open: dict[_Frame, _Batch] = {}
        self._frames: dict[_Frame, _Span] = {}
        self._planned: deque[_Span] = deque()
        self._held: list[_Span] = []
        self._held_bytes = 0
        self._free: list[mmap] = []
        self._most_bytes = max(threads, _FEWEST_CALLS) * _CALL_BYTES
        self._most_threads = threads
        self._threads = self._idle = 0

    def expect(self, location: Location, *, at_once: bool) -> None:
        """Tell that a chunk will be read; in the order of the calls, once for each time."""
        pack, start = location.pack.name, location.frame_offset
        end = start + location.frame_length
        if location.frame_length > SPAN_BYTES:
            return
        with self._lock:
            span = self._frames.get((pack, start))
            if span is not None:
                span.expected += 1
                return
            batch = self._open.get(_region(pack, start))
            if at_once and (batch is None or start not in batch.expected):
                batch = _Batch(pack, start, end)
                batch.add(start, end)
                self._plan(batch)
            else:
                self._batch_for(pack, start, end).add(start, end)
                if len(self._open) > _OPEN_WHEN_IDLE and not self._planned and self._has_room():
                    self._close(next(iter(self._open.values())))
            self._load_more()

    def expect_no_more(self) -> None:
        """Tell that nothing else will be told of for a while: what was begun need not grow."""
        with self._lock:
            for batch in tuple(self._open.values()):
                self._close(batch)
            self._load_more()

    def hold(self, location: Location) -> Held | None:
        """Return a sealed frame of what was loaded, or is just being; None when it has to be read."""
        with self._lock:
            batch = self._open.get(_region(location.pack.name, location.frame_offset))
            if batch is not None and location.frame_offset in batch.expected:
                self._close(batch)
            span = self._frames.get((location.pack.name, location.frame_offset))
            if span is None:
                return None
            is_ours = span.state is _State.PLANNED
            if is_ours:
                self._make_room(span.end - span.start)
                self._begin(span)
        if is_ours:
            self._load(span)
        with self._lock:
            self._changed.wait_for(lambda: span.state is not _State.LOADING)
            at = location.frame_offset - span.start
            end = at + location.frame_length
            if span.memory is None or end > span.end - span.start:
                return None
            span.readers += 1
            return Held(memoryview(span.memory)[at:end], span)

    def release(self, held: Held) -> None:
        """Say that a frame is not looked at any more."""
        with self._lock:
            held.span.readers -= 1

    def done(self, location: Location) -> None:
        """Tell that a chunk was read: with the last one of a span its memory is free."""
        with self._lock:
            span = self._frames.get((location.pack.name, location.frame_offset))
            if span is not None:
                span.expected -= 1
                if span.expected <= 0 and span.state is not _State.LOADING:
                    self._drop(span)
                    self._load_more()
                return
            batch = self._open.get(_region(location.pack.name, location.frame_offset))
            if batch is not None and location.frame_offset in batch.expected:
                batch.expected[location.frame_offset] -= 1

    def _batch_for(self, pack: bytes, start: int, end: int) -> _Batch:
        batch = self._open.get(_region(pack, start))
        if batch is not None:
            if batch.has_room(start, end):
                return batch
            self._close(batch)
        elif len(self._open) >= _OPEN_BATCHES:
            self._close(next(iter(self._open.values())))
        batch = self._open[_region(pack, start)] = _Batch(pack, start, end)
        return batch

    def _close(self, batch: _Batch) -> None:
        del self._open[batch.region]
        self._plan(batch)

    def _plan(self, batch: _Batch) -> None:
        for span in batch.spans():
            self._planned.append(span)
            self._frames.update(((span.pack, start), span) for start in span.frames)

    def _load_more(self) -> None:
        if not self._may_load():
            return
        if self._idle:
            self._loadable.notify()
        elif self._threads < self._most_threads:
            self._threads += 1
            threading.Thread(target=self._load_all, name="read-ahead", daemon=True).start()

    def _may_load(self) -> bool:
        return bool(self._planned) and self._has_room()

    def _has_room(self) -> bool:
        return self._held_bytes < self._most_bytes

    def _load_all(self) -> None:
        """Load until there is nothing to do for a while; each that begins wakes another."""
        while True:
            with self._lock:
                if not self._may_load() and not self._wait_for_work():
                    self._threads -= 1
                    return
                span = self._planned[0]
                self._begin(span)
                self._load_more()
            self._load(span)

    def _wait_for_work(self) -> bool:
        self._idle += 1
        try:
            return self._loadable.wait_for(self._may_load, _IDLE_SECONDS)
        finally:
            self._idle -= 1

    def _begin(self, span: _Span) -> None:
        self._planned.remove(span)
        self._held.append(span)
        span.state = _State.LOADING
        span.memory = self._memory(span.end - span.start)
        self._held_bytes += len(span.memory)

    def _memory(self, size: int) -> mmap:
        """Return memory for a span: what fits it well is used again, what does not makes room."""
        for memory in self._free:
            if size <= len(memory) <= size + _SPARE_BYTES:
                self._free.remove(memory)
                return memory
        size += -size % _SPARE_BYTES
        while self._free and self._held_bytes + size + sum(map(len, self._free)) > self._most_bytes:
            del self._free[0]
        return aligned_buffer(size)

    def _load(self, span: _Span) -> None:
        count = 0
        try:
            with suppress(Exception):  # who reads it asks again, and is told the reason
                if span.memory is not None:
                    view = memoryview(span.memory)[: span.end - span.start]
                    count = get_into(self._storage, pack_name(span.pack), span.start, view)
        finally:
            self._loaded(span, count)

    def _loaded(self, span: _Span, count: int) -> None:
        with self._lock:
            span.end = span.start + count
            span.state = _State.LOADED
            if count == 0 or span.expected <= 0:
                self._drop(span)
                self._load_more()
            self._changed.notify_all()

    def _make_room(self, size: int) -> None:
        """Give up what was loaded first and is still there, when readers want something else."""
        loaded = [span for span in self._held if span.state is _State.LOADED]
        for span in loaded:
            if self._held_bytes + size <= self._most_bytes + SPAN_BYTES:
                return
            self._drop(span)

    def _drop(self, span: _Span) -> None:
        if span.state is _State.PLANNED:
            self._planned.remove(span)
        elif span.memory is not None:
            self._held.remove(span)
            self._held_bytes -= len(span.memory)
            if not span.readers:
                self._free.append(span.memory)
        span.state = _State.DROPPED
        span.memory = None
        for start in span.frames:
            del self._frames[span.pack, start]


def _region(pack: bytes, offset: int) -> _Frame:
    """Return the part of a pack whose frames are read together."""
    return pack, offset // _REGION_BYTES
