"""The chain: the append-only commit log. A snapshot exists when an entry names it.

Entries are appended by compare-and-set: a put-if-absent of the next number. Who
loses reads what came in and decides anew. The newest entry seen is pinned in
the state folder, so that a repository that lost its tail, or an older copy put
back in its place, is noticed. A checkpoint now and then holds all that was said
before it: opening reads that one and what came after.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.errors import (
    Damaged,
    HistoryChanged,
    NewerVersion,
    NotDurable,
    ObjectMissing,
    StorageError,
    StorageUnavailable,
)
from backup_admin.repository.checkpoints import decode_state, encode_state, plain_state, state_bytes
from backup_admin.repository.history import OPERATIONS, TAKING, ChainEntry, ChainState, Head
from backup_admin.repository.keys import RepositoryKeys, sha256
from backup_admin.repository.objects import ObjectType, open_object, seal_object
from backup_admin.repository.seen import Seen, read_seen, write_seen
from backup_admin.storage.base import parallel_calls
from backup_admin.storage.several import Found, read_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from backup_admin.storage.base import Storage

PREFIX = "chain/"
NO_DIGEST = bytes(32).hex()
CHECKPOINT = "checkpoint"
CHECKPOINT_ENTRIES = 64
_LOOKS = 3
_TOGETHER = 2
_PIECE = 16
_MAX_ENTRY_BYTES = 64 << 20


def entry_name(seq: int) -> str:
    """Return the storage name of an entry."""
    return f"{PREFIX}{seq:020d}"


def find_last(storage: Storage, known: int = 0) -> int:
    """Return the number of an entry behind which there is none, by looking names up; needs no key.

    With entries that are not there on purpose it may be any such number.
    """
    return _last_of(lambda seq: storage.stat(entry_name(seq)) is not None, known)


def _last_of(exists: Callable[[int], bool], known: int) -> int:
    low = known if known and exists(known) else 0
    step = 1
    while exists(low + step):
        low, step = low + step, step * 2
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        if exists(middle):
            low = middle
        else:
            high = middle
    return low


class _LookedUp:
    """Entries as one look at the chain finds them, each asked for once; from far away with the next one."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._together = min(_TOGETHER, parallel_calls(storage))
        self._found: dict[int, Found | None] = {}

    def exists(self, seq: int) -> bool:
        """Say whether an entry is there; one that cannot be read may lie before all that is needed."""
        try:
            return self.read(seq) is not None
        except StorageUnavailable:
            raise
        except StorageError:
            return self._storage.stat(entry_name(seq)) is not None

    def need(self, seq: int) -> bytes:
        """Return an entry; raise `ObjectMissing`."""
        data = self.read(seq)
        if data is None:
            raise ObjectMissing(f"{entry_name(seq)} is not in {self._storage.label}.")
        return data

    def read(self, seq: int) -> bytes | None:
        """Return an entry, None when it is not there."""
        if seq not in self._found:
            self._ask(range(seq, seq + self._together))
        found = self._found[seq]
        if isinstance(found, StorageError):
            raise found
        return found

    def take(self, seq: int, last: int) -> bytes | None:
        """Return an entry that will not be asked for again; some of those up to `last` come with it."""
        if seq not in self._found and seq < last:
            self._ask(range(seq, min(seq + _PIECE, last + 1)))
        data = self.read(seq)
        self._found.pop(seq, None)
        return data

    def _ask(self, numbers: Iterable[int]) -> None:
        wanted = [seq for seq in numbers if seq not in self._found]
        read = read_each(self._storage, tuple(map(entry_name, wanted)), _MAX_ENTRY_BYTES)
        for seq, found in zip(wanted, read, strict=True):
            # An error that is kept would keep all who called, and what they hold, through its traceback.
            self._found[seq] = None if isinstance(found, ObjectMissing) else found


