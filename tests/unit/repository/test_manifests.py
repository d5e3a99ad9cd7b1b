"""Manifests and shards are read strictly: what makes no sense is refused, never guessed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.errors import Damaged, NewerVersion
from backup_admin.core.ids import SnapshotId
from backup_admin.core.paths import sort_key
from backup_admin.repository.entries import (
    ShardWriter,
    decode_entry,
    encode_entry,
    iterate_entries,
    iterate_shards,
)
from backup_admin.repository.keys import sha256
from backup_admin.repository.manifests import manifest_frames, parse_header, parse_manifest
from backup_admin.repository.types import (
    ChunkKind,
    ChunkRef,
    Content,
    DatabaseEntry,
    FileEntry,
    FilesRoot,
    Manifest,
    SettingsEntry,
    Snapshot,
    TableEntry,
)

if TYPE_CHECKING:
    from backup_admin.repository.reader import ChunkReader

REF = ChunkRef(bytes(range(32)), 1234)
SNAPSHOT = Snapshot(
    SnapshotId("01k0000000000000000000000a"),
    datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
    "manual",
    "before the update",
    "degraded",
    "",
    2,
    300,
    1,
    4096,
    99,
    1,
)
MANIFEST = Manifest(
    SNAPSHOT,
    {"host": "server"},
    (
        DatabaseEntry(
            "app", "sqlite", "pages", "3.40", "/app.db", 4096, Content(4096, "ab" * 32, pages=REF),
            (TableEntry("photo", 3, 40, "cd"),), {"encoding": "UTF-8"},
        ),
    ),
    (FilesRoot("uploads", "/u", 0o755, 1, 2, 3, 2, 300, (REF,), ("*.tmp",)),),
    SettingsEntry(REF, ("A",), ("B",)),
    ("one is missing",),
    ("a note",),
)  # fmt: skip


class Chunks:
    """Stands for a store and a reader of manifest parts."""

    def __init__(self) -> None:
        self.parts: dict[bytes, bytes] = {}

    def put(self, data: bytes) -> ChunkRef:
        ref = ChunkRef(sha256(data), len(data))
        self.parts[ref.id] = data
        return ref

    def read(self, kind: ChunkKind, ref: ChunkRef) -> memoryview:
        assert kind is ChunkKind.MANIFEST
        return memoryview(self.parts[ref.id])


def folder(path: bytes) -> FileEntry:
    return FileEntry(path, "folder", 0, 0o755, 1, 1, 1)


def root_of(chunks: Chunks, entries: list[FileEntry]) -> FilesRoot:
    writer = ShardWriter(chunks.put)
    for entry in entries:
        writer.add(entry)
    lists = writer.finish()
    return FilesRoot("x", "/x", 0o755, 0, 0, writer.entry_count, writer.file_count, writer.size, lists)


def read(chunks: Chunks, root: FilesRoot) -> list[FileEntry]:
    reader: ChunkReader = chunks  # type: ignore[assignment]  # it only needs `read`
    return list(iterate_entries(reader, root))


def with_body(**changes: Any) -> list[bytes]:
    """Return frames whose body says something else and whose header agrees."""
    head, block = manifest_frames(MANIFEST)
    body = load_strict(zstandard.ZstdDecompressor().decompress(block[5:])) | changes
    return sealed(head, dump_canonical(body))


def sealed(head: bytes, body: bytes, *, method: int = 1, size: int | None = None) -> list[bytes]:
    length = len(body) if size is None else size
    packed = zstandard.ZstdCompressor().compress(body)
    block = bytes([method]) + length.to_bytes(4, "big") + packed
    return [dump_canonical(load_strict(head) | {"body": sha256(block).hex()}), block]


def test_a_manifest_comes_back_whole() -> None:
    assert parse_manifest(manifest_frames(MANIFEST)) == MANIFEST
    assert parse_manifest(manifest_frames(replace(MANIFEST, settings=None))).settings is None


def test_the_header_alone_is_enough_for_a_list() -> None:
    snapshot, digest = parse_header(manifest_frames(MANIFEST)[0])

    assert snapshot == SNAPSHOT
    assert digest == sha256(manifest_frames(MANIFEST)[1]).hex()


def test_a_body_that_is_not_the_one_the_header_names_is_refused() -> None:
    head, body = manifest_frames(MANIFEST)
    other = manifest_frames(replace(MANIFEST, warnings=()))[1]

    for frames in ([head, other], [head], [head, body, b""]):
        with pytest.raises(Damaged, match="does not fit its header"):
            parse_manifest(frames)


@pytest.mark.parametrize(
    "changes",
    [
        {"databases": None},
        {"databases": [{}]},
        {"files": [{"name": "x"}]},
        {"files": {"name": "x"}},
        {"settings": {"content": ["zz", 1], "names": [], "secret_names": []}},
        {"settings": {"content": ["00", 1]}},
        {"settings": 5},
        {"warnings": 1},
        {"system": 5},
    ],
)
def test_a_body_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Damaged):
        parse_manifest(with_body(**changes))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"a":1,"a":1}',
        b'{"x":NaN}',
        b'{"x":1e999}',
        b'{"x":' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'"\xff"',
    ],
)
def test_a_body_that_two_readers_could_take_differently_is_refused(body: bytes) -> None:
    with pytest.raises(Damaged):
        parse_manifest(sealed(manifest_frames(MANIFEST)[0], body))


@pytest.mark.parametrize(("method", "size"), [(0, None), (2, None), (1, 1), (1, 65 << 20), (1, 0)])
def test_a_body_of_another_kind_or_size_is_refused(method: int, size: int | None) -> None:
    with pytest.raises(Damaged):
        parse_manifest(sealed(manifest_frames(MANIFEST)[0], b"{}", method=method, size=size))


@pytest.mark.parametrize(
    "changes",
    [{"created_at": "2026-01-01"}, {"created_at": 5}, {"files": [1]}, {"files": "x"}, {"new_bytes": None}],
)
def test_a_header_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Damaged):
        parse_header(dump_canonical(load_strict(manifest_frames(MANIFEST)[0]) | changes))


@pytest.mark.parametrize("frame", [b"", b"{}", b"[]", b"null", b'{"v":1,"v":1}'])
def test_a_header_that_is_none_is_refused(frame: bytes) -> None:
    with pytest.raises(Damaged):
        parse_header(frame)


def test_a_header_of_a_newer_version_is_told_apart() -> None:
    with pytest.raises(NewerVersion):
        parse_header(dump_canonical(load_strict(manifest_frames(MANIFEST)[0]) | {"v": 2}))


ENTRIES = [
    FileEntry(b"a", "file", 5, 0o644, 7, 8, 9, Content(5, "ab" * 32, (REF,))),
    FileEntry(b"\xff\n\"", "file", 0, 0, -5, 0, 0, Content(0, "ab" * 32), b"", "1:2"),
    FileEntry("ä/b".encode(), "file", 9**9, 0o7777, 7, 8, 9, Content(9**9, "ab" * 32, (), (REF, REF))),
    FileEntry(b"db", "file", 4096, 0o600, 7, 8, 9, Content(4096, "ab" * 32, pages=REF), b"", "g"),
    FileEntry(b"l", "symlink", 3, 0o777, 7, 8, 9, None, b"\xfe/..", ""),
    FileEntry(b"l", "symlink", 3, 0o777, 7, 8, 9, None, b"x", "1:3"),
    folder(b"f"),
]  # fmt: skip


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.kind)
def test_an_entry_comes_back_as_it_was_on_one_line(entry: FileEntry) -> None:
    line = encode_entry(entry)

    assert b"\n" not in line
    assert decode_entry(line) == entry


@given(st.sets(st.binary(min_size=1, max_size=6).filter(lambda p: not {0, 46, 47} & set(p)), max_size=60))
def test_a_tree_of_any_names_comes_back_in_order(names: set[bytes]) -> None:
    chunks = Chunks()
    entries = [folder(name) for name in sorted(names, key=sort_key)]

    assert read(chunks, root_of(chunks, entries)) == entries


@pytest.mark.parametrize(
    "paths",
    [
        [b"b", b"a"],
        [b"a", b"a"],
        [b"a-", b"a/b"],
        [b".."],
        [b"a/../b"],
        [b"/etc"],
        [b"a//b"],
        [b"a\0b"],
        [b"."],
        [b"x" * 256],
    ],
)
def test_paths_doubled_out_of_order_or_leaving_their_folder_are_refused(paths: list[bytes]) -> None:
    chunks = Chunks()
    root = root_of(chunks, [folder(path) for path in paths])

    with pytest.raises(Damaged):
        read(chunks, root)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b'["a","x",0,0,0,0,0]',
        b'["a","f",0,0,0,0,0]',
        b'["a","f",0,0,0,0,0,"ab",[["zz",1]]]',
        b'["a","f",0,0,0,0,0,"ab",{"other":1}]',
        b'["a","l",0,0,0,0,0]',
        b'[{"b64":"*"},"d",0,0,0,0,0]',
        b'["a"',
        b"\xff",
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(line: bytes) -> None:
    chunks = Chunks()
    shard = chunks.put(line + b"\n")
    listed = chunks.put(dump_canonical([shard.id.hex(), shard.size, 1, "a"]) + b"\n")
    root = replace(root_of(chunks, []), shard_lists=(listed,))

    with pytest.raises(Damaged):
        read(chunks, root)


@pytest.mark.parametrize("line", [b"{}", b"[1]", b'["zz",1,1,"a"]', b'["00",1,1,{"b64":1}]', b"\xff"])
def test_a_list_of_shards_that_makes_no_sense_is_refused(line: bytes) -> None:
    chunks = Chunks()
    root = replace(root_of(chunks, []), shard_lists=(chunks.put(line + b"\n"),))

    with pytest.raises(Damaged):
        read(chunks, root)


def many(count: int, skip: int = -1) -> list[FileEntry]:
    return [folder(b"%07d" % number) for number in range(count) if number != skip]


def test_shards_have_about_a_thousand_entries_and_never_more_than_five() -> None:
    chunks = Chunks()
    root = root_of(chunks, many(40_000))
    reader: ChunkReader = chunks  # type: ignore[assignment]  # it only needs `read`

    counts = [row.count for row in iterate_shards(reader, root)]

    assert sum(counts) == 40_000
    assert 600 < sum(counts) / len(counts) < 1600
    assert max(counts) <= 5000


def test_one_entry_more_changes_one_shard_and_the_list() -> None:
    chunks = Chunks()
    root_of(chunks, many(20_000, skip=7_777))
    before = set(chunks.parts)

    root_of(chunks, many(20_000))

    assert len(set(chunks.parts) - before) == 2


def test_rows_of_much_text_end_a_shard_before_it_is_too_large() -> None:
    chunks = Chunks()
    path = b"/".join([b"\x01" * 200] * 15)
    root_of(chunks, [folder(path + b"/%05d" % number) for number in range(600)])

    assert max(map(len, chunks.parts.values())) < 4 << 20
    assert json.loads(next(iter(chunks.parts.values())).split(b"\n")[0])[1] == "d"
