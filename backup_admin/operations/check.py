"""Check a repository: is everything there that the snapshots need."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from backup_admin.core.errors import ObjectMissing, RepositoryError
from backup_admin.operations.affected import SnapshotCheck, describe_damage, lost_from
from backup_admin.operations.key_slots import check_slots, usable_slots
from backup_admin.operations.results import CheckReport, ObjectDamage, SampleResult
from backup_admin.operations.salvage import readable_chunks
from backup_admin.operations.scrub import scrub_packs
from backup_admin.operations.wal_check import check_archives
from backup_admin.repository.index import open_index
from backup_admin.repository.packs import PREFIX as PACK_PREFIX
from backup_admin.repository.packs import pack_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backup_admin.core.clock import Clock
    from backup_admin.core.progress import Reporter
    from backup_admin.operations.sampling import Sampler
    from backup_admin.repository.index import PackInfo
    from backup_admin.repository.repository import Repository

_MAX_PROBLEMS = 1000
_BATCH = 64


def check_repository(
    repository: Repository,
    *,
    read_data: bool,
    reporter: Reporter,
    sampler: Sampler | None = None,
    clock: Clock | None = None,
) -> CheckReport:
    """Check structure, with `read_data` every byte, with a sampler a part of them.

    Structure: slots, chain, index objects, manifests, and whether each chunk a
    snapshot needs lies in a pack that is there with its full size. What is
    damaged or missing is named together with the snapshots and files it affects.
    """
    run = _Check(repository, reporter)
    run.check_history()
    run.check_indexes()
    run.check_packs()
    if read_data:
        run.read_packs()
    elif sampler is not None and clock is not None:
        run.read_sample(sampler, clock)
    run.check_snapshots()
    run.check_wal(read_data=read_data)
    return run.report(read_data=read_data)


class _Check:
    def __init__(self, repository: Repository, reporter: Reporter) -> None:
        self._repository = repository
        self._reporter = reporter
        self._packs: list[PackInfo] = []
        self._sound: list[PackInfo] = []
        self._damaged: dict[str, str] = {}
        self._damage: tuple[ObjectDamage, ...] = ()
        self._objects = 0
        self._bytes_read = 0
        self._general: list[str] = []
        self._problems: list[str] = []
        self._notices: list[str] = []
        self._sample: SampleResult | None = None

    def check_history(self) -> None:
        if self._repository.history_warning:
            self._general.append(self._repository.history_warning)
        self._general += check_slots(self._repository)
        self._objects += len(usable_slots(self._repository))
        try:
            self._objects += self._repository.verify_history()
        except RepositoryError as error:
            self._general.append(str(error))

    def check_indexes(self) -> None:
        for name in self._repository.index_names():
            try:
                data = self._repository.storage.get(name)
                _, _, records = open_index(self._repository.keys, name, data)
                deque(records, maxlen=0)  # opens every frame
                self._bytes_read += len(data)
                self._objects += 1
            except ObjectMissing:
                self._damaged[name] = f"{name} is missing from the storage."
            except RepositoryError as error:
                self._damaged[name] = f"{name} is damaged: {error}"

    def check_packs(self) -> None:
        self._packs = list(self._repository.index().packs())
        missing = set(self._repository.missing_packs())
        for text in sorted(missing):
            name = pack_name(bytes.fromhex(text))
            self._damaged[name] = f"{name} is missing from the storage or cut short."
        self._sound = [pack for pack in self._packs if pack.name.hex() not in missing]
        self._objects += len(self._sound)
        self._count_unknown({pack.name.hex() for pack in self._packs})

    def read_packs(self) -> None:
        self._scrub(self._sound)

    def read_sample(self, sampler: Sampler, clock: Clock) -> None:
        chosen = sampler.choose(self._sound)
        self._begin(chosen)
        for at in range(0, len(chosen), _BATCH):
            batch = chosen[at : at + _BATCH]
            bad = self._scrub_batch(batch)
            sampler.note(batch, bad=bad, now=clock.now())
        self._sample = sampler.result(self._sound, len(chosen))

    def check_snapshots(self) -> None:
        repository = self._repository
        index = repository.index()
        damaged = [pack for pack in self._packs if pack_name(pack.name) in self._damaged]
        readable = readable_chunks(repository.storage, repository.keys, index, damaged)
        check = SnapshotCheck(repository, repository.reader(), lost_from(index, readable))
        for snapshot_id, losses in check.check_all(self._reporter):
            self._objects += 0 if losses.unreadable else 1
            self._problems += losses.lines(snapshot_id)
        self._damage = tuple(
            check.affected.damage(name, message) for name, message in sorted(self._damaged.items())
        )

    def check_wal(self, *, read_data: bool) -> None:
        found = check_archives(self._repository, read_data=read_data, reporter=self._reporter)
        self._objects += found.objects
        self._bytes_read += found.bytes_read
        self._problems += found.problems
        self._notices += found.notices

    def report(self, *, read_data: bool) -> CheckReport:
        problems = [*self._general, *map(describe_damage, self._damage), *self._problems]
        if len(problems) > _MAX_PROBLEMS:
            more = f"and {len(problems) - _MAX_PROBLEMS:,} more problems."
            problems = [*problems[:_MAX_PROBLEMS], more]
        return CheckReport(
            snapshots=len(self._repository.snapshot_ids()),
            objects=self._objects,
            bytes_read=self._bytes_read,
            read_data=read_data,
            problems=tuple(problems),
            notices=tuple(self._notices),
            damage=self._damage,
            sample=self._sample,
        )

    def _begin(self, packs: Sequence[PackInfo]) -> None:
        total = sum(pack.size for pack in packs)
        self._reporter.stage("check", total_bytes=total, total_items=len(packs))

    def _scrub(self, packs: Sequence[PackInfo]) -> None:
        self._begin(packs)
        self._scrub_batch(packs)

    def _scrub_batch(self, packs: Sequence[PackInfo]) -> list[str]:
        _, size, problems = scrub_packs(self._repository, packs, reporter=self._reporter)
        self._bytes_read += size
        for problem in problems:
            self._damaged[pack_name(bytes.fromhex(problem.pack))] = problem.message
        return [problem.pack for problem in problems]

    def _count_unknown(self, known: set[str]) -> None:
        unknown = sum(
            1
            for info in self._repository.storage.list_objects(PACK_PREFIX)
            if info.name.rpartition("/")[2] not in known
        )
        if unknown:
            self._notices.append(
                f"Packs that belong to no snapshot: {unknown:,}. Interrupted runs left them; they do no harm."
            )
