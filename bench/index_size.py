"""Ten million chunks in the index: bytes on disk, memory, look-ups in a CPU second."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backup_admin.repository.index import Index, PackInfo, encode_record, seal_index
from backup_admin.repository.keys import Keyring, RepositoryKeys
from backup_admin.storage.local import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Iterator

_OBJECT_RECORDS = 200_000
_CHUNKS_IN_PACK = 200
_CHUNK_BYTES = 80_000
_LOOK_UPS = 300_000
_NEWEST = 3
_REPOSITORY = bytes(range(32))


@dataclass(frozen=True, slots=True)
class IndexFigures:
    """What the index of so many chunks costs; CPU in seconds."""

    chunks: int
    stored_bytes: int
    cache_bytes: int
    cache_files: int
    cold_load_cpu: float
    load_cpu: float
    heap_bytes: int
    hits_per_cpu_second: float
    misses_per_cpu_second: float


def measure_index(folder: Path, chunks: int) -> IndexFigures:
    """Store index objects for so many chunks, load them twice, and look chunks up."""
    keys = RepositoryKeys(Keyring({1: _REPOSITORY}, id_kid=1, write_kid=1), _REPOSITORY)
    storage = LocalStorage(folder / "repository")
    cache = folder / "cache"
    storage.make()
    cache.mkdir()
    names, stored = [], 0
    for seed in range(-(-chunks // _OBJECT_RECORDS)):
        name, data = seal_index(keys, *_records(seed, min(_OBJECT_RECORDS, chunks)))
        storage.put(name, data)
        names.append(name)
        stored += len(data)
    before = _heap()
    # The newest come later and stay apart, as after some days of backups.
    cold, cold_heap = _timed_load(Index(storage, keys, cache), names[:-_NEWEST])
    _timed_load(Index(storage, keys, cache), names)
    index = Index(storage, keys, cache)
    warm, warm_heap = _timed_load(index, names)
    hits, hit_heap = _look_up(index, list(_some_ids(len(names), min(_OBJECT_RECORDS, chunks))), expected=True)
    missing = random.Random("missing")
    misses, miss_heap = _look_up(index, [missing.randbytes(32) for _ in range(_LOOK_UPS)], expected=False)
    files = list(cache.iterdir())
    return IndexFigures(
        index.chunk_count(),
        stored,
        sum(path.stat().st_size for path in files),
        len(files),
        cold,
        warm,
        max(cold_heap, warm_heap, hit_heap, miss_heap) - before,
        hits,
        misses,
    )


def _records(seed: int, count: int) -> tuple[list[PackInfo], list[bytes]]:
    pack = random.Random(f"packs of {seed}")
    packs = [
        PackInfo(pack.randbytes(32), pack.randbytes(44), 1 << 24) for _ in range(-(-count // _CHUNKS_IN_PACK))
    ]
    records = [
        encode_record(
            chunk_id,
            number // _CHUNKS_IN_PACK,
            (44 + number % _CHUNKS_IN_PACK * _CHUNK_BYTES, 1, _CHUNK_BYTES, number % _CHUNKS_IN_PACK),
            (0, _CHUNK_BYTES),
        )
        for number, chunk_id in enumerate(_ids(seed, count))
    ]
    return packs, sorted(records)


def _ids(seed: int, count: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    for _ in range(count):
        yield chance.randbytes(32)


def _some_ids(objects: int, count: int) -> Iterator[bytes]:
    share = min(count, _LOOK_UPS // objects)
    for seed in range(objects):
        for number, chunk_id in enumerate(_ids(seed, count)):
            if number >= share:
                break
            yield chunk_id


def _timed_load(index: Index, names: list[str]) -> tuple[float, int]:
    begun = time.process_time()
    index.load(names, ())
    return time.process_time() - begun, _heap()


def _look_up(index: Index, chunk_ids: list[bytes], *, expected: bool) -> tuple[float, int]:
    random.Random(0).shuffle(chunk_ids)
    has = index.has
    begun = time.process_time()
    right = sum(has(chunk_id) is expected for chunk_id in chunk_ids)
    seconds = time.process_time() - begun
    if right != len(chunk_ids):
        raise SystemExit(f"the index is wrong for {len(chunk_ids) - right} of {len(chunk_ids)} chunks")
    return len(chunk_ids) / seconds, _heap()


def _heap() -> int:
    """Return the bytes this process holds that are not pages of a file."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["RssAnon"].split()[0]) << 10
