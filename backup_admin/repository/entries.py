"""The rows of a folder tree, in shards that snapshots share.

A shard is a chunk of kind 02 with JSON lines in the order of a walk, cut where a
hash of the path says so: one added file changes one shard, and the others stay
those of the parent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.errors import Damaged
from backup_admin.core.paths import check_path, path_from_json, path_to_json, sort_key
from backup_admin.repository.types import ChunkKind, ChunkRef, Content, FileEntry, FilesRoot

if TYPE_CHECKING:
    from backup_admin.repository.reader import ChunkReader

PutPart = Callable[[bytes], ChunkRef]

_SHARD_AVERAGE = 1024
_SHARD_MAX = 5000
_SHARD_MAX_BYTES = 3 << 20
_LIST_ROWS = 4096
_CUT = (65_536 // _SHARD_AVERAGE).to_bytes(2, "big")
_KINDS = {"file": "f", "folder": "d", "symlink": "l"}
_KIND_NAMES = {letter: kind for kind, letter in _KINDS.items()}
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_decode = json.JSONDecoder().raw_decode
_FOREIGN = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError)


@dataclass(frozen=True, slots=True)
class ShardRow:
    """One shard of a folder tree: where it is, and where it begins."""

    ref: ChunkRef
    count: int
    first: bytes


@dataclass(frozen=True, slots=True)
class Run:
    """Rows of one shard of an earlier snapshot that still hold, as they were written.

    `last` is the path of the last one, `files` and `size` count the files among
    them and their bytes. `shard` is given when these are all its rows.
    """

    lines: list[bytes]
    last: bytes
    files: int
    size: int
    shard: ShardRow | None


class ShardWriter:
    """Gathers the rows of one folder tree, in order, into shards."""

    def __init__(self, put_part: PutPart) -> None:
        self._put = put_part
        self._lines: list[bytes] = []
        self._bytes = 0
        self._rows: list[ShardRow] = []
        self._lists: list[ChunkRef] = []
        self.entry_count = 0
        self.file_count = 0
        self.size = 0

    def add(self, entry: FileEntry) -> None:
        """Add the next entry of the walk."""
        is_file = entry.kind == "file"
        self._count(1, int(is_file), entry.size if is_file else 0)
        self._add_line(encode_entry(entry))
        if _is_cut(entry.path):
            self._close_shard()

    def add_run(self, run: Run) -> None:
        """Add rows of an earlier snapshot; a whole shard of it is taken as it lies there."""
        self._count(len(run.lines), run.files, run.size)
        ends_here = _is_cut(run.last)
        if run.shard is not None and not self._lines and (ends_here or _is_full(run.shard)):
            self._add_row(run.shard)
            return
        for line in run.lines:
            self._add_line(line)
        if ends_here:
            self._close_shard()

    def finish(self) -> tuple[ChunkRef, ...]:
        """Store what is left; return the chunks that list all shards."""
        self._close_shard()
        if self._rows:
            self._close_list()
        return tuple(self._lists)

    def finish_root(
        self, name: str, path: str, mode: int, mtime_ns: int, *, began_ns: int, excluded: tuple[str, ...] = ()
    ) -> FilesRoot:
        """Store what is left; return the tree that was written, begun at `began_ns`."""
        return FilesRoot(
            name=name,
            path=path,
            mode=mode,
            mtime_ns=mtime_ns,
            scan_started_ns=began_ns,
            shard_lists=self.finish(),
            entry_count=self.entry_count,
            file_count=self.file_count,
            size=self.size,
            excluded=excluded,
        )

    def _count(self, entries: int, files: int, size: int) -> None:
        self.entry_count += entries
        self.file_count += files
        self.size += size

    def _add_line(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line) + 1
        if len(self._lines) >= _SHARD_MAX or self._bytes >= _SHARD_MAX_BYTES:
            self._close_shard()

    def _close_shard(self) -> None:
        if not self._lines:
            return
        ref = self._put(b"\n".join(self._lines) + b"\n")
        first = path_from_json(json.loads(self._lines[0])[0])
        self._add_row(ShardRow(ref, len(self._lines), first))
        self._lines, self._bytes = [], 0

    def _add_row(self, row: ShardRow) -> None:
        self._rows.append(row)
        if len(self._rows) >= _LIST_ROWS:
            self._close_list()

    def _close_list(self) -> None:
        rows = [
            dump_canonical([row.ref.id.hex(), row.ref.size, row.count, path_to_json(row.first)])
            for row in self._rows
        ]
        self._lists.append(self._put(b"\n".join(rows) + b"\n"))
        self._rows = []


def iterate_shards(reader: ChunkReader, root: FilesRoot) -> Iterator[ShardRow]:
    """Yield the shards of a folder tree in order; raise `Damaged`."""
    for part in root.shard_lists:
        for line in bytes(reader.read(ChunkKind.MANIFEST, part)).splitlines():
            try:
                chunk_id, size, count, first = load_strict(line)
                ref = ChunkRef(bytes.fromhex(chunk_id), int(size))
                row = ShardRow(ref, int(count), path_from_json(first))
            except _FOREIGN as error:
                raise Damaged(f"A list of shards cannot be read: {error}.") from error
            yield row


def iterate_lines(reader: ChunkReader, root: FilesRoot) -> Iterator[tuple[ShardRow, list[bytes]]]:
    """Yield the shards of a folder tree and their rows as they were written; raise `Damaged`."""
    for row in iterate_shards(reader, root):
        lines = bytes(reader.read(ChunkKind.MANIFEST, row.ref)).split(b"\n")
        lines.pop()
        yield row, lines


def iterate_entries(reader: ChunkReader, root: FilesRoot) -> Iterator[FileEntry]:
    """Yield every entry of a folder tree in order; raise `Damaged`.

    A path twice, out of order, or one that could leave its folder is refused.
    """
    before = b""
    for _, lines in iterate_lines(reader, root):
        for line in lines:
            entry = read_entry(line)
            key = sort_key(entry.path)
            if key <= before:
                raise Damaged("A folder tree in the manifest is out of order or names a path twice.")
            before = key
            yield entry


def read_entry(line: bytes) -> FileEntry:
    """Read one entry; raise `Damaged`."""
    try:
        return decode_entry(line)
    except _FOREIGN as error:
        raise Damaged(f"An entry of a folder tree cannot be read: {error}.") from error


def encode_entry(entry: FileEntry) -> bytes:
    """Write one entry as a JSON line."""
    row: list[Any] = [
        path_to_json(entry.path),
        _KINDS[entry.kind],
        entry.size,
        entry.mode,
        entry.mtime_ns,
        entry.ctime_ns,
        entry.inode,
    ]
    if entry.content is not None:
        row += [entry.content.sha256, content_to_json(entry.content)]
    elif entry.kind == "symlink":
        row.append(path_to_json(entry.link_target))
    if entry.link_group:
        row.append(entry.link_group)
    return _encode(row).encode("utf-8")


def decode_entry(line: bytes) -> FileEntry:
    """Read one entry; raise `ValueError`, `KeyError`, `TypeError` or `IndexError`."""
    text = line.decode("utf-8")
    try:
        row, end = _decode(text)
    except RecursionError as error:
        raise ValueError("an entry nested too deeply") from error
    if end != len(text):
        raise ValueError("an entry with something behind it")
    path, letter, size, mode, mtime_ns, ctime_ns, inode, *rest = row
    if not (type(size) is type(mode) is type(mtime_ns) is type(ctime_ns) is type(inode) is int):
        raise TypeError("an entry with a number that is none")
    kind = _KIND_NAMES[letter]
    raw = path_from_json(path)
    check_path(raw)
    if kind == "file":
        if type(rest[0]) is not str:
            raise TypeError("an entry with a digest that is no text")
        content = content_from_json(size, rest[0], rest[1])
        group = str(rest[2]) if len(rest) > 2 else ""
        return FileEntry(raw, kind, size, mode, mtime_ns, ctime_ns, inode, content, b"", group)
    if kind == "symlink":
        group = str(rest[1]) if len(rest) > 1 else ""
        return FileEntry(
            raw, kind, size, mode, mtime_ns, ctime_ns, inode, None, path_from_json(rest[0]), group
        )
    return FileEntry(raw, kind, size, mode, mtime_ns, ctime_ns, inode)


def content_to_json(content: Content) -> Any:
    """Write where content lies: a list of chunks, lists of chunks, or a page map."""
    if content.pages is not None:
        return {"pages": ref_to_json(content.pages)}
    if content.chunk_lists:
        return {"lists": [ref_to_json(ref) for ref in content.chunk_lists]}
    return [ref_to_json(ref) for ref in content.chunks]


def content_from_json(size: int, digest: str, value: Any) -> Content:
    """Read what `content_to_json` wrote."""
    if isinstance(value, dict):
        if "pages" in value:
            return Content(size, digest, pages=ref_from_json(value["pages"]))
        return Content(size, digest, chunk_lists=tuple(ref_from_json(ref) for ref in value["lists"]))
    return Content(size, digest, tuple(ref_from_json(ref) for ref in value))


def ref_to_json(ref: ChunkRef) -> list[Any]:
    """Write the name and size of a chunk."""
    return [ref.id.hex(), ref.size]


def ref_from_json(value: Any) -> ChunkRef:
    """Read the name and size of a chunk."""
    chunk_id, size = value
    return ChunkRef(bytes.fromhex(chunk_id), int(size))


def _is_cut(path: bytes) -> bool:
    """Say whether a shard ends behind the entry of this path."""
    return blake3(path).digest(2) < _CUT


def _is_full(row: ShardRow) -> bool:
    return row.count >= _SHARD_MAX or row.ref.size >= _SHARD_MAX_BYTES
