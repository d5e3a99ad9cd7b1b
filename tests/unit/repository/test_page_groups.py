"""Digests over many pages save time and change nothing."""

from __future__ import annotations

import io
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backup_admin.repository import page_groups
from backup_admin.repository.index import Index
from backup_admin.repository.keys import RepositoryKeys
from backup_admin.repository.page_groups import GroupDigests
from backup_admin.repository.pages import PageWriter
from backup_admin.repository.pending import PendingPacks
from backup_admin.repository.reader import ChunkReader
from backup_admin.repository.store import ChunkStore
from backup_admin.storage.memory import MemoryStorage
from tests.factories import SMALL, make_keys, noise

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.repository.types import ChunkRef

KEYS = make_keys()
PAGE = 4096
PER_SHARD = 40  # two groups and a half
SHARD = PAGE * PER_SHARD


class Place:
    """A storage to which databases are written, with the groups of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "cache").mkdir(parents=True)
        self.storage = MemoryStorage()
        self.index = Index(self.storage, KEYS, folder / "cache")
        self.groups = folder / "groups"

    def save(self, data: bytes, parent: ChunkRef | None) -> ChunkRef:
        pending = PendingPacks(self.folder / "cache", 0)
        store = ChunkStore(self.storage, KEYS, SMALL, self.index, pending, threads=1)
        writer = PageWriter(
            store.writer(),
            ChunkReader(self.storage, KEYS, self.index),
            KEYS,
            pages_per_shard=PER_SHARD,
            groups=self.groups,
        )
        root = writer.write(io.BytesIO(data).readinto, PAGE, parent).pages
        store.finish()
        assert root is not None
        return root


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "with")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the bytes of everything that is hashed, piece by piece."""
    sizes: list[int] = []
    page_hash = RepositoryKeys.page_hash

    def noting(keys: RepositoryKeys, page: memoryview) -> bytes:
        sizes.append(len(page))
        return page_hash(keys, page)

    def noting_each(keys: RepositoryKeys, data: memoryview, page_size: int) -> list[bytes]:
        return [noting(keys, data[at : at + page_size]) for at in range(0, len(data), page_size)]

    monkeypatch.setattr(RepositoryKeys, "page_hash", noting)
    monkeypatch.setattr(RepositoryKeys, "page_hashes", noting_each)
    return sizes


edits = st.lists(
    st.tuples(st.integers(0, 5 * PER_SHARD), st.integers(1, 3)), max_size=6
)  # page, how many behind it


@given(edits=edits, pages=st.integers(0, 5 * PER_SHARD), rest=st.sampled_from([0, 1, 700]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_a_page_map_is_the_same_with_and_without_groups(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int]], pages: int, rest: int
) -> None:
    first = noise(4 * SHARD + 5 * PAGE + 700, seed=1)
    second = bytearray((first + noise(SHARD, seed=2))[: pages * PAGE + rest])
    for page, count in edits:
        end = min((page + count) * PAGE, len(second))
        second[page * PAGE : end] = noise(max(0, end - page * PAGE), seed=page)
    folder = tmp_path_factory.mktemp("maps")
    with_groups, without = Place(folder / "with"), Place(folder / "without")

    roots = [place.save(first, None) for place in (with_groups, without)]
    for path in without.groups.iterdir():
        path.unlink()
    later = [
        place.save(bytes(second), root) for place, root in zip((with_groups, without), roots, strict=True)
    ]

    assert roots[0] == roots[1]
    assert later[0] == later[1]


def test_pages_of_groups_that_did_not_change_are_not_hashed(place: Place, hashed: list[int]) -> None:
    data = bytearray(noise(4 * SHARD, seed=1))
    root = place.save(bytes(data), None)
    data[SHARD + 3 * PAGE] ^= 1
    hashed.clear()

    place.save(bytes(data), root)

    assert hashed.count(PAGE) == 16


@pytest.mark.parametrize("damage", ["lost", "empty", "cut", "other layout", "flipped"])
def test_groups_that_are_not_whole_cost_time_only(place: Place, hashed: list[int], damage: str) -> None:
    data = noise(4 * SHARD, seed=1)
    root = place.save(data, None)
    kept = place.groups / root.id.hex()
    whole = kept.read_bytes()
    if damage == "lost":
        kept.unlink()
    else:
        kept.write_bytes(
            {
                "empty": b"",
                "cut": whole[:50],
                "other layout": b"\0\0\2\0" + whole[4:],
                "flipped": bytes(byte ^ 1 for byte in whole),
            }[damage]
        )
    hashed.clear()

    again = place.save(data, root)

    assert again == root
    assert hashed.count(PAGE) > 2 * PER_SHARD
    assert kept.read_bytes() == whole


def test_a_folder_that_cannot_be_written_stops_nothing(place: Place) -> None:
    place.groups.write_bytes(b"a file where the folder should be")
    data = noise(SHARD, seed=1)

    root = place.save(data, None)

    assert place.save(data, root) == root


def test_a_capture_that_fails_leaves_nothing_behind(place: Place) -> None:
    with closing(GroupDigests(place.groups, KEYS.page_hash, (PAGE, PER_SHARD), None)) as groups:
        groups.compare(memoryview(noise(SHARD, seed=1)))

    assert list(place.groups.iterdir()) == []


def test_only_the_newest_are_kept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_groups, "_MOST_FILES", 3)

    roots = [place.save(noise(SHARD, seed=seed), None) for seed in range(6)]

    assert {path.name for path in place.groups.iterdir()} == {root.id.hex() for root in roots[3:]}
