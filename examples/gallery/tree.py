"""Write the storage tree: photos with their derivatives, and the odd things beside them."""

import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from examples.gallery.chance import seeded
from examples.gallery.library import NEWEST, YEARS_BACK, Library, PlannedPhoto
from examples.gallery.pictures import make_picture

PHOTO_WIDTH = 360
THUMBNAIL_WIDTH = 120
NAME_THAT_IS_NOT_TEXT = b"uploads/logos/logo_\xe9t\xe9_\xff.png"
EMPTY_FOLDERS = (
    "business-docs/quote/2026",
    "contract/signatures",
    "events/archived",
    "uploads/favicons",
)


def write_tree(storage: Path, library: Library, *, sparse_bytes: int) -> None:
    """Write everything a gallery has on disk, then give the folders quiet times."""
    storage.mkdir(parents=True, exist_ok=True)
    write_photos(storage, library.photos)
    _write_heroes(storage, library)
    _write_uploads(storage)
    _write_oddities(storage, library, sparse_bytes)
    _write_scratch(storage, library)
    _set_folder_times(storage)


def write_photos(storage: Path, photos: Iterable[PlannedPhoto]) -> None:
    """Write original, preview and thumbnail of each photo."""
    for photo in photos:
        for path, width, size in (
            (photo.path, PHOTO_WIDTH, photo.size_bytes),
            (photo.preview_path, PHOTO_WIDTH, photo.preview_bytes),
            (photo.thumbnail_path, THUMBNAIL_WIDTH, photo.thumbnail_bytes),
        ):
            content = make_picture(
                photo.scene,
                width=width,
                header=photo.header,
                seed=photo.body_seed + width,
                size_bytes=size,
            )
            write_file(storage / path, content, mode=photo.mode, at=photo.taken_at)


def write_file(path: Path, content: bytes, *, mode: int, at: datetime) -> None:
    """Write one file with its mode and its time of change."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    set_time(path, at)


def set_time(path: Path, at: datetime) -> None:
    """Set the time of change, with nanoseconds no copying program may round off."""
    seconds, micros = int(at.timestamp()), at.microsecond
    nanoseconds = seconds * 10**9 + micros * 1000 + micros % 997
    os.utime(path, ns=(nanoseconds, nanoseconds), follow_symlinks=False)


def _write_heroes(storage: Path, library: Library) -> None:
    for event in library.events:
        photo = next(p for p in library.photos if p.event_id == event.id)
        name = f"heroes/hero_{event.slug}.jpg"
        content = make_picture(
            photo.scene,
            width=PHOTO_WIDTH,
            header="hero",
            seed=photo.body_seed + 1,
            size_bytes=photo.preview_bytes + 12_000,
        )
        write_file(storage / name, content, mode=0o644, at=photo.taken_at)


def _write_uploads(storage: Path) -> None:
    random = seeded("uploads")
    logo = b"\x89PNG\r\n\x1a\n" + random.randbytes(4_000)
    font = b"wOF2" + random.randbytes(18_000)
    for name, content in (
        ("uploads/logos/studio.png", logo),
        ("uploads/logos/events/harbour lights.png", logo),
        ("fonts/Display-Regular.woff2", font),
    ):
        write_file(storage / name, content, mode=0o644, at=NEWEST - YEARS_BACK)
    strange = Path(os.fsdecode(os.fsencode(storage) + b"/" + NAME_THAT_IS_NOT_TEXT))
    write_file(strange, logo[:900], mode=0o600, at=NEWEST - YEARS_BACK / 2)


def _write_oddities(storage: Path, library: Library, sparse_bytes: int) -> None:
    """Write what a walk must not stumble over: empty, hollow, linked."""
    for name in EMPTY_FOLDERS:
        (storage / name).mkdir(parents=True, exist_ok=True)
    (storage / "contract/signatures").chmod(0o700)
    first = library.photos[0]
    folder = storage / first.folder
    write_file(folder / "upload-broken-off.JPG", b"", mode=0o644, at=first.taken_at)
    link = folder / "cover.jpg"
    link.unlink(missing_ok=True)
    link.symlink_to(first.filename)
    set_time(link, first.taken_at)
    _write_sparse(folder / "first dance.mp4", sparse_bytes, first.taken_at)


def _write_sparse(path: Path, size_bytes: int, at: datetime) -> None:
    random = seeded("sparse")
    with path.open("wb") as file:
        file.write(b"\0\0\0\x18ftypmp42" + random.randbytes(20_000))
        file.seek(size_bytes // 2)
        file.write(random.randbytes(8_192))
        file.truncate(size_bytes)
    set_time(path, at)


def _write_scratch(storage: Path, library: Library) -> None:
    """Write what a backup leaves out: half uploads, chunks, cached downloads."""
    random = seeded("scratch")
    cache = f"{library.photos[0].folder}/.download-cache/all.zip"
    for name, size in (
        ("temp/upload_4711.part", 40_000),
        ("chunks/9f2c/000001", 30_000),
        (cache, 60_000),
    ):
        write_file(storage / name, random.randbytes(size), mode=0o600, at=NEWEST)


def _set_folder_times(storage: Path) -> None:
    for number, folder in enumerate(_folders_deepest_first(storage)):
        set_time(folder, NEWEST - YEARS_BACK * (number % 50 + 1) / 60)


def _folders_deepest_first(storage: Path) -> Iterator[Path]:
    folders = sorted(Path(root) for root, _, _ in os.walk(storage))
    yield from reversed(folders)
