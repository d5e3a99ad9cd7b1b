"""Check a repository: is everything there that the snapshots need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.core.errors import Damaged, ObjectMissing, RepositoryError
from backup_admin.core.paths import show_path
from backup_admin.operations.captured import iterate_refs
from backup_admin.operations.results import CheckReport
from backup_admin.operations.scrub import scrub_packs
from backup_admin.repository.entries import decode_entry, iterate_shards
from backup_admin.repository.index import open_index
from backup_admin.repository.packs import PREFIX as PACK_PREFIX
from backup_admin.repository.packs import pack_name
from backup_admin.repository.types import ChunkKind, Content, FilesRoot, Manifest

if TYPE_CHECKING:
    from backup_admin.core.ids import SnapshotId
    from backup_admin.core.progress import Reporter
    from backup_admin.repository.repository import Repository

_MAX_PROBLEMS = 1000


def check_repository(repository: Repository, *, read_data: bool, reporter: Reporter) -> CheckReport:
    """Check structure, and with `read_data` every byte.

    Structure: slots, chain, index objects, manifests, and whether each chunk a
    snapshot needs lies in a pack that is there with its full size. What is
    damaged or missing is named together with the files it affects.
    """
    run = _Check(repository, reporter)
    run.check_slots()
    run.check_indexes()
    run.check_packs(read_data=read_data)
    run.check_snapshots()
    return CheckReport(
        snapshots=len(repository.snapshot_ids()),
        objects=run.objects,
        bytes_read=run.bytes_read,
        read_data=read_data,
        problems=tuple(run.problems),
        notices=tuple(run.notices),
    )


class _Check:
    def __init__(self, repository: Repository, reporter: Reporter) -> None:
        self._repository = repository
        self._reporter = reporter
        self._reader = repository.reader()
        self._seen: set[bytes] = set()
        self.objects = 0
        self.bytes_read = 0
        self.problems: list[str] = []
        self.notices: list[str] = []

    def check_slots(self) -> None:
        if self._repository.history_warning:
            self._note(self._repository.history_warning)
        try:
            self.objects += len(self._repository.slots()) + self._repository.head.seq
        except RepositoryError as error:
            self._note(str(error))

    def check_indexes(self) -> None:
        for name in self._repository.index_names():
            try:
                data = self._repository.storage.get(name)
                open_index(self._repository.keys, name, data)
                self.bytes_read += len(data)
                self.objects += 1
            except ObjectMissing:
                self._note(f"{name} is missing from the storage.")
            except RepositoryError as error:
                self._note(f"{name}: {error}")

    def check_packs(self, *, read_data: bool) -> None:
        index = self._repository.index()
        packs = list(index.packs())
        missing = self._repository.missing_packs()
        for text in missing:
            self._note(f"{pack_name(bytes.fromhex(text))} is missing from the storage or cut short.")
        index.ignore(missing)
        self._count_unknown({pack.name.hex() for pack in packs})
        if not read_data:
            self.objects += len(packs) - len(missing)
            return
        self._reporter.stage("check", total_bytes=sum(pack.size for pack in packs), total_items=len(packs))
        sound = [pack for pack in packs if pack.name.hex() not in set(missing)]
        count, size, problems = scrub_packs(self._repository, sound, reporter=self._reporter)
        self.objects += count
        self.bytes_read += size
        for problem in problems:
            self._note(problem.message)
        index.ignore(problem.pack for problem in problems)

    def check_snapshots(self) -> None:
        ids = self._repository.snapshot_ids()
        self._reporter.stage("snapshots", total_items=len(ids))
        for snapshot_id in reversed(ids):
            self._reporter.check_cancelled()
            try:
                self._check_manifest(snapshot_id, self._repository.manifest(snapshot_id))
                self.objects += 1
            except RepositoryError as error:
                self._note(f"Snapshot {snapshot_id}: {error}")
            self._reporter.advance(items=1)

    def _check_manifest(self, snapshot_id: SnapshotId, manifest: Manifest) -> None:
        for entry in manifest.databases:
            self._check_content(f"Snapshot {snapshot_id}: database {entry.name}", entry.content)
        for root in manifest.files:
            self._check_tree(snapshot_id, root)
        if manifest.settings is not None and not self._repository.index().has(manifest.settings.content.id):
            self._note(f"Snapshot {snapshot_id}: the settings are lost.")

    def _check_tree(self, snapshot_id: SnapshotId, root: FilesRoot) -> None:
        where = f"Snapshot {snapshot_id}: {root.name}"
        try:
            for row in iterate_shards(self._reader, root):
                if row.ref.id in self._seen:
                    continue
                data = bytes(self._reader.read(ChunkKind.MANIFEST, row.ref))
                for line in data.split(b"\n")[:-1]:
                    entry = decode_entry(line)
                    if entry.content is not None:
                        self._check_content(f"{where}: {show_path(entry.path)}", entry.content)
                self._seen.add(row.ref.id)
        except (Damaged, ValueError, KeyError, TypeError, IndexError) as error:
            self._note(f"{where}: its list of files cannot be read: {error}")

    def _check_content(self, where: str, content: Content) -> None:
        index = self._repository.index()
        try:
            needed = iterate_refs(self._reader, content)
            lost = sum(1 for _, ref in needed if not index.has(ref.id))
        except Damaged as error:
            self._note(f"{where}: {error}")
            return
        if lost:
            self._note(f"{where} lacks {lost} of its pieces.")

    def _count_unknown(self, known: set[str]) -> None:
        unknown = [
            info.name
            for info in self._repository.storage.list_objects(PACK_PREFIX)
            if info.name.rpartition("/")[2] not in known
        ]
        if unknown:
            self.notices.append(
                f"{len(unknown)} packs belong to no snapshot: interrupted runs left them; they do no harm."
            )

    def _note(self, problem: str) -> None:
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(problem)
