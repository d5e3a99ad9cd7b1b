"""A photo site to back up: the same bytes for the same scale and seed, on every machine.

Scale 1 is about 1.9 GB in 27,000 files. Photographs and videos are noise behind the
head of a JPEG or MP4 and do not compress; texts, logs and the database do.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.site_database import change_database, export_database, log_lines, make_database

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_FIRST_DAY = 1_690_000_000
_DAY = 86_400
_LARGE = 512 << 10
_YEARS = 3 * 365 * _DAY
_JPEG = bytes.fromhex("ffd8ffe000104a46494600010101004800480000ffe100c2") + b"Exif\0\0MM\0*"
_JPEG_END = b"\xff\xd9"
_MP4 = bytes.fromhex("00000020667479706d70343200000000") + b"mp42isom" + bytes(200)
_WORDS = (
    "album",
    "aperture",
    "archive",
    "bride",
    "branding",
    "camera",
    "category",
    "collage",
    "contract",
    "customer",
    "dance",
    "dinner",
    "download",
    "event",
    "expires",
    "feedback",
    "gallery",
    "garden",
    "guest",
    "invoice",
    "invitation",
    "light",
    "message",
    "night",
    "original",
    "party",
    "password",
    "photo",
    "portrait",
    "preview",
    "rating",
    "reception",
    "river",
    "season",
    "session",
    "summer",
    "table",
    "theme",
    "upload",
    "watermark",
    "wedding",
    "welcome",
    "window",
    "winter",
)
_ODD_NAMES = ("with space", "größe", "it's", "日本", "party 🎉", "n" * 200)


@dataclass(frozen=True, slots=True)
class Shape:
    """How many of everything there are."""

    events: int
    photos: int
    large_photos: int
    thumbnails: int
    texts: int
    videos: int
    video_bytes: int
    log_lines: int
    database_rows: int

    @classmethod
    def of(cls, scale: float) -> Shape:
        """Return the shape at a scale; 1 is a site of about 1.9 GB."""

        def some(count: float, least: int) -> int:
            return max(least, round(count * scale))

        return cls(
            events=some(40, 3),
            photos=some(3_000, 30),
            large_photos=some(220, 3),
            thumbnails=some(8_000, 30),
            texts=some(15_500, 60),
            videos=some(2, 1),
            video_bytes=round(120_000_000 * min(1, scale * 2)),
            log_lines=some(500_000, 300),
            database_rows=some(1_250_000, 600),
        )


def make_corpus(root: Path, scale: float, *, seed: int = 1) -> None:
    """Fill a folder that does not exist yet with the first day."""
    shape = Shape.of(scale)
    root.mkdir(parents=True)
    for make in (_photos, _copies, _archive, _videos, _thumbnails, _texts, _configuration, _logs):
        make(root, shape, random.Random(f"{seed} {make.__name__}"))
    make_database(root / "data/photo_sharing.db", shape.database_rows, random.Random(f"{seed} database"))
    _stamp(root / "data/photo_sharing.db", _FIRST_DAY)
    export_database(root / "data/photo_sharing.db", root / "exports/nightly.sql")
    _stamp(root / "exports/nightly.sql", _FIRST_DAY)


def next_day(root: Path, *, day: int = 2, seed: int = 1) -> dict[str, int]:
    """Change the tree as a day does; return how many files were changed, added, removed and renamed.

    One in a hundred small files changes or is new, half as many go or get another name. Of
    the large photographs one in a hundred is edited, one in two hundred new. Logs grow by a
    hundredth, the database by a hundredth of its rows, and its export is made anew.
    """
    chance = random.Random(f"{seed} day {day}")
    when = _FIRST_DAY + _YEARS + day * _DAY
    found = sorted(path for path in (root / "storage").rglob("*") if path.suffix in (".jpg", ".txt"))
    files = [path for path in found if path.stat().st_size < _LARGE]
    large = [path for path in found if path.stat().st_size >= _LARGE]
    share = max(2, len(files) // 100)
    picked = chance.sample(files, min(len(files), 2 * share))
    changed, gone = picked[:share], picked[share : share + share // 2]
    renamed = picked[share + share // 2 :]
    for number, path in enumerate(changed):
        _write(path, _changed(path, number, chance), when + number)
    for number, path in enumerate(chance.sample(files, share)):
        _write(path.with_name(f"day {day} no {number}{path.suffix}"), _like(path, chance), when + number)
    edited, like = chance.sample(large, max(1, len(large) // 100)), large[: max(1, len(large) // 200)]
    for path in edited:
        _write(path, _edited(path.read_bytes(), chance), when)
    for number, path in enumerate(like):
        _write(path.with_name(f"large on day {day} no {number}.jpg"), _like(path, chance), when)
    for path in gone:
        path.unlink()
    for path in renamed:
        path.rename(path.with_name(f"renamed on day {day} {path.name[-180:]}"))
    for path in sorted((root / "logs").iterdir()):
        with path.open("ab") as file:
            file.write(log_lines(chance, max(20, path.stat().st_size // 8_200)))
        _stamp(path, when)
    change_database(root / "data/photo_sharing.db", chance, day)
    _stamp(root / "data/photo_sharing.db", when)
    export_database(root / "data/photo_sharing.db", root / "exports/nightly.sql")
    _stamp(root / "exports/nightly.sql", when)
    counts = {"changed": len(changed) + len(edited), "added": share + len(like)}
    return counts | {"removed": len(gone), "renamed": len(renamed)}


def one_photo(root: Path) -> str:
    """Return the path of the large photograph that is restored alone, relative to the root."""
    found = (root / "storage/events/active").glob("*/photo_*.jpg")
    photos = sorted(path for path in found if path.stat().st_size >= _LARGE)
    return str(photos[len(photos) // 2].relative_to(root))


def jpeg(chance: random.Random, size: int) -> bytes:
    """Return a photograph of about this size: a head that can be edited, and noise."""
    head = _JPEG + b"Camera %08d".ljust(190, b" ") % chance.randrange(10**8)
    body = chance.randbytes(max(16, size - len(head) - 2))
    return head + body.replace(b"\xff", b"\xfe") + _JPEG_END


def prose(chance: random.Random, size: int) -> bytes:
    """Return text of this size that compresses as text does."""
    pieces: list[str] = []
    length = 0
    while length < size:
        line = f"{' '.join(chance.choices(_WORDS, k=11))} {chance.randrange(10**5)}\n"
        pieces.append(line)
        length += len(line)
    return "".join(pieces).encode()[:size]


def _between(chance: random.Random, least: int, most: int) -> int:
    """Return a size; small ones are as many as large ones on a logarithmic scale."""
    return int(least * (most / least) ** chance.random())


def _photos(root: Path, shape: Shape, chance: random.Random) -> None:
    for number in range(shape.photos + shape.large_photos):
        size = (
            _between(chance, 20_000, 200_000) if number < shape.photos else chance.randrange(10**6, 6 * 10**6)
        )
        odd = f" {chance.choice(_ODD_NAMES)}" if chance.random() < 0.01 else ""
        folder = root / "storage/events/active" / _event(number % shape.events)
        _write(folder / f"photo_{number:06d}{odd}.jpg", jpeg(chance, size), _some_day(chance), chance)


def _copies(root: Path, shape: Shape, chance: random.Random) -> None:
    photos = sorted((root / "storage/events/active").rglob("*.jpg"))
    for number in range(max(1, shape.photos // 50)):
        folder = root / "storage/events/active" / _event(chance.randrange(shape.events)) / "uploads"
        _write(folder / f"copy_{number:04d}.jpg", chance.choice(photos).read_bytes(), _some_day(chance))


def _archive(root: Path, _shape: Shape, _chance: random.Random) -> None:
    folder = root / "storage/events/archived"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / f"{_event(1)}.zip", "w", zipfile.ZIP_STORED) as archive:
        for path in sorted((root / "storage/events/active" / _event(1)).glob("*.jpg")):
            archive.writestr(zipfile.ZipInfo(path.name, (2024, 1, 1, 0, 0, 0)), path.read_bytes())
    _stamp(folder / f"{_event(1)}.zip", _FIRST_DAY)


def _videos(root: Path, shape: Shape, chance: random.Random) -> None:
    for number in range(shape.videos):
        path = root / "storage/events/active" / _event(number) / f"video_{number}.mp4"
        with path.open("wb") as file:
            file.write(_MP4)
            for _ in range(shape.video_bytes // 1_000_000):
                file.write(chance.randbytes(1_000_000))
        _stamp(path, _some_day(chance))


def _thumbnails(root: Path, shape: Shape, chance: random.Random) -> None:
    for number in range(shape.thumbnails):
        path = root / "storage/thumbnails" / f"thumb_photo_{number:06d}.jpg"
        _write(path, jpeg(chance, chance.randrange(8_000, 36_000)), _some_day(chance))


def _texts(root: Path, shape: Shape, chance: random.Random) -> None:
    for number in range(shape.texts):
        text = b"" if number % 400 == 399 else prose(chance, _between(chance, 100, 6_000))
        if number % 4 == 0:
            text = json.dumps({"id": number, "text": text.decode()}).encode()
        _write(root / f"storage/texts/{number % 97:02d}/text_{number}.txt", text, _some_day(chance), chance)


def _configuration(root: Path, _shape: Shape, chance: random.Random) -> None:
    for number in range(60):
        _write(root / "config" / f"part_{number:02d}.yaml", prose(chance, 3_000 + 50 * number), _FIRST_DAY)
    (root / "config/current.yaml").symlink_to("part_00.yaml")
    (root / "config/part_01.yaml").chmod(0o600)
    (root / "storage/temp").mkdir()


def _logs(root: Path, shape: Shape, chance: random.Random) -> None:
    for name in ("access", "app", "error"):
        _write(root / "logs" / f"{name}.log", log_lines(chance, shape.log_lines), _FIRST_DAY)


def _event(number: int) -> str:
    return f"wedding-{_WORDS[number % len(_WORDS)]}-{number:03d}"


def _changed(path: Path, number: int, chance: random.Random) -> bytes:
    """Return a text with a line more, or a photograph that was replaced or whose head was edited."""
    data = path.read_bytes()
    if path.suffix == ".txt":
        middle = len(data) // 2
        return data[:middle] + b"a line of today: %d\n" % chance.randrange(10**9) + data[middle:]
    if number % 3 == 0:
        return jpeg(chance, len(data))
    return _edited(data, chance)


def _edited(data: bytes, chance: random.Random) -> bytes:
    """Change what the camera wrote into the head of a photograph."""
    return data[:40] + b"edited %05d" % chance.randrange(10**5) + data[52:]


def _like(path: Path, chance: random.Random) -> bytes:
    size = path.stat().st_size
    make: Callable[[random.Random, int], bytes] = prose if path.suffix == ".txt" else jpeg
    return make(chance, size)


def _some_day(chance: random.Random) -> int:
    return _FIRST_DAY + chance.randrange(_YEARS)


def _write(path: Path, data: bytes, when: int, chance: random.Random | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if chance is not None and chance.random() < 0.05:
        path.chmod(0o600)
    _stamp(path, when)


def _stamp(path: Path, when: int) -> None:
    os.utime(path, (when, when))


def copy_tree(source: Path, target: Path) -> None:
    """Copy a corpus with its times and modes."""
    shutil.copytree(source, target, symlinks=True)
