"""Reading several objects: at once where a storage is far away."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from backup_admin.core.errors import StorageError
from backup_admin.storage.base import parallel_calls

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backup_admin.storage.base import Storage


def read_each(storage: Storage, names: Sequence[str], most_bytes: int) -> Iterator[bytes | StorageError]:
    """Yield in order what each object holds, or why it cannot be read."""
    calls = min(parallel_calls(storage), len(names))
    read = partial(_read, storage, most_bytes)
    if calls <= 1:
        yield from map(read, names)
        return
    with ThreadPoolExecutor(calls, thread_name_prefix="read-each") as pool:
        for at in range(0, len(names), calls):
            yield from pool.map(read, names[at : at + calls])


def _read(storage: Storage, most_bytes: int, name: str) -> bytes | StorageError:
    try:
        return storage.get(name, 0, most_bytes)
    except StorageError as error:
        return error
