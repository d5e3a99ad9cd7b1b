"""Packs open whole, prove each chunk, and need no index for it."""

from __future__ import annotations

import pytest
import zstandard
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from backup_admin.core.errors import BackupAdminError, Damaged
from backup_admin.repository.objects import ObjectType, seal_object
from backup_admin.repository.packs import (
    ChunkSpan,
    Method,
    PackBuilder,
    Segment,
    check_segment,
    decode_segment,
    open_segment,
    read_pack,
)
from backup_admin.repository.types import MAX_SEGMENT_BYTES, ChunkKind
from tests.factories import make_keys, noise, prose

KEYS = make_keys()


def span(kind: ChunkKind, data: bytes, offset: int = 0) -> ChunkSpan:
    return ChunkSpan(kind, KEYS.chunk_id(kind, data), offset, len(data))


def build(contents: list[bytes], padding: int = 4096, level: int = 1) -> tuple[bytes, list[Segment]]:
    builder = PackBuilder(KEYS, bytearray(1 << 20))
    for data in contents:
        builder.add(data, [span(ChunkKind.DATA, data)], level=level)
    view, info = builder.finish(padding)
    data = bytes(view)
    assert (info.name, info.size, info.header) == (blake3(data).digest(), len(data), data[:44])
    return data, builder.segments


def unpack(data: bytes) -> list[bytes]:
    view = memoryview(data)
    cipher, segments = read_pack(KEYS, view)
    plain = []
    for segment in segments:
        sealed = view[segment.frame_offset : segment.frame_offset + segment.frame_length]
        plain.append(open_segment(cipher, segment, sealed))
        check_segment(KEYS, segment, plain[-1])
    return plain


@given(st.lists(st.binary(max_size=3000), max_size=8), st.sampled_from([0, 1]))
def test_what_goes_in_comes_out(contents: list[bytes], level: int) -> None:
    assert unpack(build(contents, level=level)[0]) == contents


def test_the_table_of_contents_says_where_everything_lies() -> None:
    data, segments = build([prose(9000), noise(5000), b""])

    assert read_pack(KEYS, memoryview(data))[1] == segments
    assert [segment.method for segment in segments] == [Method.ZSTD, Method.RAW, Method.RAW]


@pytest.mark.parametrize("size", [0, 1, 1000, 4000, 60_000])
def test_the_size_of_a_pack_is_a_multiple_of_the_padding(size: int) -> None:
    assert len(build([noise(size)], padding=4096)[0]) % 4096 == 0


def test_every_flipped_bit_of_a_pack_is_noticed_without_its_name() -> None:
    data, _ = build([b"one", prose(200)], padding=64)
    passed = []
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            unpack(bytes(changed))
            passed.append(bit)
        except BackupAdminError:
            pass

    assert passed == []


def test_every_truncation_of_a_pack_is_noticed() -> None:
    data, _ = build([b"one", b"two"], padding=64)

    for size in range(len(data)):
        with pytest.raises(Damaged):
            unpack(data[:size])


def test_a_chunk_that_is_not_what_its_name_says_is_noticed() -> None:
    builder = PackBuilder(KEYS, bytearray(1 << 16))
    builder.add(b"other", [span(ChunkKind.DATA, b"right")], level=0)

    with pytest.raises(Damaged, match="not what its name says"):
        unpack(bytes(builder.finish(64)[0]))


def test_a_chunk_of_another_kind_is_not_the_same_chunk() -> None:
    builder = PackBuilder(KEYS, bytearray(1 << 16))
    data_id = KEYS.chunk_id(ChunkKind.DATA, b"bytes")
    builder.add(b"bytes", [ChunkSpan(ChunkKind.MANIFEST, data_id, 0, 5)], level=0)

    with pytest.raises(Damaged, match="not what its name says"):
        unpack(bytes(builder.finish(64)[0]))


def test_a_segment_that_decompresses_to_too_much_is_refused_before_it_does() -> None:
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(MAX_SEGMENT_BYTES + 1))

    with pytest.raises(Damaged, match="largest allowed"):
        decode_segment(bomb, Method.ZSTD)


@pytest.mark.parametrize("data", [b"", b"no zstd", zstandard.ZstdCompressor().compress(b"x" * 500)[:-2]])
def test_a_segment_that_does_not_decompress_is_damaged(data: bytes) -> None:
    with pytest.raises(Damaged):
        decode_segment(data, Method.ZSTD)


def test_a_segment_without_its_plain_size_is_bounded_all_the_same() -> None:
    writer = zstandard.ZstdCompressor(level=1, write_content_size=False)
    with pytest.raises(Damaged):
        decode_segment(writer.compress(bytes(MAX_SEGMENT_BYTES * 2)), Method.ZSTD)


def test_an_unknown_way_of_keeping_a_segment_is_refused() -> None:
    with pytest.raises(Damaged, match="unknown way"):
        decode_segment(b"", 2)


@pytest.mark.parametrize(
    "toc",
    [
        b"",
        b"\0\0\0\x09",
        (9).to_bytes(4, "big") + bytes(5) + (1).to_bytes(4, "big"),
        (50).to_bytes(4, "big") + bytes(5) + (1).to_bytes(4, "big") + bytes(41),
        (18).to_bytes(4, "big") + bytes(18),
        (2**32 - 1).to_bytes(4, "big") + bytes(9),
        (9).to_bytes(4, "big") + bytes(5) + b"\xff\xff\xff\xff",
    ],
)
def test_a_table_of_contents_that_does_not_fit_is_refused(toc: bytes) -> None:
    data = seal_object(KEYS, ObjectType.PACK, "pack", [b"segment", toc])

    with pytest.raises(Damaged):
        read_pack(KEYS, memoryview(data))
