"""Mend the chain where entries are missing or damaged, so that it can be read again.

What a lost entry said is known to nobody. Manifests that no entry names and that were
made in the time between its neighbours are taken for what it committed; else the place
is filled with an entry that says nothing. The entries behind it are written anew with the right link.
This is the one place where objects of a repository are replaced.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from backup_admin.core.canonical import dump_canonical
from backup_admin.core.clock import format_time
from backup_admin.core.errors import Damaged, ObjectMissing, RepositoryError, VerificationFailed
from backup_admin.repository import manifests
from backup_admin.repository.chain import CHECKPOINT, NO_DIGEST, PREFIX, Chain, entry_name
from backup_admin.repository.history import ChainEntry
from backup_admin.repository.keys import RepositoryKeys, sha256
from backup_admin.repository.objects import ObjectType, open_object, seal_object

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backup_admin.core.clock import Clock
    from backup_admin.repository.types import Snapshot
    from backup_admin.storage.base import Storage

_QUARANTINE = "quarantine/"
_EMPTY = "gc-begin"


@dataclass(frozen=True, slots=True)
class Relink:
    """What has to be written: entries in the place of others, and what they say."""

    lost: tuple[int, ...]
    found: Mapping[int, str]
    write: tuple[ChainEntry, ...]

    @property
    def is_needed(self) -> bool:
        """Whether the chain cannot be read as it is."""
        return bool(self.write)


def plan_relink(storage: Storage, keys: RepositoryKeys, clock: Clock) -> Relink:
    """Say which entries have to be written; reads only. Raises `NewerVersion`."""
    chain = Chain(storage, keys, None)
    entries = _read_entries(storage, chain)
    base = max((seq for seq, entry in entries.items() if entry and entry.op == CHECKPOINT), default=0)
    behind = {seq: entry for seq, entry in sorted(entries.items()) if seq > base}
    lost = tuple(seq for seq, entry in behind.items() if entry is None)
    found = _find_snapshots(storage, keys, entries, lost)
    digest = sha256(storage.get(entry_name(base))).hex() if base else NO_DIGEST
    write: list[ChainEntry] = []
    for seq, entry in behind.items():
        wanted = entry or _substitute(seq, found.get(seq), format_time(clock.now()))
        # What follows an entry that is written gets its digest only then.
        if entry is None or write or entry.prev != digest or entry.base != base:
            write.append(replace(wanted, base=base))
        else:
            digest = sha256(storage.get(entry_name(seq))).hex()
    return Relink(lost, {seq: snapshot for seq, (snapshot, _) in found.items()}, tuple(write))


def carry_out_relink(storage: Storage, keys: RepositoryKeys, plan: Relink) -> None:
    """Write the entries, the first one first; what was there is copied to quarantine before.

    When it is interrupted the next plan goes on where this one ended.
    """
    for entry in plan.write:
        try:
            storage.put(_QUARANTINE + entry_name(entry.seq), storage.get(entry_name(entry.seq)))
        except ObjectMissing:
            continue
    before = plan.write[0].seq - 1
    digest = sha256(storage.get(entry_name(before))).hex() if before else NO_DIGEST
    for entry in plan.write:
        name = entry_name(entry.seq)
        body: dict[str, Any] = {
            "seq": entry.seq,
            "op": entry.op,
            "payload": entry.payload,
            "actor": entry.actor,
            "time": entry.time,
            "prev": digest,
            "base": entry.base,
        }
        data = seal_object(keys, ObjectType.CHAIN, name, [dump_canonical(body)])
        storage.put(name, data, if_absent=False)
        if storage.get(name) != data:
            raise VerificationFailed(f"{name} in {storage.label} is not what was written; run repair again.")
        digest = sha256(data).hex()


def _read_entries(storage: Storage, chain: Chain) -> dict[int, ChainEntry | None]:
    """Return every entry up to the last that is there; None for one that cannot be read."""
    names = [info.name.removeprefix(PREFIX) for info in storage.list_objects(PREFIX)]
    last = max((int(name) for name in names if name.isdigit()), default=0)
    entries: dict[int, ChainEntry | None] = {}
    for seq in range(1, last + 1):
        try:
            (entries[seq],) = chain.entries(seq, seq)
        except (Damaged, ObjectMissing):
            entries[seq] = None
    return entries


def _find_snapshots(
    storage: Storage,
    keys: RepositoryKeys,
    entries: Mapping[int, ChainEntry | None],
    lost: Sequence[int],
) -> dict[int, tuple[str, str]]:
    """Return for lost entries the snapshots, with their digests, that they must have committed."""
    if not lost:
        return {}
    named = {
        str(entry.payload.get("id"))
        for entry in entries.values()
        if entry is not None and entry.op == "snapshot"
    }
    unnamed = [found for found in _read_manifests(storage, keys) if found[0].id not in named]
    result: dict[int, tuple[str, str]] = {}
    for window, group in groupby(lost, lambda seq: _times_around(entries, seq)):
        places = list(group)
        fit = sorted(
            (snapshot.id, digest)
            for snapshot, digest in unnamed
            if window[0] <= format_time(snapshot.created_at) <= window[1]
        )
        if len(fit) <= len(places):  # else some were never committed, and nobody knows which
            result |= dict(zip(places, fit, strict=False))
    return result


def _read_manifests(storage: Storage, keys: RepositoryKeys) -> list[tuple[Snapshot, str]]:
    found = []
    for info in storage.list_objects(manifests.PREFIX):
        try:
            data = storage.get(info.name)
            frames = open_object(keys, ObjectType.MANIFEST, info.name, data)
            snapshot = manifests.parse_manifest(frames).snapshot
        except (RepositoryError, ObjectMissing):
            continue  # nobody can commit what cannot be read
        if info.name == manifests.manifest_name(snapshot.id):
            found.append((snapshot, sha256(data).hex()))
    return found


def _times_around(entries: Mapping[int, ChainEntry | None], seq: int) -> tuple[str, str]:
    earlier = (entry for number, entry in sorted(entries.items(), reverse=True) if number < seq)
    later = (entry for number, entry in sorted(entries.items()) if number > seq)
    before = next((entry.time for entry in earlier if entry is not None), "")
    return before, next((entry.time for entry in later if entry is not None), "~")


def _substitute(seq: int, found: tuple[str, str] | None, time: str) -> ChainEntry:
    if found is None:
        return ChainEntry(seq, _EMPTY, {"lost": seq}, "repair", time, NO_DIGEST)
    payload = {"id": found[0], "manifest": found[1], "indexes": []}
    return ChainEntry(seq, "snapshot", payload, "repair", time, NO_DIGEST)
