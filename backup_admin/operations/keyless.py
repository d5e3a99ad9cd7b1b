"""Check a storage without any key: objects named by their hash must have it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backup_admin.core.errors import RepositoryError, StorageError, StorageUnavailable
from backup_admin.core.shown import count_of, show_size
from backup_admin.operations.answers import Answer
from backup_admin.repository import chain, config, manifests, packs, slots, wal
from backup_admin.repository import index as repository_index
from backup_admin.repository.objects import MAGIC

if TYPE_CHECKING:
    from backup_admin.core.progress import Reporter
    from backup_admin.storage.base import ObjectInfo, Storage

_UNTOLD = (
    "Without a key nobody can tell whether a pack or index object is missing, whether manifests and "
    "history are as they were written, and what files damage affects. `check` with a key tells."
)
_FAILED = 4
_MOST_LISTED = 1000


@dataclass(slots=True)
class KeylessReport:
    """What can be told without a key."""

    packs: int = 0
    indexes: int = 0
    manifests: int = 0
    entries: int = 0
    slots: int = 0
    bytes_read: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all that was looked at is sound."""
        return not self.problems


def check_keyless(storage: Storage, *, reporter: Reporter) -> KeylessReport:
    """Compare each pack and index object with its name; look at the rest from outside.

    Raises `StorageUnavailable`; an object that cannot be read is a problem.
    """
    run = _Keyless(storage, reporter)
    run.check_config()
    run.check_slots()
    run.check_hashes()
    run.check_chain()
    run.check_manifests()
    run.check_wal()
    return run.report


def answer_keyless(label: str, report: KeylessReport) -> Answer:
    """Answer what can be told without a key; status 4 when something is damaged."""
    about = (
        f"{count_of(report.packs, 'pack')} and {count_of(report.indexes, 'index object')} "
        f"({show_size(report.bytes_read)})"
    )
    line = f"Each of {about} in {label} has the bytes its name says."
    if not report.ok:
        line = f"{count_of(len(report.problems), 'problem')} found; {about} in {label} were read."
    shown = report.problems[:_MOST_LISTED]
    return Answer(
        result={
            "packs": report.packs,
            "indexes": report.indexes,
            "manifests": report.manifests,
            "entries": report.entries,
            "slots": report.slots,
            "bytes_read": report.bytes_read,
            "problems": shown,
            "notices": [_UNTOLD],
        },
        lines=[line],
        exit_code=0 if report.ok else _FAILED,
        notes=[f"note: {_UNTOLD}", *(f"problem: {problem}" for problem in shown)],
    )


class _Keyless:
    def __init__(self, storage: Storage, reporter: Reporter) -> None:
        self._storage = storage
        self._reporter = reporter
        self.report = KeylessReport()

    def check_config(self) -> None:
        try:
            config.read_config(self._storage)
        except RepositoryError as error:
            self._note(str(error))

    def check_slots(self) -> None:
        try:
            self.report.slots = len(slots.list_slots(self._storage))
        except RepositoryError as error:
            self._note(str(error))
        else:
            if not self.report.slots:
                self._note("There is no key slot: no key can open this repository.")

    def check_hashes(self) -> None:
        objects = [
            *self._storage.list_objects(packs.PREFIX),
            *self._storage.list_objects(repository_index.PREFIX),
        ]
        self._reporter.stage(
            "check", total_bytes=sum(info.size for info in objects), total_items=len(objects)
        )
        for info in objects:
            self._reporter.check_cancelled()
            self._check_hash(info)
            self._reporter.advance(size=info.size, items=1)

    def check_chain(self) -> None:
        """Numbers without a gap, and objects that begin as ours do."""
        for number, info in enumerate(self._storage.list_objects(chain.PREFIX), start=1):
            self.report.entries += 1
            if info.name != chain.entry_name(number):
                self._note(f"{chain.entry_name(number)} is missing: the history ends there for every reader.")
                return
            self._check_magic(info.name)

    def check_manifests(self) -> None:
        for info in self._storage.list_objects(manifests.PREFIX):
            self.report.manifests += 1
            self._check_magic(info.name)

    def check_wal(self) -> None:
        """See that archived files begin as objects of ours do; more cannot be told without a key."""
        for info in self._storage.list_objects(wal.PREFIX):
            self._check_magic(info.name)

    def _check_hash(self, info: ObjectInfo) -> None:
        is_pack = info.name.startswith(packs.PREFIX)
        if is_pack:
            self.report.packs += 1
        else:
            self.report.indexes += 1
        data = self._read(info.name, None)
        if data is None:
            return
        self.report.bytes_read += len(data)
        digest = packs.pack_digest(data)
        expected = packs.pack_name(digest) if is_pack else repository_index.PREFIX + digest.hex()
        if info.name != expected:
            self._note(f"{info.name} is damaged: its name does not fit its bytes.")

    def _check_magic(self, name: str) -> None:
        data = self._read(name, len(MAGIC))
        if data is not None and data != MAGIC:
            self._note(f"{name} does not begin as an object of this product does.")

    def _read(self, name: str, length: int | None) -> bytes | None:
        try:
            return self._storage.get(name, 0, length)
        except StorageUnavailable:
            raise
        except StorageError as error:
            self._note(f"{name} cannot be read: {error}")
            return None

    def _note(self, problem: str) -> None:
        self.report.problems.append(problem)
