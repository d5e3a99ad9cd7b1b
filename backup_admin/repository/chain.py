"""The chain: the append-only commit log. A snapshot exists when an entry names it.

Entries are appended by compare-and-set: a put-if-absent of the next number. Who
loses reads what came in and decides anew. The newest entry seen is pinned in
the state folder, so that a repository that lost its tail, or an older copy put
back in its place, is noticed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.durable import replace_file
from backup_admin.core.errors import Damaged, HistoryChanged, NewerVersion, ObjectMissing, StorageError
from backup_admin.repository.history import OPERATIONS, ChainEntry, ChainState, Head
from backup_admin.repository.keys import RepositoryKeys, sha256
from backup_admin.repository.objects import ObjectType, open_object, seal_object

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from backup_admin.storage.base import Storage

PREFIX = "chain/"
NO_DIGEST = bytes(32).hex()
_MAX_ENTRY_BYTES = 4 << 20


def entry_name(seq: int) -> str:
    """Return the storage name of an entry."""
    return f"{PREFIX}{seq:020d}"


class Chain:
    """The chain of one repository as far as it has been read."""

    def __init__(self, storage: Storage, keys: RepositoryKeys, pin_file: Path | None) -> None:
        self._storage = storage
        self._keys = keys
        self._pin_file = pin_file
        self.head = Head(0, NO_DIGEST)
        self.state = ChainState()
        self.warning = ""

    def refresh(self) -> list[ChainEntry]:
        """Read what was appended since the last call.

        Probes the next numbers; needs no listing. Raises `Damaged`.
        """
        pin = self._read_pin()
        new: list[ChainEntry] = []
        while True:
            try:
                data = self._storage.get(entry_name(self.head.seq + 1), 0, _MAX_ENTRY_BYTES)
            except ObjectMissing:
                break
            entry = self._take(data)
            new.append(entry)
            if pin is not None and pin.seq == self.head.seq and pin.digest != self.head.digest:
                self.warning = f"Entry {pin.seq} of the repository's history is not the one seen before."
        if pin is not None and pin.seq > self.head.seq:
            self.warning = (
                f"The repository's history ends at entry {self.head.seq}, but {pin.seq} was seen before: "
                "snapshots were removed by hand, or an older copy of the storage was put back."
            )
        if not self.warning:
            self.pin()
        return new

    def require_history(self) -> None:
        """Raise `HistoryChanged` when the repository is not the one seen before."""
        if self.warning:
            raise HistoryChanged(
                f"{self.warning} Nothing was written. If that was done on purpose, remove {self._pin_file}."
            )

    def append(self, op: str, payload: Mapping[str, Any], *, actor: str, time: str) -> ChainEntry | None:
        """Append an entry; None when another process was first (then refresh).

        An answer that leaves doubt is settled by reading the name back.
        """
        entry = ChainEntry(self.head.seq + 1, op, payload, actor, time, self.head.digest)
        name = entry_name(entry.seq)
        body = {
            "seq": entry.seq,
            "op": op,
            "payload": payload,
            "actor": actor,
            "time": time,
            "prev": entry.prev,
            "base": entry.base,
        }
        data = seal_object(self._keys, ObjectType.CHAIN, name, [dump_canonical(body)])
        if not self._publish(name, data):
            return None
        self._take(data)
        self.pin()
        return entry

    def pin(self) -> None:
        """Remember the newest entry outside the repository."""
        if self._pin_file is not None and self.head.seq > 0:
            body = {"repo_id": self._keys.repo_id.hex(), "seq": self.head.seq, "digest": self.head.digest}
            text = dump_canonical(body)
            if not self._pin_file.exists() or self._pin_file.read_bytes() != text:
                replace_file(self._pin_file, text)

    def _publish(self, name: str, data: bytes) -> bool:
        """Put an entry; what is read back decides, whatever the answer was."""
        failure: StorageError | None = None
        try:
            self._storage.put(name, data)
        except StorageError as error:
            failure = error
        try:
            return self._storage.get(name) == data
        except ObjectMissing as error:
            raise failure or StorageError(
                f"{name} was stored in {self._storage.label} and is not there."
            ) from error

    def _take(self, data: bytes) -> ChainEntry:
        seq = self.head.seq + 1
        name = entry_name(seq)
        try:
            value = load_strict(open_object(self._keys, ObjectType.CHAIN, name, data)[0])
            entry = ChainEntry(
                int(value["seq"]),
                str(value["op"]),
                dict(value["payload"]),
                str(value["actor"]),
                str(value["time"]),
                str(value["prev"]),
                int(value["base"]),
            )
            if entry.op not in OPERATIONS:
                raise NewerVersion(f"{name} was written by a newer version; nothing was written.")
            if entry.seq != seq or entry.prev != self.head.digest:
                raise Damaged(f"{name} does not continue the chain.")
            self.state.apply(entry)
            self._keys.follow(self.state.write_kid, self.state.retired)
        except (Damaged, NewerVersion) as error:
            raise type(error)(f"{name} in {self._storage.label}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(f"{name} in {self._storage.label} cannot be read: {error}.") from error
        self.head = Head(seq, sha256(data).hex())
        return entry

    def _read_pin(self) -> Head | None:
        if self._pin_file is None or not os.path.lexists(self._pin_file):
            return None
        try:
            value = load_strict(self._pin_file.read_bytes())
            if value["repo_id"] == self._keys.repo_id.hex():
                return Head(int(value["seq"]), str(value["digest"]))
        except (ValueError, KeyError, TypeError) as error:
            raise HistoryChanged(
                f"{self._pin_file} cannot be read ({error}); it tells whether the repository lost snapshots. "
                "Remove it to go on without that check."
            ) from error
        return None
