"""Retire: seal everything that is under an old key anew, and drop that key.

Batch by batch: new packs and index objects are stored and read back, one entry of the
chain exchanges them for the old ones, and those are deleted. Manifests follow, then a
checkpoint, so that no older entry is needed, and last the slots. Wherever it stops, all
snapshots are readable; called again, it goes on with what is left.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from backup_admin.core.errors import (
    ChainConflict,
    Damaged,
    KeyRefused,
    ObjectMissing,
    UsageError,
)
from backup_admin.core.ids import new_ulid
from backup_admin.core.progress import QuietReporter
from backup_admin.core.shown import count_of
from backup_admin.operations.collecting import delete_collected
from backup_admin.operations.key_rotation import (
    find_holders,
    remaining_slots,
    require_none,
    rewrap_plan,
)
from backup_admin.operations.key_slots import change_slots, finish_earlier
from backup_admin.operations.scrub import scrub_packs
from backup_admin.operations.wal_archive import files_under
from backup_admin.repository.epochs import PREFIX as EPOCH_PREFIX
from backup_admin.repository.index import open_index, seal_index
from backup_admin.repository.index_file import PACK_ROW_BYTES, PackInfo
from backup_admin.repository.keys import sha256
from backup_admin.repository.manifests import PREFIX as MANIFEST_PREFIX
from backup_admin.repository.objects import HEADER_BYTES, ObjectType, object_kid, open_object, seal_object
from backup_admin.repository.packs import LOGICAL_NAME, pack_digest, pack_name
from backup_admin.repository.store import put_object

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from backup_admin.core.clock import Clock
    from backup_admin.core.progress import Reporter
    from backup_admin.core.state import StateFolder
    from backup_admin.operations.key_rotation import Holder
    from backup_admin.repository.history import ChainEntry
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.secrets import RepositorySecret

_BATCH_PACKS = 32
_BATCH_MANIFESTS = 200
_ATTEMPTS = 20
_HARMLESS = frozenset(["snapshot", "pin", "unpin", "checkpoint"])


@dataclass(frozen=True, slots=True)
class RetireOptions:
    """Which key to drop. Each slot's secret must be given, or the slot dropped too."""

    kid: int
    secrets: Sequence[RepositorySecret]
    drop: Collection[str] = ()


@dataclass(slots=True)
class RetireReport:
    """What was sealed anew; `left` are slot files that could not be deleted.

    With `problems` the key is still needed: they name the objects that could not be
    read, and nothing was dropped.
    """

    kid: int
    packs: int = 0
    indexes: int = 0
    manifests: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    notices: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class _Stale(Exception):
    """Somebody committed since everything was looked at."""


def retire(
    repository: Repository,
    options: RetireOptions,
    *,
    actor: str,
    state: StateFolder,
    reporter: Reporter,
    clock: Clock,
) -> RetireReport:
    """Seal all objects under a key anew, then drop it from every slot.

    Safe beside backups and restores; safe to repeat after an interruption. Raises
    `KeyRefused`, `UsageError`, `WrongKey`, or `Busy` while a prune works in this state folder.
    """
    with state.lock("prune"):
        finish_earlier(repository, actor=actor)
        repository.refresh()
        _require_retirable(repository, options.kid)
        holders = find_holders(repository, options.secrets)
        others = remaining_slots(repository, holders, options.drop)
        require_none(repository, others, "would keep the key")
        run = _Retirement(repository, options.kid, actor, reporter, clock)
        for _ in range(_ATTEMPTS):
            with suppress(_Stale):
                run.seal_anew()
                if not run.report.problems:
                    run.drop_key(find_holders(repository, options.secrets), options.drop)
                return run.report
            repository.refresh()
    raise ChainConflict(f"Other processes kept committing to {repository.label}; try again.")


def _require_retirable(repository: Repository, kid: int) -> None:
    if kid == repository.keys.keyring.write_kid:
        raise KeyRefused(f"Key {kid} is the one in use. Nothing was changed; run `keys rotate` first.")
    if kid not in repository.keys.keyring.epochs:
        gone = " any more" if kid in repository.history.retired else ""
        raise UsageError(f"{repository.label} has no key {kid}{gone}: `keys list` shows which it has.")
    archived = files_under(repository, kid)
    if archived:
        raise KeyRefused(
            f"{count_of(archived, 'archived WAL file')} are under key {kid}, and their names cannot be used "
            "twice. Nothing was changed. Make a new base backup, forget those before it, prune, and call "
            "this again."
        )


