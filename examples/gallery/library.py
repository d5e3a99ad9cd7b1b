"""Plan what the gallery holds: events, categories and photos, before anything is written.

The plan is plain data made from a seed, so files and rows are written from one source
and cannot disagree.
"""

import hashlib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random

from examples.gallery.pictures import SCENE_COUNT
from examples.gallery.texts import SUBJECTS, Subject

NEWEST = datetime(2026, 11, 1, 18, 0, tzinfo=UTC)
YEARS_BACK = timedelta(days=3 * 365)
LONGEST_NAME_BYTES = 250
_LONGEST_FILE_NAME = 255


@dataclass(frozen=True, slots=True)
class Sizes:
    """The range of sizes, in bytes, of each kind of picture."""

    original: tuple[int, int] = (60_000, 200_000)
    preview: tuple[int, int] = (18_000, 30_000)
    thumbnail: tuple[int, int] = (10_000, 20_000)


@dataclass(frozen=True, slots=True)
class PlannedEvent:
    """An event before it has rows or a folder."""

    id: int
    subject: Subject
    title: str
    slug: str
    happened_at: datetime


@dataclass(frozen=True, slots=True)
class PlannedCategory:
    """A part of an event."""

    id: int
    event_id: int
    name: str


@dataclass(frozen=True, slots=True)
class PlannedPhoto:
    """A photo with everything its three files and its row are made of."""

    id: int
    event_id: int
    category_id: int
    filename: str
    folder: str
    scene: int
    body_seed: int
    header: str
    size_bytes: int
    preview_bytes: int
    thumbnail_bytes: int
    mode: int
    taken_at: datetime

    @property
    def path(self) -> str:
        """Return the original's place in the storage tree."""
        return f"{self.folder}/{self.filename}"

    @property
    def thumbnail_path(self) -> str:
        """Return the thumbnail's place in the storage tree."""
        return derived_path("thumbnails", "thumb", self.filename)

    @property
    def preview_path(self) -> str:
        """Return the preview's place in the storage tree."""
        return derived_path("previews", "preview", self.filename)


@dataclass(frozen=True, slots=True)
class Library:
    """All events, categories and photos of one plan."""

    events: tuple[PlannedEvent, ...]
    categories: tuple[PlannedCategory, ...]
    photos: tuple[PlannedPhoto, ...]


def derived_path(folder: str, prefix: str, filename: str) -> str:
    """Return where a derivative lies; a name that would be too long becomes a digest."""
    name = f"{prefix}_{filename}"
    if len(name.encode()) > _LONGEST_FILE_NAME:
        name = f"{prefix}_{hashlib.sha256(filename.encode()).hexdigest()[:16]}.jpg"
    return f"{folder}/{name}"


def plan_library(random: Random, *, events: int, photos: int, sizes: Sizes) -> Library:
    """Plan the events of three years, the photos spread over them unevenly."""
    planned = [_plan_event(random, number, events) for number in range(1, events + 1)]
    shares = [random.uniform(0.5, 1.5) for _ in planned]
    counts = [max(2, round(photos * share / sum(shares))) for share in shares]
    counts[-1] = max(2, photos - sum(counts[:-1]))
    return extend_library(random, planned, counts, sizes=sizes)


