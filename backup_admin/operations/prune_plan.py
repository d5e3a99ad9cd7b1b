"""Which packs a prune deletes and which it writes anew: a plan, nothing done."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from backup_admin.repository.chunk_ids import ChunkIds
    from backup_admin.repository.index import Index, PackInfo

_GOES, _PLAIN, _BEST = 0, 1, 2
_SMALL_SHARE = 4
_MANY_SMALL = 64


@dataclass(frozen=True, slots=True)
class PackUse:
    """How much of a pack snapshots need: chunks, and plain bytes out of all that are in it."""

    pack: PackInfo
    chunks: int
    live: int
    total: int

    @property
    def unused_bytes(self) -> int:
        """About how many stored bytes nobody needs."""
        if not self.chunks:
            return self.pack.size
        return self.pack.size * (self.total - self.live) // max(self.total, 1)


@dataclass(frozen=True, slots=True)
class Usage:
    """The use of every pack, and how many needed chunks are in none of them."""

    packs: tuple[PackUse, ...]
    lost_chunks: int


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What is to go: packs that nobody needs, and packs whose needed part is stored anew first."""

    delete: tuple[PackInfo, ...]
    rewrite: tuple[PackInfo, ...]
    kept: int
    kept_bytes: int
    unused_bytes: int
    """What of the kept packs nobody needs."""
    moved_bytes: int
    """About what is to be stored anew."""

    @property
    def freed_bytes(self) -> int:
        """About how much smaller the storage gets."""
        return sum(pack.size for pack in (*self.delete, *self.rewrite)) - self.moved_bytes


def measure_use(
    index: Index,
    needed: ChunkIds,
    *,
    ignored: Collection[bytes] = (),
    best: Collection[bytes] = (),
    going: Collection[bytes] = (),
) -> Usage:
    """Count what of each pack is needed.

    A chunk that lies in several packs counts in one of them: in the `best` when one is
    among those, in those `going` only when there is no other. Packs that are `ignored`
    hold nothing.
    """
    rows, records = index.all_records()
    numbers: dict[bytes, int] = {}
    packs: list[PackInfo] = []
    for row in rows:
        if row.name not in ignored and row.name not in numbers:
            numbers[row.name] = len(packs)
            packs.append(row)
    ranks = bytes(_BEST if p.name in best else _GOES if p.name in going else _PLAIN for p in packs)
    return _count(records, [numbers.get(row.name, -1) for row in rows], packs, ranks, needed)


def _count(
    records: Iterable[bytes], places: Sequence[int], packs: Sequence[PackInfo], ranks: bytes, needed: ChunkIds
) -> Usage:
    """Add up records that come in the order of their ids; `places` leads to their packs, or below zero."""
    chunks, live, total = (array("Q", bytes(8 * len(packs))) for _ in range(3))
    number = int.from_bytes
    last, home, counted, found = b"", -1, 0, 0
    for record in records:
        place = places[number(record[32:36], "big")]
        if place < 0:
            continue
        length = number(record[49:52], "big")
        total[place] += length
        chunk_id = record[:32]
        if chunk_id != last:
            last, home = chunk_id, -1
            if chunk_id not in needed:
                continue
            found += 1
        elif home < 0 or ranks[place] <= ranks[home]:
            continue
        else:  # it counts in a better pack than the one before
            chunks[home] -= 1
            live[home] -= counted
        home, counted = place, length
        chunks[home] += 1
        live[home] += length
    uses = zip(packs, chunks, live, total, strict=True)
    return Usage(tuple(PackUse(*use) for use in uses), len(needed) - found)


def plan_prune(packs: Iterable[PackUse], *, max_unused_percent: float, pack_bytes: int) -> PrunePlan:
    """Decide about each pack.

    Packs of which nothing is needed go. Others are written anew, those with the largest
    useless share first, until what is left unused is at most so much of the whole. Many small
    packs become few. Raises `UsageError`.
    """
    if not 0 <= max_unused_percent <= 100:
        raise UsageError("The part that may stay unused is a percentage from 0 to 100. Nothing was changed.")
    delete: list[PackInfo] = []
    kept: list[PackUse] = []
    for use in packs:
        if use.chunks:
            kept.append(use)
        else:
            delete.append(use.pack)
    rewrite = _wasteful(kept, max_unused_percent)
    names = {use.pack.name for use in rewrite}
    rewrite += _small([use for use in kept if use.pack.name not in names], pack_bytes)
    names.update(use.pack.name for use in rewrite)
    left = [use for use in kept if use.pack.name not in names]
    return PrunePlan(
        delete=tuple(delete),
        rewrite=tuple(use.pack for use in rewrite),
        kept=len(left),
        kept_bytes=sum(use.pack.size for use in left),
        unused_bytes=sum(use.unused_bytes for use in left),
        moved_bytes=sum(use.pack.size - use.unused_bytes for use in rewrite),
    )


def _wasteful(kept: Sequence[PackUse], max_unused_percent: float) -> list[PackUse]:
    unused = sum(use.unused_bytes for use in kept)
    allowed = sum(use.pack.size for use in kept) * max_unused_percent / 100
    partly = [use for use in kept if use.unused_bytes]
    partly.sort(key=lambda use: (-use.unused_bytes / use.pack.size, use.pack.name))
    chosen = []
    for use in partly:
        if unused <= allowed:
            break
        chosen.append(use)
        unused -= use.unused_bytes
    return chosen


def _small(kept: Sequence[PackUse], pack_bytes: int) -> list[PackUse]:
    """Return the small packs when together they make a large one, or are many."""
    small = [use for use in kept if use.pack.size < pack_bytes // _SMALL_SHARE]
    together = sum(use.pack.size for use in small)
    return small if together >= pack_bytes or len(small) >= _MANY_SMALL else []
