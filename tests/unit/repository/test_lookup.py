"""Looking something up in a folder tree reads only what can hold it, and finds what a whole walk finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import Damaged
from backup_admin.core.paths import sort_key
from backup_admin.repository.entries import ShardWriter, encode_entry, iterate_entries, iterate_shards
from backup_admin.repository.keys import sha256
from backup_admin.repository.lookup import branch_entries, entries_below, find_entry, list_folder
from backup_admin.repository.reader import ChunkReader
from backup_admin.repository.types import ChunkKind, ChunkRef, FileEntry, FilesRoot

if TYPE_CHECKING:
    from collections.abc import Iterable


class Parts(ChunkReader):
    """Parts of a manifest in memory; `reads` tells which were wanted."""

    def __init__(self) -> None:
        self.parts: dict[bytes, bytes] = {}
        self.reads: list[ChunkRef] = []

    def put(self, data: bytes) -> ChunkRef:
        ref = ChunkRef(sha256(data), len(data))
        self.parts[ref.id] = data
        return ref

    def read(self, kind: ChunkKind, ref: ChunkRef) -> memoryview:
        assert kind is ChunkKind.MANIFEST
        self.reads.append(ref)
        return memoryview(self.parts[ref.id])


def entry(path: bytes) -> FileEntry:
    kind = "folder" if path.endswith(b"/") else "symlink"
    return FileEntry(
        path.rstrip(b"/"), kind, 0, 0o755, 1, 2, 3, link_target=b"" if kind == "folder" else b"x"
    )


def root_of(lists: Iterable[ChunkRef]) -> FilesRoot:
    return FilesRoot("uploads", "/srv", 0o755, 1, 1, 0, 0, 0, tuple(lists))


def store(parts: Parts, entries: Iterable[FileEntry]) -> FilesRoot:
    writer = ShardWriter(parts.put)
    for one in sorted(entries, key=lambda one: sort_key(one.path)):
        writer.add(one)
    return root_of(writer.finish())


def branches(count: int) -> list[FileEntry]:
    """Return folders of 500 entries each, and siblings that sort between a folder and its content."""
    found = []
    for number in range(count):
        name = b"%03d" % number
        found += [entry(name + b"/"), entry(name + b" beside"), entry(name + b".txt"), entry(name + b"\xff")]
        found += [entry(name + b"/in/")]
        found += [entry(name + b"/in/%04d" % at) for at in range(500)]
    return found


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree in memory, and what is in it."""

    parts: Parts
    root: FilesRoot
    entries: list[FileEntry]


@pytest.fixture(scope="module")
def tree() -> Tree:
    entries = sorted(branches(30), key=lambda one: sort_key(one.path))
    parts = Parts()
    return Tree(parts, store(parts, entries), entries)


@pytest.fixture
def parts() -> Parts:
    return Parts()


def test_every_entry_is_found_and_nothing_else(tree: Tree) -> None:
    parts, root, entries = tree.parts, tree.root, tree.entries

    assert [find_entry(parts, root, one.path) for one in entries[::211]] == entries[::211]
    assert find_entry(parts, root, entries[0].path) == entries[0]
    assert find_entry(parts, root, entries[-1].path) == entries[-1]
    for missing in (b"a", b"000/i", b"000/in/9999", b"000/", b"\xff\xff", b"", b"00"):
        assert find_entry(parts, root, missing) is None


def test_to_find_an_entry_one_shard_is_read(tree: Tree) -> None:
    parts, root = tree.parts, tree.root
    shards = [row.ref for row in iterate_shards(parts, root)]
    parts.reads.clear()

    assert len(shards) > 8
    find_entry(parts, root, b"017/in/0250")
    assert len([ref for ref in parts.reads if ref in shards]) == 1


@pytest.mark.parametrize("folder", [b"", b"000", b"017", b"017/in", b"029/in", b"017/in/0001", b"nothing"])
def test_a_folder_shows_its_direct_children(tree: Tree, folder: bytes) -> None:
    parts, root, entries = tree.parts, tree.root, tree.entries
    wanted = [one for one in entries if one.path.rpartition(b"/")[::2] == (folder, one.path.split(b"/")[-1])]

    assert list(list_folder(parts, root, folder)) == wanted


@pytest.mark.parametrize("folder", [b"000", b"017", b"017/in", b"029", b"017.txt", b"01"])
def test_a_branch_is_all_below_a_folder(tree: Tree, folder: bytes) -> None:
    parts, root, entries = tree.parts, tree.root, tree.entries

    assert list(entries_below(parts, root, folder)) == [
        one for one in entries if one.path.startswith(folder + b"/")
    ]


