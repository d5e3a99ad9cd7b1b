"""Reading several objects: at once where a storage is far away."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from backup_admin.core.errors import StorageError
from backup_admin.storage.base import parallel_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from backup_admin.storage.base import Storage

Found = bytes | StorageError
T = TypeVar("T")


def read_each(storage: Storage, names: Sequence[str], most_bytes: int) -> Iterator[Found]:
    """Yield in order what each object holds, or why it cannot be read."""
    calls = min(parallel_calls(storage), len(names))
    read = partial(_read, storage, most_bytes)
    if calls <= 1:
        yield from map(read, names)
        return
    for at in range(0, len(names), calls):
        yield from _at_once(read, names[at : at + calls])


def begin(storage: Storage, ask: Callable[[], T]) -> Callable[[], T]:
    """Ask a storage something; where it is far away the question is under way until the answer is wanted."""
    if parallel_calls(storage) <= 1:
        return ask
    answers: list[T] = []
    failures: list[BaseException] = []

    def keep() -> None:
        try:
            answers.append(ask())
        except BaseException as error:  # noqa: BLE001
            # raised by who wants the answer
            failures.append(error)

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()

    def answer() -> T:
        thread.join()
        if failures:
            raise failures[0]
        return answers[0]

    return answer


def _at_once(read: Callable[[str], Found], names: Sequence[str]) -> list[Found]:
    """Read each name in a thread of its own: a pool takes longer to load than `list` takes."""
    found: list[Found] = [StorageError("The reading of an object ended unexpectedly.")] * len(names)

    def keep(number: int, name: str) -> None:
        found[number] = read(name)

    threads = [threading.Thread(target=keep, args=each, daemon=True) for each in enumerate(names)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _read(storage: Storage, most_bytes: int, name: str) -> Found:
    try:
        return storage.get(name, 0, most_bytes)
    except StorageError as error:
        return error
