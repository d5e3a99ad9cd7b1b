"""What the commit log says: the entries of the chain, and what they add up to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OPERATIONS = frozenset(
    ["snapshot", "forget", "gc-begin", "gc-delete", "gc-end", "rekey", "pin", "unpin", "config", "checkpoint"]
)
TAKING = frozenset(["gc-delete", "rekey"])
"""Operations that may take packs or objects off the books."""
_MANIFESTS = "manifests/"


@dataclass(frozen=True, slots=True)
class ChainEntry:
    """One commit. `base` is the number of the newest checkpoint before it, or 0."""

    seq: int
    op: str
    payload: Mapping[str, Any]
    actor: str
    time: str
    prev: str
    base: int = 0


@dataclass(frozen=True, slots=True)
class Head:
    """Number and digest of the newest entry."""

    seq: int
    digest: str


@dataclass(frozen=True, slots=True)
class ManifestRef:
    """Storage name and SHA-256 of the manifest of one snapshot."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Pin:
    """A snapshot that stays: for ever when `until` is empty, else up to that time (RFC 3339)."""

    snapshot: str
    until: str
    reason: str
    actor: str
    time: str


@dataclass(slots=True)
class ChainState:
    """What all entries together say.

    `collected` are packs and `doomed` other objects that an entry took off the
    books and nobody has yet confirmed to be deleted. `forgotten` are manifests that no
    snapshot needs and that are still on the books. `slots` are the key slots with
    the SHA-256 of their files, and `write_kid` the key of new objects; both empty
    until an entry names them. Objects under a key in `retired` are history.
    """

    manifests: dict[str, ManifestRef] = field(default_factory=dict)
    indexes: dict[str, None] = field(default_factory=dict)
    collected: set[str] = field(default_factory=set)
    doomed: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)
    damaged: set[str] = field(default_factory=set)
    pins: dict[str, Pin] = field(default_factory=dict)
    slots: dict[str, str] = field(default_factory=dict)
    write_kid: int = 0
    retired: set[int] = field(default_factory=set)

    def apply(self, entry: ChainEntry) -> None:
        """Take one entry into account; raise `KeyError`, `TypeError` or `ValueError`."""
        act = _ACTS.get(entry.op)
        if act is not None:
            act(self, entry)


def _snapshot(state: ChainState, entry: ChainEntry) -> None:
    snapshot = str(entry.payload["id"])
    state.manifests[snapshot] = ManifestRef(_MANIFESTS + snapshot, str(entry.payload["manifest"]))
    state.indexes.update(dict.fromkeys(map(str, entry.payload["indexes"])))


def _forget(state: ChainState, entry: ChainEntry) -> None:
    for snapshot_id in entry.payload["ids"]:
        gone = state.manifests.pop(str(snapshot_id), None)
        if gone is not None:
            state.forgotten.add(gone.name)
        state.damaged.discard(str(snapshot_id))


def _gc_delete(state: ChainState, entry: ChainEntry) -> None:
    _exchange(state, entry.payload)
    if "damaged" in entry.payload:
        state.damaged = set(map(str, entry.payload["damaged"]))


def _gc_end(state: ChainState, entry: ChainEntry) -> None:
    state.collected.difference_update(map(str, entry.payload["packs"]))
    state.doomed.difference_update(map(str, entry.payload["objects"]))


def _rekey(state: ChainState, entry: ChainEntry) -> None:
    for snapshot_id, (name, digest) in entry.payload["manifests"].items():
        state.manifests[str(snapshot_id)] = ManifestRef(str(name), str(digest))
    _exchange(state, entry.payload)


def _pin(state: ChainState, entry: ChainEntry) -> None:
    state.pins[str(entry.payload["pin"])] = Pin(
        str(entry.payload["snapshot"]),
        str(entry.payload["until"]),
        str(entry.payload["reason"]),
        entry.actor,
        entry.time,
    )


def _unpin(state: ChainState, entry: ChainEntry) -> None:
    state.pins.pop(str(entry.payload["pin"]), None)


def _config(state: ChainState, entry: ChainEntry) -> None:
    payload = entry.payload
    if "slots" in payload:
        state.slots = {str(slot): str(digest) for slot, digest in payload["slots"].items()}
    state.write_kid = int(payload.get("write_kid", state.write_kid))
    state.retired.update(map(int, payload.get("retired", ())))
    state.doomed.update(map(str, payload.get("objects", ())))


def _exchange(state: ChainState, payload: Mapping[str, Any]) -> None:
    """Take packs and objects off the books; index objects may come in their place."""
    state.collected.update(map(str, payload["packs"]))
    for name in map(str, payload.get("objects", ())):
        state.indexes.pop(name, None)
        state.forgotten.discard(name)
        state.doomed.add(name)
    state.indexes.update(dict.fromkeys(map(str, payload.get("indexes", ()))))


_ACTS: Mapping[str, Callable[[ChainState, ChainEntry], None]] = {
    "snapshot": _snapshot,
    "forget": _forget,
    "gc-delete": _gc_delete,
    "gc-end": _gc_end,
    "rekey": _rekey,
    "pin": _pin,
    "unpin": _unpin,
    "config": _config,
}
