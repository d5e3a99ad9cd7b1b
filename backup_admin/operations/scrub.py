"""Reading whole packs back: the proof that what was stored can be read."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.errors import Damaged, ObjectMissing, StorageError
from backup_admin.repository.pack_proof import PackProver
from backup_admin.repository.packs import pack_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from backup_admin.core.progress import Reporter
    from backup_admin.repository.index import PackInfo
    from backup_admin.repository.keys import RepositoryKeys
    from backup_admin.repository.repository import Repository
    from backup_admin.storage.base import Storage

_THREADS = 2


@dataclass(frozen=True, slots=True)
class PackProblem:
    """A pack that is missing or damaged, and the chunks it was to hold."""

    pack: str
    message: str


def scrub_packs(
    repository: Repository, packs: Iterable[PackInfo], *, reporter: Reporter
) -> tuple[int, int, tuple[PackProblem, ...]]:
    """Read packs whole; compare name, seals and the id of every chunk.

    Returns how many were read, their bytes, and what is wrong.
    """
    scrubber = _Scrubber(repository.storage, repository.keys, reporter)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="scrub") as pool:
        results = list(pool.map(scrubber.scrub, packs))
    problems = tuple(problem for problem in results if problem is not None)
    return len(results), scrubber.bytes_read, problems


class _Scrubber:
    def __init__(self, storage: Storage, keys: RepositoryKeys, reporter: Reporter) -> None:
        self._storage = storage
        self._keys = keys
        self._reporter = reporter
        self._local = threading.local()
        self._provers: list[PackProver] = []

    @property
    def bytes_read(self) -> int:
        return sum(prover.bytes_read for prover in self._provers)

    def scrub(self, pack: PackInfo) -> PackProblem | None:
        self._reporter.check_cancelled()
        name = pack_name(pack.name)
        try:
            self._prover().prove(pack)
        except ObjectMissing:
            return PackProblem(pack.name.hex(), f"{name} is missing from the storage.")
        except (Damaged, StorageError) as error:
            return PackProblem(pack.name.hex(), f"{name} is damaged: {error}")
        self._reporter.advance(size=pack.size, items=1)
        return None

    def _prover(self) -> PackProver:
        prover: PackProver | None = getattr(self._local, "prover", None)
        if prover is None:
            prover = PackProver(self._storage, self._keys)
            self._local.prover = prover
            self._provers.append(prover)
        return prover
