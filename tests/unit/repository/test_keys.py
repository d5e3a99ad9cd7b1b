"""Names of chunks and pages are keyed BLAKE3 over the kind and the bytes, however they are computed."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from blake3 import blake3

from backup_admin.repository.keys import Keyring, RepositoryKeys
from backup_admin.repository.types import ChunkKind

KEYS = RepositoryKeys(Keyring({1: bytes(range(32))}, id_kid=1, write_kid=1), bytes(32))
SIZES = (0, 1, 1023, 3071, 3072, 3073, 4096, 65_535, 65_536, 65_537, 300_000)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ChunkKind)
def test_a_chunk_is_named_by_its_kind_and_its_bytes(kind: ChunkKind, size: int) -> None:
    data = os.urandom(size)
    expected = blake3(bytes([kind]) + data, key=KEYS.chunk_key).digest()

    assert KEYS.chunk_id(kind, data) == expected
    assert KEYS.chunk_id(kind, bytearray(data)) == expected
    assert KEYS.chunk_id(kind, memoryview(b"_" + data)[1:]) == expected


@pytest.mark.parametrize("size", [512, 4096, 65_536])
def test_a_page_has_the_first_half_of_the_name_it_had_as_a_chunk_of_pages(size: int) -> None:
    page = os.urandom(size)

    assert KEYS.page_hash(page) == KEYS.chunk_id(ChunkKind.PAGES, page)[:16]


@pytest.mark.parametrize("size", [512, 3072, 4096, 65_536])
@pytest.mark.parametrize("more", [0, 1, 500])
def test_many_pages_have_the_names_that_each_has(size: int, more: int) -> None:
    data = memoryview(os.urandom(3 * size + more))

    expected = [KEYS.page_hash(data[at : at + size]) for at in range(0, len(data), size)]
    assert KEYS.page_hashes(data, size) == expected


def test_threads_do_not_get_in_each_others_way() -> None:
    pieces = [os.urandom(3_000 + 7 * number) for number in range(400)]
    expected = [blake3(bytes([ChunkKind.DATA]) + data, key=KEYS.chunk_key).digest() for data in pieces]

    with ThreadPoolExecutor(4) as pool:
        found = [list(pool.map(lambda data: KEYS.chunk_id(ChunkKind.DATA, data), pieces)) for _ in range(5)]

    assert found == [expected] * 5
