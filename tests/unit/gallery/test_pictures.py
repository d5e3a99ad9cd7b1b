import pytest

from examples.gallery.pictures import SCENE_COUNT, make_picture


def make(seed: int = 1, *, size: int = 50_000, header: str = "A 0001", scene: int = 0) -> bytes:
    return make_picture(scene, width=96, header=header, seed=seed, size_bytes=size)


def segments(picture: bytes) -> list[int]:
    """Walk the markers up to the picture data, as a decoder does."""
    position, markers = 2, list[int]()
    while not markers or markers[-1] != 0xDA:
        assert picture[position] == 0xFF
        markers.append(picture[position + 1])
        position += 2 + int.from_bytes(picture[position + 2 : position + 4])
    return markers


@pytest.mark.parametrize("size", [4_000, 30_000, 65_000, *range(66_500, 66_520), 200_000])
def test_a_picture_has_exactly_the_wanted_size(size: int) -> None:
    assert len(make(size=size)) == size


def test_the_same_arguments_give_the_same_bytes() -> None:
    assert make() == make()


def test_another_seed_gives_another_file() -> None:
    assert make(1) != make(2)


def test_a_picture_is_a_whole_jpeg() -> None:
    picture = make()

    assert picture.startswith(b"\xff\xd8")
    assert picture.endswith(b"\xff\xd9")
    assert set(segments(picture)) == {0xFE, 0xE0, 0xDB, 0xC0, 0xC4, 0xDA}


def test_two_exports_differ_in_their_beginning_only() -> None:
    first, second = make(header="A 0001"), make(header="A 0002")

    assert first != second
    assert first[100:] == second[100:]


def test_each_scene_looks_different() -> None:
    assert len({make(scene=scene, size=0) for scene in range(SCENE_COUNT)}) == SCENE_COUNT
