"""What damage means: which snapshots, and which of their files, lack something."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backup_admin.core.errors import Damaged, RepositoryError
from backup_admin.core.paths import show_path
from backup_admin.core.shown import count_of
from backup_admin.operations.captured import iterate_refs
from backup_admin.operations.results import ObjectDamage
from backup_admin.repository.entries import decode_entry, iterate_shards
from backup_admin.repository.packs import pack_name
from backup_admin.repository.pages import read_root, read_shard
from backup_admin.repository.types import ChunkKind, ChunkRef, Content, FilesRoot, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from backup_admin.core.ids import SnapshotId
    from backup_admin.core.progress import Reporter
    from backup_admin.repository.index import Index
    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.repository import Repository

MOST_NAMED = 20
_FOREIGN = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError)

Lost = Callable[[bytes], "str | None"]
"""For a chunk: None when it can be read, else the object that held it, or an empty text."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Something of a snapshot that is not whole; `objects` are the damaged objects that held it."""

    what: str
    why: str
    objects: frozenset[str] = frozenset()


@dataclass(slots=True)
class Losses:
    """All that one snapshot lacks: the first few by name, the others counted."""

    named: list[Loss] = field(default_factory=list)
    count: int = 0
    objects: set[str] = field(default_factory=set)
    unreadable: bool = False

    def add(self, loss: Loss) -> None:
        """Count a loss, and name it while there are few."""
        self.count += 1
        self.objects |= loss.objects
        if len(self.named) < MOST_NAMED:
            self.named.append(loss)

    def add_all(self, other: Losses) -> None:
        """Count what a part of the snapshot lacks."""
        self.count += other.count
        self.objects |= other.objects
        self.named += other.named[: MOST_NAMED - len(self.named)]

    def lines(self, snapshot: str) -> Iterator[str]:
        """Say it to a person."""
        for loss in self.named:
            yield f"Snapshot {snapshot}: {loss.what} {loss.why}"
        if self.count > len(self.named):
            more = count_of(self.count - len(self.named), "more thing")
            yield f"Snapshot {snapshot}: {more}, not named here, not whole."


class Affected:
    """Gathers for each damaged object what it affects. Files are named while they are few."""

    def __init__(self) -> None:
        self.snapshots: dict[str, dict[str, None]] = {}
        self.files: dict[str, dict[str, None]] = {}
        self.more: dict[str, int] = {}

    def add_file(self, loss: Loss) -> None:
        """Take into account what is not whole; many snapshots may share it."""
        for name in loss.objects:
            files = self.files.setdefault(name, {})
            if loss.what not in files and len(files) >= MOST_NAMED:
                self.more[name] = self.more.get(name, 0) + 1
            else:
                files[loss.what] = None

    def add_snapshot(self, snapshot: str, losses: Losses) -> None:
        """Take into account which objects a snapshot lacks something by."""
        for name in losses.objects:
            self.snapshots.setdefault(name, {})[snapshot] = None

    def damage(self, name: str, message: str) -> ObjectDamage:
        """Return what the damage of one object means."""
        return ObjectDamage(
            name,
            message,
            tuple(self.snapshots.get(name, ())),
            tuple(self.files.get(name, ())),
            self.more.get(name, 0),
        )


def describe_damage(damage: ObjectDamage) -> str:
    """Say to a person what is damaged and what that means."""
    if not damage.snapshots:
        return f"{damage.message} No snapshot lacks anything by it."
    rest = f" and {damage.more_files} more" if damage.more_files else ""
    ids = ", ".join(damage.snapshots[:3]) + (" …" if len(damage.snapshots) > 3 else "")
    about = f"{count_of(len(damage.snapshots), 'snapshot')} ({ids})"
    return f"{damage.message} It affects {about}: {', '.join(damage.files)}{rest}."