class _Retirement:
    def __init__(
        self, repository: Repository, kid: int, actor: str, reporter: Reporter, clock: Clock
    ) -> None:
        self._repository = repository
        self._kid = kid
        self._actor = actor
        self._reporter = reporter
        self._clock = clock
        self.report = RetireReport(kid)

    def seal_anew(self) -> None:
        """Exchange all that is under the key, until a look at everything finds nothing; raise `_Stale`."""
        self.report.problems = []
        head = None
        while head != self._repository.head and not self.report.problems:
            head = self._repository.head
            self._exchange_all()
            self._delete_old()

    def drop_key(self, holders: Sequence[Holder], drop: Collection[str]) -> None:
        """Make older entries of the chain unneeded, then write the slots without the key."""
        repository = self._repository
        clean = repository.head.seq
        repository.write_checkpoint(actor=self._actor)
        if repository.head.seq != clean + 1:
            raise _Stale
        keyring = repository.keys.without([self._kid])
        more = {"retired": sorted({*repository.history.retired, self._kid})}
        plan = replace(rewrap_plan(repository, holders, keyring, drop), objects=self._bridges(), more=more)

        def look_again(_entries: Sequence[ChainEntry]) -> None:
            raise _Stale

        change = change_slots(repository, plan, actor=self._actor, clock=self._clock, look_again=look_again)
        self.report.left = change.left

    def _exchange_all(self) -> None:
        tables = self._read_tables()
        packs = self._old_packs(tables)
        self._reporter.stage(
            "rekey", total_bytes=sum(pack.size for pack in packs.values()), total_items=len(packs)
        )
        while packs:
            names = list(packs)[:_BATCH_PACKS]
            self._exchange_packs(tables, {name: packs.pop(name) for name in names})
        self._exchange_indexes(tables, self._sealed_under_key(tables), {})
        self._exchange_manifests()

    def _read_tables(self) -> dict[str, tuple[int, list[PackInfo]]]:
        """Return of each index object the key it is sealed under and the packs in it."""
        tables = {}
        for name in self._repository.index_names():
            try:
                data = self._repository.storage.get(name)
                table, _, _ = open_index(self._repository.keys, name, data)
                tables[name] = (object_kid(data), list(_rows(table)))
            except (Damaged, ObjectMissing) as error:
                self.report.problems.append(f"{name}: {error}")
        return tables

    def _old_packs(self, tables: Mapping[str, tuple[int, list[PackInfo]]]) -> dict[bytes, PackInfo]:
        collected = self._repository.history.collected
        rows = (row for _, packs in tables.values() for row in packs)
        return {
            row.name: row
            for row in rows
            if object_kid(row.header) == self._kid and row.name.hex() not in collected
        }

    def _sealed_under_key(self, tables: Mapping[str, tuple[int, list[PackInfo]]]) -> list[str]:
        return [name for name, (kid, _) in tables.items() if kid == self._kid]

    def _exchange_packs(
        self, tables: dict[str, tuple[int, list[PackInfo]]], packs: Mapping[bytes, PackInfo]
    ) -> None:
        new: dict[bytes, PackInfo] = {}
        for pack in packs.values():
            self._reporter.check_cancelled()
            try:
                new[pack.name] = self._seal_pack(pack)
            except (Damaged, ObjectMissing) as error:
                self.report.problems.append(f"{pack_name(pack.name)}: {error}")
            self._reporter.advance(size=pack.size, items=1)
        _, _, problems = scrub_packs(self._repository, new.values(), reporter=QuietReporter())
        if problems:
            raise Damaged(
                f"What was stored cannot be read back: {problems[0].message} Nothing was taken away."
            )
        touched = [name for name, (_, rows) in tables.items() if any(row.name in new for row in rows)]
        self._exchange_indexes(tables, touched, new)
        self.report.packs += len(new)
        self.report.bytes += sum(pack.size for pack in new.values())

    def _seal_pack(self, pack: PackInfo) -> PackInfo:
        data = self._repository.storage.get(pack_name(pack.name))
        if pack_digest(data) != pack.name:
            raise Damaged("it is not what was written")
        keys = self._repository.keys
        frames = open_object(keys, ObjectType.PACK, LOGICAL_NAME, data)
        sealed = seal_object(keys, ObjectType.PACK, LOGICAL_NAME, frames)
        new = PackInfo(pack_digest(sealed), sealed[:HEADER_BYTES], len(sealed))
        put_object(self._repository.storage, pack_name(new.name), sealed)
        return new

    def _exchange_indexes(
        self,
        tables: dict[str, tuple[int, list[PackInfo]]],
        names: Sequence[str],
        packs: Mapping[bytes, PackInfo],
    ) -> None:
        """Store index objects anew, with new packs for old ones, and record the exchange."""
        if not names:
            return
        made = {}
        for name in names:
            new_name, rows = self._seal_index(name, packs)
            made[new_name] = (self._repository.keys.keyring.write_kid, rows)
        self._record(
            {
                "manifests": {},
                "packs": [name.hex() for name in packs],
                "objects": list(names),
                "indexes": list(made),
            }
        )
        for name in names:
            del tables[name]
        tables.update(made)
        self.report.indexes += len(made)

    def _seal_index(self, name: str, packs: Mapping[bytes, PackInfo]) -> tuple[str, list[PackInfo]]:
        """Store one index object anew, without packs that were collected; read it back."""
        repository = self._repository
        table, _, records = open_index(repository.keys, name, repository.storage.get(name))
        collected = repository.history.collected
        rows: list[PackInfo] = []
        numbers: dict[int, bytes] = {}
        for number, row in enumerate(_rows(table)):
            if row.name.hex() not in collected:
                numbers[number] = len(rows).to_bytes(4, "big")
                rows.append(packs.get(row.name, row))
        kept = [
            record[:32] + numbers[number] + record[36:]
            for record in records
            if (number := int.from_bytes(record[32:36], "big")) in numbers
        ]
        new_name, data = seal_index(repository.keys, rows, kept)
        put_object(repository.storage, new_name, data)
        if repository.storage.get(new_name) != data:
            raise Damaged(f"{new_name} cannot be read back as it was stored. Nothing was taken away.")
        return new_name, rows

    def _exchange_manifests(self) -> None:
        """Store manifests under the key anew, under names of their own."""
        old = [
            (snapshot, ref.name)
            for snapshot, ref in self._repository.history.manifests.items()
            if self._is_under_key(ref.name)
        ]
        for at in range(0, len(old), _BATCH_MANIFESTS):
            made: dict[str, list[str]] = {}
            gone = []
            for snapshot, name in old[at : at + _BATCH_MANIFESTS]:
                self._reporter.check_cancelled()
                try:
                    made[snapshot] = self._seal_manifest(snapshot, name)
                    gone.append(name)
                except (Damaged, ObjectMissing) as error:
                    self.report.problems.append(f"Snapshot {snapshot}: {error}")
            if made:
                self._record({"manifests": made, "packs": [], "objects": gone, "indexes": []})
            self.report.manifests += len(made)

    def _is_under_key(self, name: str) -> bool:
        try:
            return object_kid(self._repository.storage.get(name, 0, HEADER_BYTES)) == self._kid
        except ObjectMissing:
            return True  # named as a problem when it is to be read

    def _seal_manifest(self, snapshot: str, name: str) -> list[str]:
        repository = self._repository
        data = repository.storage.get(name)
        if sha256(data).hex() != repository.manifest_digest(snapshot):
            raise Damaged(f"{name} is not the manifest the chain names.")
        frames = open_object(repository.keys, ObjectType.MANIFEST, name, data)
        new_name = MANIFEST_PREFIX + new_ulid(self._clock.now())
        sealed = seal_object(repository.keys, ObjectType.MANIFEST, new_name, frames)
        put_object(repository.storage, new_name, sealed)
        if repository.storage.get(new_name) != sealed:
            raise Damaged(f"{new_name} cannot be read back as it was stored.")
        self.report.bytes += len(sealed)
        return [new_name, sha256(sealed).hex()]

    def _bridges(self) -> list[str]:
        """Return the epoch objects that whoever has the key could open."""
        storage = self._repository.storage
        names = [info.name for info in storage.list_objects(EPOCH_PREFIX)]
        return [name for name in names if object_kid(storage.get(name, 0, HEADER_BYTES)) == self._kid]

    def _record(self, payload: Mapping[str, object]) -> None:
        """Record an exchange, unless somebody took or forgot something meanwhile; raise `_Stale`."""

        def look_again(entries: Sequence[ChainEntry]) -> None:
            if any(entry.op not in _HARMLESS for entry in entries):
                raise _Stale

        self._repository.record("rekey", payload, actor=self._actor, look_again=look_again)

    def _delete_old(self) -> None:
        deleted = delete_collected(
            self._repository, (), actor=self._actor, reporter=self._reporter, now=self._clock.now()
        )
        self.report.notices = deleted.notices


def _rows(table: bytes) -> Iterator[PackInfo]:
    """Yield the rows of the pack table of an index object."""
    for at in range(4, len(table), PACK_ROW_BYTES):
        row = table[at : at + PACK_ROW_BYTES]
        end = 32 + HEADER_BYTES
        yield PackInfo(row[:32], row[32:end], int.from_bytes(row[end:], "big"))
