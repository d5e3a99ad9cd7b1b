"""A sealed object opens as it was written, under its own name, or not at all."""

from __future__ import annotations

import itertools
import resource

import pytest

from backup_admin.core.errors import Damaged, NewerVersion
from backup_admin.repository.objects import (
    HEADER_BYTES,
    LENGTH_BYTES,
    ObjectType,
    frame_spans,
    new_header,
    open_object,
    seal_object,
)
from tests.factories import make_keys

KEYS = make_keys()
NAME = "manifests/01k0000000000000000000000a"
FRAMES = [b'{"v":1}', b"the body", b""]
DATA = seal_object(KEYS, ObjectType.MANIFEST, NAME, FRAMES)


def opened(data: bytes, name: str = NAME, kind: ObjectType = ObjectType.MANIFEST) -> list[bytes]:
    return open_object(KEYS, kind, name, data)


def parts() -> list[bytes]:
    """Return the frames with their length fields."""
    return [DATA[offset - LENGTH_BYTES : offset + size] for offset, size in frame_spans(DATA)]


def test_frames_come_back_in_order() -> None:
    assert opened(DATA) == FRAMES


def test_every_flipped_bit_is_noticed() -> None:
    passed = []
    for bit in range(len(DATA) * 8):
        changed = bytearray(DATA)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            opened(bytes(changed))
            passed.append(bit)
        except (Damaged, NewerVersion):
            pass

    assert passed == []


def test_every_truncation_is_noticed() -> None:
    for size in range(len(DATA)):
        with pytest.raises(Damaged):
            opened(DATA[:size])


@pytest.mark.parametrize(
    "extra",
    [b"\0", b"\0" * 20, parts()[-1], parts()[0]],
    ids=["a zero", "zeros", "the last frame", "a frame"],
)
def test_anything_behind_the_last_frame_is_noticed(extra: bytes) -> None:
    with pytest.raises(Damaged):
        opened(DATA + extra)


def test_frames_reordered_dropped_or_doubled_are_noticed() -> None:
    header, frames = DATA[:HEADER_BYTES], parts()
    arrangements = [
        arrangement
        for count in range(5)
        for arrangement in itertools.product(range(3), repeat=count)
        if arrangement != (0, 1, 2)
    ]

    for arrangement in arrangements:
        with pytest.raises(Damaged):
            opened(header + b"".join(frames[number] for number in arrangement))


def test_frames_of_another_object_do_not_fit() -> None:
    other = seal_object(KEYS, ObjectType.MANIFEST, NAME, FRAMES)
    offset, size = frame_spans(other)[0]

    with pytest.raises(Damaged):
        opened(DATA[:HEADER_BYTES] + other[offset - 4 : offset + size] + b"".join(parts()[1:]))


def test_an_object_under_another_name_is_refused() -> None:
    with pytest.raises(Damaged):
        opened(DATA, name="manifests/01k0000000000000000000000b")


def test_an_object_of_another_repository_is_refused() -> None:
    with pytest.raises(Damaged):
        open_object(make_keys(9), ObjectType.MANIFEST, NAME, DATA)


@pytest.mark.parametrize("kind", [kind for kind in ObjectType if kind is not ObjectType.MANIFEST])
def test_an_object_of_another_type_is_refused_also_with_its_type_byte_changed(kind: ObjectType) -> None:
    with pytest.raises(Damaged, match="stands where type"):
        opened(DATA, kind=kind)
    with pytest.raises(Damaged, match="seal"):
        opened(DATA[:5] + bytes([kind]) + DATA[6:], kind=kind)


@pytest.mark.parametrize(
    ("at", "value"), [(4, 0), (4, 2), (5, 0), (5, 9), (5, 255), (6, 2), (7, 1), (7, 128), (10, 1), (11, 1)]
)
def test_what_a_newer_version_could_have_written_is_told_apart(at: int, value: int) -> None:
    with pytest.raises(NewerVersion, match="newer version"):
        opened(DATA[:at] + bytes([value]) + DATA[at + 1 :])


def test_a_key_that_is_not_in_the_keyring_is_named() -> None:
    with pytest.raises(Damaged, match="key 258"):
        opened(DATA[:8] + b"\x01\x02" + DATA[10:])


@pytest.mark.parametrize("length", [0, 15, (64 << 20) + 17, 2**32 - 1])
def test_an_impossible_frame_length_costs_no_memory(length: int) -> None:
    data = DATA[:HEADER_BYTES] + length.to_bytes(4, "big") + bytes(100)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(Damaged, match="impossible length"):
        opened(data)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10


def test_no_two_objects_have_the_same_salt() -> None:
    headers = {new_header(ObjectType.PACK, 1) for _ in range(100_000)}

    assert len(headers) == 100_000
    assert {header[:12] for header in headers} == {b"BKA1\x01\x01\x01\x00\x00\x01\x00\x00"}


def test_the_same_frames_never_give_the_same_bytes() -> None:
    again = seal_object(KEYS, ObjectType.MANIFEST, NAME, FRAMES)

    assert again[HEADER_BYTES:] != DATA[HEADER_BYTES:]