def test_the_branch_of_the_root_is_everything(parts: Parts) -> None:
    odd = [entry(b"\xff" * 255), entry(b"\xff" * 254 + b"/"), entry(b"\xff" * 254 + b"/" + b"\xff" * 255)]
    root = store(parts, [*branches(3), *odd])

    assert list(entries_below(parts, root, b"")) == list(iterate_entries(parts, root))
    assert len(list(list_folder(parts, root, b""))) == 14


def test_a_branch_reads_only_the_shards_it_lies_in(tree: Tree) -> None:
    parts, root = tree.parts, tree.root
    rows = list(iterate_shards(parts, root))
    parts.reads.clear()

    list(entries_below(parts, root, b"017"))

    touched = [row.ref for row in rows if row.ref in parts.reads]
    assert 1 <= len(touched) < len(rows) / 4
    assert len(parts.reads) == len(set(parts.reads))


def test_a_large_folder_is_leapt_over(parts: Parts) -> None:
    large = [entry(b"b/"), *(entry(b"b/%05d" % number) for number in range(8_000))]
    root = store(parts, [entry(b"a"), *large, entry(b"c")])
    parts.reads.clear()

    assert [one.path for one in list_folder(parts, root, b"")] == [b"a", b"b", b"c"]
    assert len(parts.reads) <= 3  # the list, the first shard and the last


def test_children_whose_folder_has_no_entry_are_not_shown_as_others(parts: Parts) -> None:
    root = store(parts, [entry(b"a/b/c"), entry(b"d")])

    assert [one.path for one in list_folder(parts, root, b"")] == [b"d"]
    assert [one.path for one in list_folder(parts, root, b"a")] == []


def test_an_empty_tree_has_nothing(parts: Parts) -> None:
    root = root_of(())

    assert find_entry(parts, root, b"a") is None
    assert list(list_folder(parts, root, b"")) == []
    assert list(entries_below(parts, root, b"")) == []


@pytest.mark.parametrize(
    ("lines", "count", "first"),
    [
        ([b"b", b"a"], 2, "b"),
        ([b"a", b"a"], 2, "a"),
        ([b"a", b"b"], 3, "a"),
        ([b"a", b"b"], 2, "b"),
        ([], 0, "a"),
    ],
)
def test_a_shard_that_is_not_what_its_list_says_is_damage(
    parts: Parts, lines: list[bytes], count: int, first: str
) -> None:
    shard = parts.put(b"".join(encode_entry(entry(path)) + b"\n" for path in lines))
    rows = parts.put(b'["%s",%d,%d,"%s"]\n' % (shard.id.hex().encode(), shard.size, count, first.encode()))

    with pytest.raises(Damaged):
        find_entry(parts, root_of((rows,)), b"a" if first == "a" else b"b")


def test_shards_out_of_order_are_damage(parts: Parts) -> None:
    shard = parts.put(encode_entry(entry(b"a")) + b"\n")
    row = b'["%s",%d,1,"a"]\n' % (shard.id.hex().encode(), shard.size)

    with pytest.raises(Damaged):
        find_entry(parts, root_of((parts.put(row + row),)), b"a")


@pytest.mark.parametrize("line", [b"no json", b'[7,"d",0,0,0,0,0]', b'["../up","d",0,0,0,0,0]', b"{}"])
def test_a_line_that_cannot_be_read_is_damage(parts: Parts, line: bytes) -> None:
    shard = parts.put(line + b"\n")
    rows = parts.put(b'["%s",%d,1,"../up"]\n' % (shard.id.hex().encode(), shard.size))

    with pytest.raises(Damaged):
        find_entry(parts, root_of((rows,)), b"../up")


def test_branches_come_once_with_the_folders_above_and_in_order(tree: Tree) -> None:
    parts, root, entries = tree.parts, tree.root, tree.entries
    asked = [
        b"017/in/0007",
        b"003",
        b"017/in/0003",
        b"017 beside",
        b"003/in",
        b"nothing/here",
        b"029/in/9999",
    ]

    found = list(branch_entries(parts, root, asked))

    wanted = {b"017", b"017/in", b"017/in/0007", b"017/in/0003", b"017 beside", b"029", b"029/in"}
    assert found == [
        one for one in entries if one.path in wanted or one.path == b"003" or one.path.startswith(b"003/")
    ]


def test_the_branch_of_everything_holds_all_others(tree: Tree) -> None:
    assert list(branch_entries(tree.parts, tree.root, [b"017/in", b""])) == tree.entries


def test_branches_far_apart_read_a_shard_or_two_each(tree: Tree) -> None:
    tree.parts.reads.clear()

    list(branch_entries(tree.parts, tree.root, [b"029/in/0499", b"001/in/0003"]))

    assert len(tree.parts.reads) <= 6
    assert len(tree.parts.reads) == len(set(tree.parts.reads))
