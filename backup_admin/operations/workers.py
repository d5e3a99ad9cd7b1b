"""The threads that read and store content, each with buffers of its own.

Every heavy step (reading, hashing, compressing, sealing) releases the
interpreter's lock, so threads are enough and nothing is copied between
processes.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

from backup_admin.repository.content_writer import ContentWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from backup_admin.repository.repository import Repository
    from backup_admin.repository.store import ChunkStore

Result = TypeVar("Result")
_LARGE = 256 << 10


class ContentWorkers:
    """Threads with a content writer in each, which are given work by its bytes."""

    def __init__(self, repository: Repository, store: ChunkStore, *, threads: int = 2) -> None:
        self._repository = repository
        self._store = store
        self._local = threading.local()
        self._lock = threading.Lock()
        self._waiting = [0] * threads
        self._pools = [
            ThreadPoolExecutor(1, thread_name_prefix=f"content-{number}") for number in range(threads)
        ]
        self.threads = threads

    def submit(self, work: Callable[[ContentWriter], Result], *, size: int, files: int = 1) -> Future[Result]:
        """Run a piece of work on so many bytes of so many files.

        Many small files are for the first thread alone: two threads that open and read
        them wait for each other at the interpreter's lock, and took a fifth more time.
        """
        with self._lock:
            is_small = size < _LARGE * files
            number = 0 if is_small else min(range(self.threads), key=self._waiting.__getitem__)
            self._waiting[number] += size
        future = self._pools[number].submit(lambda: work(self._writer()))
        future.add_done_callback(lambda _: self._done(number, size))
        return future

    def shut_down(self) -> None:
        """Wait for what runs; what has not begun never does."""
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in self._pools:
            pool.shutdown(wait=True)

    def _done(self, number: int, size: int) -> None:
        with self._lock:
            self._waiting[number] -= size

    def _writer(self) -> ContentWriter:
        writer: ContentWriter | None = getattr(self._local, "writer", None)
        if writer is None:
            parameters = self._repository.config.parameters
            writer = ContentWriter(self._store.writer(), self._repository.keys, parameters)
            self._local.writer = writer
        return writer


class InOrder(Generic[Result]):
    """Hands results on in the order the work was given, with a bound on what is under way."""

    def __init__(self, emit: Callable[[Result], None], *, limit: int) -> None:
        self._emit = emit
        self._limit = limit
        self._waiting: deque[Future[Result]] = deque()

    @property
    def is_idle(self) -> bool:
        """Say whether all results were handed on."""
        return not self._waiting

    def add(self, future: Future[Result]) -> None:
        """Add work; waits for the oldest when too much is under way."""
        self._waiting.append(future)
        while len(self._waiting) > self._limit:
            self._emit(self._waiting.popleft().result())

    def finish(self) -> None:
        """Wait for all that is left."""
        while self._waiting:
            self._emit(self._waiting.popleft().result())