class Chain:
    """The chain of one repository as far as it has been read.

    `base` is the number of the newest checkpoint, `begin` that of the one it was read from.
    `takings` are the entries behind that one which took packs or objects off the books.
    """

    def __init__(self, storage: Storage, keys: RepositoryKeys, pin_file: Path | None) -> None:
        self._storage = storage
        self._keys = keys
        self._pin_file = pin_file
        self.head = Head(0, NO_DIGEST)
        self.base = self.begin = 0
        self.state = ChainState()
        self.takings: list[ChainEntry] = []
        self.warning = ""

    def refresh(self) -> list[ChainEntry]:
        """Read what was appended since the last call; at first, since the newest checkpoint.

        Looks the next numbers up by name; needs no listing. Raises `Damaged`.
        """
        seen = read_seen(self._pin_file, self._keys.repo_id)
        last = self.head.seq
        looked = _LookedUp(self._storage)
        if last == 0:
            last = _last_of(looked.exists, 0 if seen is None else seen.head.seq)
            self._begin(last, looked)
            self._compare_early(seen, looked)
        new: list[ChainEntry] = []
        for data in self._following(last, looked):
            new.append(self._take(data))
            self._compare(seen)
        if seen is not None and seen.head.seq > self.head.seq:
            ends = f"The repository's history ends at entry {self.head.seq}"
            self._warn(f"{ends}, but {seen.head.seq} was seen before", seen)
        if self.head.seq < last:
            self._warn(f"Entry {self.head.seq + 1} is missing and {last} is there", seen)
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
        return self._append(op, payload, [], actor=actor, time=time)

    def append_checkpoint(self, *, actor: str, time: str) -> ChainEntry | None:
        """Append an entry with the whole state; None when another process was first."""
        block = encode_state(self.state)
        return self._append(CHECKPOINT, {"state": sha256(block).hex()}, [block], actor=actor, time=time)

    def shorten(self, *, actor: str, time: str) -> None:
        """Append a checkpoint when the last one lies far behind; the next commit tries again."""
        if self.head.seq - self.base >= CHECKPOINT_ENTRIES:
            with suppress(StorageError):
                self.append_checkpoint(actor=actor, time=time)

    def entries(self, first: int, last: int) -> list[ChainEntry]:
        """Read some entries by their numbers; raise `ObjectMissing`, `Damaged` or `NewerVersion`."""
        return [
            self._open(seq, self._storage.get(entry_name(seq), 0, _MAX_ENTRY_BYTES))[0]
            for seq in range(first, last + 1)
        ]

    def verify(self) -> int:
        """Read every entry, compare each link and checkpoint; return how many there are.

        Entries under a key that was retired are history that cannot be read: they
        count only below a checkpoint, by the bytes the entry after them names.
        Raises `Damaged`.
        """
        state: ChainState | None = ChainState()
        before = NO_DIGEST
        for seq in range(1, self.head.seq + 1):
            try:
                data = self._storage.get(entry_name(seq), 0, _MAX_ENTRY_BYTES)
            except ObjectMissing as error:
                raise Damaged(f"{entry_name(seq)} is missing from {self._storage.label}.") from error
            digest = sha256(data).hex()
            if seq < self.base and int.from_bytes(data[8:10], "big") in self.state.retired:
                state, before = None, digest
                continue
            entry, blocks = self._open(seq, data)
            if entry.prev != before:
                raise Damaged(f"{entry_name(seq)} in {self._storage.label} does not continue the chain.")
            state = self._replay(state, entry, blocks)
            before = digest
        if state is None or state_bytes(state) != state_bytes(self.state) or before != self.head.digest:
            raise Damaged(f"The chain in {self._storage.label} does not say what was read from it before.")
        return self.head.seq

    def pin(self) -> None:
        """Remember the newest entry outside the repository, unless something is wrong with it."""
        if not self.warning:
            write_seen(self._pin_file, self._keys.repo_id, self.head, tuple(self.state.manifests))

    def _following(self, last: int, looked: _LookedUp) -> Iterator[bytes]:
        """Yield what was appended in order: up to `last`, which is there, and then as found."""
        while (data := looked.take(self.head.seq + 1, last)) is not None:
            yield data

    def _begin(self, last: int, looked: _LookedUp) -> None:
        """Take the state from the checkpoint that the last entry names."""
        while last:
            entry = self._open(last, looked.need(last))[0]
            base = last if entry.op == CHECKPOINT else entry.base
            if base == 0:
                return
            if base > last:
                raise Damaged(f"{entry_name(last)} in {self._storage.label} names a later checkpoint.")
            data = looked.read(base)
            if data is None:
                last = base - 1
                continue
            checkpoint, blocks = self._open(base, data)
            if checkpoint.op != CHECKPOINT:
                raise Damaged(f"{entry_name(base)} in {self._storage.label} is no checkpoint.")
            self.state = decode_state(blocks[0])
            self._keys.follow(self.state.write_kid, self.state.retired)
            self.base = self.begin = base
            self.head = Head(base, sha256(data).hex())
            return

    def _compare_early(self, seen: Seen | None, looked: _LookedUp) -> None:
        """Compare the entry seen before with one that lies before all that is read."""
        self._compare(seen)
        if seen is None or not 0 < seen.head.seq < self.head.seq:
            return
        if sha256(looked.read(seen.head.seq) or b"").hex() != seen.head.digest:
            self._warn(f"Entry {seen.head.seq} of the repository's history is not the one seen before", seen)

    def _compare(self, seen: Seen | None) -> None:
        if seen is not None and seen.head.seq == self.head.seq and seen.head.digest != self.head.digest:
            self._warn(f"Entry {self.head.seq} of the repository's history is not the one seen before", seen)

    def _warn(self, what: str, seen: Seen | None) -> None:
        if not self.warning:
            missing = "" if seen is None else seen.missing(self.state.manifests)
            self.warning = (
                f"{what}: snapshots were removed by hand, or an older copy of the storage was put back. "
                f"{missing}"
            ).strip()

    def _append(
        self, op: str, payload: Mapping[str, Any], blocks: list[bytes], *, actor: str, time: str
    ) -> ChainEntry | None:
        entry = ChainEntry(self.head.seq + 1, op, payload, actor, time, self.head.digest, self.base)
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
        data = seal_object(self._keys, ObjectType.CHAIN, name, [dump_canonical(body), *blocks])
        if len(data) > _MAX_ENTRY_BYTES:
            raise StorageError(
                f"{name} would have {len(data)} bytes, more than an entry may; it was not stored."
            )
        if not self._publish(entry.seq, data):
            return None
        self._take(data)
        self.pin()
        return entry

    def _publish(self, seq: int, data: bytes) -> bool:
        """Put an entry; what is read back decides, whatever the answer was.

        Only an entry that opens is another's. Who takes bytes that were torn on the way for
        another's entry would undo what his own entry made real.
        """
        name = entry_name(seq)
        failure: StorageError | None = None
        try:
            self._storage.put(name, data)
        except NotDurable:
            raise  # it can be read now, and that proves nothing
        except StorageError as error:
            failure = error
        try:
            for _ in range(_LOOKS):
                found = self._storage.get(name)
                if found == data:
                    return True
                if self._is_entry(seq, found):
                    return False
        except ObjectMissing as error:
            raise failure or StorageError(
                f"{name} was stored in {self._storage.label} and is not there."
            ) from error
        raise Damaged(
            f"{name} in {self._storage.label} cannot be read back; it may be there and may not. Nothing that "
            "it makes real was taken back. Check the storage, then try again."
        )

    def _is_entry(self, seq: int, data: bytes) -> bool:
        try:
            self._open(seq, data)
        except NewerVersion:
            return True
        except Damaged:
            return False
        return True

    def _take(self, data: bytes) -> ChainEntry:
        seq = self.head.seq + 1
        entry, _ = self._open(seq, data)
        if entry.prev != self.head.digest or entry.base != self.base:
            raise Damaged(f"{entry_name(seq)} in {self._storage.label} does not continue the chain.")
        self._apply(self.state, entry)
        self._keys.follow(self.state.write_kid, self.state.retired)
        if entry.op == CHECKPOINT:
            self.base = seq
        if entry.op in TAKING:
            self.takings.append(entry)
        self.head = Head(seq, sha256(data).hex())
        return entry

    def _replay(self, state: ChainState | None, entry: ChainEntry, blocks: list[bytes]) -> ChainState | None:
        """Return the state after an entry; None while what came before could not be read."""
        if entry.op == CHECKPOINT:
            if state is None:
                return decode_state(blocks[0])
            if plain_state(blocks[0]) != state_bytes(state):
                raise Damaged(f"{entry_name(entry.seq)} in {self._storage.label} is not what led to it.")
            return state
        if state is not None:
            self._apply(state, entry)
        return state

    def _apply(self, state: ChainState, entry: ChainEntry) -> None:
        try:
            state.apply(entry)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            name = entry_name(entry.seq)
            raise Damaged(f"{name} in {self._storage.label} cannot be read: {error}.") from error

    def _open(self, seq: int, data: bytes) -> tuple[ChainEntry, list[bytes]]:
        """Read one entry and what stands behind it, on its own; raise `Damaged` or `NewerVersion`."""
        name = entry_name(seq)
        try:
            frame, *blocks = open_object(self._keys, ObjectType.CHAIN, name, data)
            value = load_strict(frame)
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
                raise NewerVersion("It was written by a newer version; nothing was written.")
            wanted = [entry.payload["state"]] if entry.op == CHECKPOINT else []
            if entry.seq != seq or [sha256(block).hex() for block in blocks] != wanted:
                raise Damaged("It is not the entry that belongs there.")
        except (Damaged, NewerVersion) as error:
            raise type(error)(f"{name} in {self._storage.label}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise Damaged(f"{name} in {self._storage.label} cannot be read: {error}.") from error
        return entry, blocks
