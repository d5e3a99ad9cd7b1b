"""Real JPEG pictures of any wanted size, made without an imaging library.

A picture is painted once per scene and encoded as baseline JPEG. What makes one photo
different from another is a comment segment before the picture data: a short header
line, then seeded bytes that do not compress. Browsers show the picture, and for a
backup each file looks like a camera's: large, unique, incompressible.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from examples.gallery.chance import seeded

SCENE_COUNT = 8

_Color = tuple[int, int, int]
_Plane = list[list[float]]

_ZIGZAG = sorted(
    ((u, v) for u in range(8) for v in range(8)),
    key=lambda cell: (sum(cell), cell[0] if sum(cell) % 2 else cell[1]),
)
_QUANTIZATION = tuple(4 + (u + v) * 3 for u, v in _ZIGZAG)
_COSINES = tuple(
    tuple((math.sqrt(0.125) if u == 0 else 0.5) * math.cos((2 * x + 1) * u * math.pi / 16) for x in range(8))
    for u in range(8)
)
_FLAT = math.sqrt(8)
# The example Huffman tables of the JPEG standard (annex K), luminance, for everything.
_DC_LENGTHS = bytes.fromhex("00010501010101010100000000000000")
_DC_SYMBOLS = bytes(range(12))
_AC_LENGTHS = bytes.fromhex("0002010303020403050504040000017d")
_AC_SYMBOLS = bytes.fromhex(
    "01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718"
    "191a25262728292a3435363738393a434445464748494a535455565758595a636465666768696a737475"
    "767778797a838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3"
    "c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa"
)
_LARGEST_SEGMENT = 65_533


@dataclass(frozen=True, slots=True)
class _Scene:
    """The colours of a landscape, from the top of the sky to the nearest hill."""

    sky: _Color
    horizon: _Color
    sun: _Color
    hills: tuple[_Color, _Color, _Color]
    sun_x: float


def _scene(colors: str, sun_x: float) -> _Scene:
    """Read six colours: top of the sky, horizon, sun, then the hills from far to near."""
    sky, horizon, sun, *hills = (_color(code) for code in colors.split("_"))
    return _Scene(sky, horizon, sun, (hills[0], hills[1], hills[2]), sun_x)


def _color(code: str) -> _Color:
    red, green, blue = bytes.fromhex(code)
    return red, green, blue


_SCENES = (
    _scene("2e62aa_e2d6c4_fff4d6_7a8e9c_546e70_2c463e", 0.7),
    _scene("482a68_f89660_ffe296_965870_60385c_2c1e3e", 0.3),
    _scene("78b2d6_f0f0e6_fffff5_96b096_689260_3e683a", 0.5),
    _scene("121c42_465c8c_eceefa_344068_222c4e_12182e", 0.8),
    _scene("eeb0a8_fce8ce_fffaec_ce9892_a4747a_705062", 0.2),
    _scene("5a9696_ece2ba_fff0be_bea878_9e8254_6e5436", 0.6),
    _scene("96a0ac_d6dade_f4f6f8_a0a8b0_747e8a_4a5462", 0.45),
    _scene("367878_bee2c4_f6ffe2_6aa68c_3e7c6e_1e5050", 0.15),
)


def make_picture(scene: int, *, width: int, header: str, seed: int, size_bytes: int) -> bytes:
    """Make a JPEG of exactly `size_bytes`, or the bare picture where that is larger.

    The same arguments give the same bytes. Two headers of one length change only the
    beginning of the file, as an export from a photo program does.
    """
    picture = _encoded_scene(scene % SCENE_COUNT, width)
    line = _segment(0xFE, header.encode())
    room = size_bytes - len(picture) - len(line)
    return picture[:2] + line + _padding(seed, room) + picture[2:]


def _padding(seed: int, room: int) -> bytes:
    """Fill `room` bytes with comment segments; what is too small for one stays empty."""
    random = seeded(seed)
    segments = []
    while room > 4:
        body = min(room - 4, _LARGEST_SEGMENT)
        if 0 < room - 4 - body <= 4:
            body -= 8
        segments.append(_segment(0xFE, random.randbytes(body)))
        room -= body + 4
    return b"".join(segments)


@lru_cache(maxsize=64)
def _encoded_scene(scene: int, width: int) -> bytes:
    height = width * 2 // 3 // 16 * 16
    planes = _paint(_SCENES[scene], width // 16 * 16, height)
    return encode_jpeg(planes)


def _paint(scene: _Scene, width: int, height: int) -> tuple[_Plane, _Plane, _Plane]:
    """Paint a landscape: brightness in full size, both colour planes in half size."""
    hills = [_hill_line(index, scene.sun_x, width, height) for index in range(3)]
    sun = (scene.sun_x * width, height * 0.3, height * 0.09)
    rows = [[_color_at(scene, hills, sun, (x, y), height) for x in range(width)] for y in range(height)]
    luma = [[0.299 * r + 0.587 * g + 0.114 * b - 128 for r, g, b in row] for row in rows]
    half = [row[::2] for row in rows[::2]]
    blue = [[-0.1687 * r - 0.3313 * g + 0.5 * b for r, g, b in row] for row in half]
    red = [[0.5 * r - 0.4187 * g - 0.0813 * b for r, g, b in row] for row in half]
    return luma, blue, red


def _hill_line(index: int, phase: float, width: int, height: int) -> list[float]:
    base = height * (0.55 + 0.15 * index)
    swing = height * (0.10 - 0.015 * index)
    waves = (2.1 + index) * math.pi / width
    return [
        base
        + swing * math.sin(x * waves + 9 * phase + 2 * index)
        + swing * 0.35 * math.sin(x * waves * 2.7 + 5 * phase)
        for x in range(width)
    ]


def _color_at(
    scene: _Scene,
    hills: Sequence[Sequence[float]],
    sun: tuple[float, float, float],
    point: tuple[int, int],
    height: int,
) -> _Color:
    x, y = point
    for hill, color in zip(reversed(hills), reversed(scene.hills), strict=True):
        if y > hill[x]:
            return color
    if (x - sun[0]) ** 2 + (y - sun[1]) ** 2 < sun[2] ** 2:
        return scene.sun
    part = min(y / (height * 0.7), 1.0)
    red, green, blue = (
        round(top + (bottom - top) * part) for top, bottom in zip(scene.sky, scene.horizon, strict=True)
    )
    return red, green, blue


def encode_jpeg(planes: tuple[_Plane, _Plane, _Plane]) -> bytes:
    """Encode brightness and two half-sized colour planes as one baseline JPEG.

    Width and height must be multiples of 16.
    """
    luma = planes[0]
    height, width = len(luma), len(luma[0])
    frame = b"\x08" + height.to_bytes(2) + width.to_bytes(2) + bytes((3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0))
    return b"".join(
        (
            b"\xff\xd8",
            _segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"),
            _segment(0xDB, b"\0" + bytes(_QUANTIZATION)),
            _segment(0xC0, frame),
            _segment(0xC4, b"\0" + _DC_LENGTHS + _DC_SYMBOLS + b"\x10" + _AC_LENGTHS + _AC_SYMBOLS),
            _segment(0xDA, bytes((3, 1, 0, 2, 0, 3, 0, 0, 63, 0))),
            _pack_bits(_codes(planes, width, height)),
            b"\xff\xd9",
        )
    )


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2) + body


def _codes(planes: tuple[_Plane, _Plane, _Plane], width: int, height: int) -> Iterable[str]:
    """Yield the picture as bit strings, one 16 x 16 unit after the other."""
    last = [0, 0, 0]
    for top in range(0, height, 16):
        for left in range(0, width, 16):
            corners = [(0, top + dy, left + dx) for dy in (0, 8) for dx in (0, 8)]
            corners += [(1, top // 2, left // 2), (2, top // 2, left // 2)]
            for plane, y, x in corners:
                block = [row[x : x + 8] for row in planes[plane][y : y + 8]]
                levels = _transform(block)
                yield _block_code(levels, last[plane])
                last[plane] = levels[0]


def _transform(block: _Plane) -> list[int]:
    """Return the quantized cosine transform in zigzag order, trailing zeros removed."""
    rows = [_waves(row) for row in block]
    columns = [_waves(column) for column in zip(*rows, strict=True)]
    levels = [round(columns[u][v] / step) for (v, u), step in zip(_ZIGZAG, _QUANTIZATION, strict=True)]
    while len(levels) > 1 and not levels[-1]:
        levels.pop()
    return levels


def _waves(values: Sequence[float]) -> Sequence[float]:
    """Transform eight values; most rows of our pictures are flat, so those are quick."""
    first = values[0]
    if values.count(first) == 8:
        return (first * _FLAT, 0, 0, 0, 0, 0, 0, 0)
    a, b, c, d, e, f, g, h = values
    return [
        a * w[0] + b * w[1] + c * w[2] + d * w[3] + e * w[4] + f * w[5] + g * w[6] + h * w[7]
        for w in _COSINES
    ]


def _block_code(levels: Sequence[int], last: int) -> str:
    size, bits = _amplitude(levels[0] - last)
    code = [_DC_CODES[size], bits]
    zeros = 0
    for level in levels[1:]:
        if level == 0:
            zeros += 1
            continue
        code.append(_AC_CODES[0xF0] * (zeros // 16))
        size, bits = _amplitude(level)
        code += [_AC_CODES[zeros % 16 << 4 | size], bits]
        zeros = 0
    if len(levels) < 64:
        code.append(_AC_CODES[0])
    return "".join(code)


def _amplitude(value: int) -> tuple[int, str]:
    if value == 0:
        return 0, ""
    size = abs(value).bit_length()
    return size, f"{value if value > 0 else value + (1 << size) - 1:0{size}b}"


def _huffman_codes(lengths: bytes, symbols: bytes) -> dict[int, str]:
    codes = {}
    code = 0
    remaining = iter(symbols)
    for length, count in enumerate(lengths, start=1):
        for _ in range(count):
            codes[next(remaining)] = f"{code:0{length}b}"
            code += 1
        code <<= 1
    return codes


_DC_CODES = _huffman_codes(_DC_LENGTHS, _DC_SYMBOLS)
_AC_CODES = _huffman_codes(_AC_LENGTHS, _AC_SYMBOLS)


def _pack_bits(codes: Iterable[str]) -> bytes:
    bits = "".join(codes)
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8)
    return data.replace(b"\xff", b"\xff\0")