class SnapshotCheck:
    """Looks for what snapshots lack; a part that several share is looked at once."""

    def __init__(self, repository: Repository, reader: ChunkReader, lost: Lost) -> None:
        self._repository = repository
        self._reader = reader
        self._lost = lost
        self._whole: set[bytes] = set()
        self._damaged: dict[bytes, Losses] = {}
        self.affected = Affected()

    def check_all(self, reporter: Reporter) -> Iterator[tuple[SnapshotId, Losses]]:
        """Yield every snapshot with what it lacks, the newest first."""
        ids = self._repository.snapshot_ids()
        reporter.stage("snapshots", total_items=len(ids))
        for snapshot_id in reversed(ids):
            reporter.check_cancelled()
            yield snapshot_id, self.check(snapshot_id)
            reporter.advance(items=1)

    def check(self, snapshot_id: SnapshotId) -> Losses:
        """Return what one snapshot lacks."""
        losses = Losses()
        try:
            self._check_manifest(self._repository.manifest(snapshot_id), losses)
        except RepositoryError as error:
            losses.add(Loss("its manifest cannot be read:", str(error)))
            losses.unreadable = True
        self.affected.add_snapshot(snapshot_id, losses)
        return losses

    def _check_manifest(self, manifest: Manifest, losses: Losses) -> None:
        for entry in manifest.databases:
            self._check_content(f"database {entry.name}", entry.content, losses)
        for root in manifest.trees():
            self._check_tree(root, losses)
        settings = manifest.settings
        if settings is not None and (held := self._lost(settings.content.id)) is not None:
            self._note(losses, Loss("the settings", "are lost.", _objects([held])))

    def _check_tree(self, root: FilesRoot, losses: Losses) -> None:
        entries = 0
        try:
            for row in iterate_shards(self._reader, root):
                entries += row.count
                if row.ref.id in self._whole:
                    continue
                if row.ref.id not in self._damaged:
                    self._damaged[row.ref.id] = self._check_shard(root.name, row.ref, row.count)
                    if not self._damaged[row.ref.id].count:
                        del self._damaged[row.ref.id]
                        self._whole.add(row.ref.id)
                        continue
                losses.add_all(self._damaged[row.ref.id])
            if entries != root.entry_count:
                raise Damaged(f"it names {entries} entries instead of {root.entry_count}.")
        except Damaged as error:
            held = (self._lost(ref.id) for ref in root.shard_lists)
            why = f"its list of files cannot be read: {error}"
            self._note(losses, Loss(f"{root.name}:", why, _objects(held)))

    def _check_shard(self, name: str, ref: ChunkRef, count: int) -> Losses:
        losses = Losses()
        try:
            lines = bytes(self._reader.read(ChunkKind.MANIFEST, ref)).split(b"\n")[:-1]
            if len(lines) != count:
                raise Damaged(f"it names {len(lines)} entries instead of {count}.")
            for line in lines:
                entry = decode_entry(line)
                if entry.content is not None and not self._is_plainly_whole(entry.content):
                    self._check_content(f"{name}: {show_path(entry.path)}", entry.content, losses)
        except (Damaged, *_FOREIGN) as error:
            why = f"a part of its list of files ({count} entries) cannot be read: {error}"
            self._note(losses, Loss(f"{name}:", why, _objects([self._lost(ref.id)])))
        return losses

    def _is_plainly_whole(self, content: Content) -> bool:
        """Say whether all of a content of a few chunks is there; most files are, and are quickly told."""
        return (
            content.pages is None
            and not content.chunk_lists
            and all(self._lost(ref.id) is None for ref in content.chunks)
        )

    def _check_content(self, what: str, content: Content, losses: Losses) -> None:
        try:
            lost = (self._lost(ref.id) for ref in self._pieces(content))
            held = [name for name in lost if name is not None]
        except Damaged as error:
            why = f"cannot be put together: {error}"
            self._note(losses, Loss(what, why, _objects(self._parts(content))))
            return
        if held:
            self._note(losses, Loss(what, f"lacks {len(held)} of its pieces.", _objects(held)))

    def _note(self, losses: Losses, loss: Loss) -> None:
        losses.add(loss)
        self.affected.add_file(loss)

    def _pieces(self, content: Content) -> Iterator[ChunkRef]:
        """Yield the chunks of a content, but of a page map only those not known to be there."""
        if content.pages is None:
            for _, ref in iterate_refs(self._reader, content):
                yield ref
            return
        for ref in read_root(self._reader, content.pages).shards:
            if ref.id in self._whole:
                continue
            chunks = {extent.chunk for extent in read_shard(self._reader, ref).extents}
            if all(self._lost(chunk.id) is None for chunk in chunks):
                self._whole.add(ref.id)
            yield ref
            yield from chunks

    def _parts(self, content: Content) -> Iterator[str | None]:
        """Yield the objects that held lost parts of a content that cannot be listed whole."""
        if content.pages is None:
            yield from (self._lost(ref.id) for ref in content.chunk_lists)
            return
        yield self._lost(content.pages.id)
        try:
            yield from (self._lost(ref.id) for ref in read_root(self._reader, content.pages).shards)
        except Damaged:
            return  # its root is named already


def lost_from(index: Index, readable: Mapping[bytes, frozenset[bytes]]) -> Lost:
    """Return how to tell whether a chunk is lost.

    `readable` gives for each damaged pack the chunks that can still be read.
    """
    unknown = next(iter(index.lost)) if len(index.lost) == 1 else ""
    if not readable:
        return lambda chunk_id: None if index.has(chunk_id) else unknown

    def held_by(chunk_id: bytes) -> str | None:
        held = unknown
        for place in index.locations(chunk_id):
            sound = readable.get(place.pack.name)
            if sound is None or chunk_id in sound:
                return None
            held = pack_name(place.pack.name)
        return held

    return held_by


def _objects(held: Iterable[str | None]) -> frozenset[str]:
    return frozenset(name for name in held if name)