def extend_library(
    random: Random,
    events: list[PlannedEvent],
    counts: list[int],
    *,
    sizes: Sizes,
    first_category: int = 1,
    first_photo: int = 1,
) -> Library:
    """Plan categories and photos for these events, with ids from the given ones on."""
    category_ids, photo_ids = count(first_category), _with_gaps(random, first_photo)
    categories: list[PlannedCategory] = []
    photos: list[PlannedPhoto] = []
    for event, amount in zip(events, counts, strict=True):
        parts = [PlannedCategory(next(category_ids), event.id, name) for name in event.subject.categories]
        categories += parts
        for number in range(1, amount + 1):
            part = parts[(number - 1) * len(parts) // amount]
            photo = _plan_photo(random, next(photo_ids), event, part, number, sizes)
            photos.append(_repeat_now_and_then(random, photo, photos))
    return Library(tuple(events), tuple(categories), tuple(photos))


def event_slug(subject: Subject, title: str, day: datetime) -> str:
    """Return the folder name of an event: type, plain letters, date."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    words = "".join(c if c.isalnum() else " " for c in plain).lower().split()
    name = "-".join(words) or hashlib.sha256(title.encode()).hexdigest()[:8]
    return f"{subject.type_slug}-{name}-{day:%Y-%m-%d}"


def _plan_event(random: Random, number: int, events: int) -> PlannedEvent:
    subject = SUBJECTS[(number - 1) % len(SUBJECTS)]
    start = NEWEST - YEARS_BACK * ((events - number + 1) / (events + 1))
    day = start + timedelta(hours=random.randrange(72))
    repeated = (number - 1) // len(SUBJECTS)
    title = f"{subject.title} {repeated + 1}" if repeated else subject.title
    return PlannedEvent(number, subject, title, event_slug(subject, title, day), day)


def _with_gaps(random: Random, first: int) -> Iterator[int]:
    """Count upwards and leave out a number now and then, as deleted rows do."""
    for number in count(first):
        if random.random() > 0.03:
            yield number


def _plan_photo(
    random: Random,
    photo_id: int,
    event: PlannedEvent,
    category: PlannedCategory,
    number: int,
    sizes: Sizes,
) -> PlannedPhoto:
    taken = event.happened_at + timedelta(seconds=40 * number, microseconds=random.randrange(1_000_000))
    return PlannedPhoto(
        id=photo_id,
        event_id=event.id,
        category_id=category.id,
        filename=_filename(event, category, photo_id, number),
        folder=f"events/active/{event.slug}",
        scene=random.randrange(SCENE_COUNT),
        body_seed=random.getrandbits(48),
        header=f"camera {random.choice('ABC')} export 0000",
        size_bytes=random.randint(*sizes.original),
        preview_bytes=random.randint(*sizes.preview),
        thumbnail_bytes=random.randint(*sizes.thumbnail),
        mode=random.choice((0o644, 0o644, 0o644, 0o600)),
        taken_at=taken,
    )


def _filename(event: PlannedEvent, category: PlannedCategory, photo_id: int, number: int) -> str:
    """Return a camera's name; in each fourth event four are awkward, each in its way."""
    event_name = "_".join(event.slug.split("-")[1:-3])
    part = category.name.replace(" ", "_")
    plain = f"{event_name}_{part}_{number:04d}.JPG"
    awkward = {
        3: f"Neue Bilder {photo_id} — Gäste.JPG",
        4: f"cafe\u0301 au lait {photo_id}.jpg",
        5: f'It\'s "our" day {photo_id} 🎉.JPG',
        6: _long_name(photo_id),
    }
    return awkward.get(number, plain) if event.id % 4 == 1 else plain


def _long_name(photo_id: int) -> str:
    start, end = "Sehr_", f"_{photo_id}.JPG"
    room = LONGEST_NAME_BYTES - len(start) - len(end)
    return start + "ü" * (room // 2) + "x" * (room % 2) + end


def _repeat_now_and_then(random: Random, photo: PlannedPhoto, earlier: list[PlannedPhoto]) -> PlannedPhoto:
    """Make two of a hundred an exact copy and five an export of an earlier photo."""
    dice = random.random()
    if not earlier or dice >= 0.07:
        return photo
    model = random.choice(earlier)
    header = model.header
    if dice >= 0.02:
        header = f"{model.header[:-4]}{random.randrange(1, 10_000):04d}"
    return replace(
        photo,
        scene=model.scene,
        body_seed=model.body_seed,
        header=header,
        size_bytes=model.size_bytes,
        preview_bytes=model.preview_bytes,
        thumbnail_bytes=model.thumbnail_bytes,
    )
