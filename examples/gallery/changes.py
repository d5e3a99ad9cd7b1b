"""Let time pass in a filled gallery, or wreck it."""

import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from sqlalchemy import Connection, delete, func, select, update

from examples.gallery.chance import seeded
from examples.gallery.database import open_database
from examples.gallery.folders import Folders
from examples.gallery.library import (
    NEWEST,
    Library,
    PlannedEvent,
    Sizes,
    event_slug,
    extend_library,
)
from examples.gallery.models import (
    AppSetting,
    Event,
    GalleryGuest,
    Photo,
    PhotoCategory,
    PhotoFeedback,
)
from examples.gallery.pictures import make_picture
from examples.gallery.rows import Amounts, write_library, write_logs
from examples.gallery.texts import SUBJECTS
from examples.gallery.tree import PHOTO_WIDTH, set_time, write_photos

_NO_MORE = Amounts(0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Damage:
    """What was destroyed."""

    files: int
    events: int
    scrambled: int

    def __str__(self) -> str:
        return (
            f"{self.files} files deleted, {self.scrambled} photos overwritten with"
            f" noise, {self.events} events and all feedback deleted"
        )


def churn(data: Path, days: int, *, seed: int = 1) -> None:
    """Live through some days: new events, replaced photos, archives, longer logs.

    Each third day brings an event, each seventh sends the oldest one to the archive.
    Call it again with another seed for the days after.
    """
    for day in range(1, days + 1):
        random = seeded("churn", seed, day)
        now = NEWEST + timedelta(days=(seed - 1) * 400 + day)
        with open_database(data) as connection:
            _replace_photos(connection, Folders(data).storage, random, now)
            _grow_logs(connection, random)
            _edit_setting(connection, random)
            if day % 3 == 1:
                _add_event(connection, Folders(data).storage, random, now)
            if day % 7 == 0:
                _archive_oldest(connection, Folders(data).storage, now)


def damage(data: Path, *, seed: int = 1) -> Damage:
    """Destroy what a bad day destroys: photos on disk and rows in the database.

    The gallery still starts afterwards and shows the holes.
    """
    random = seeded("damage", seed)
    storage = Folders(data).storage
    with open_database(data) as connection:
        photos = connection.execute(select(Photo.path, Photo.thumbnail_path).order_by(Photo.id)).all()
        lost = random.sample(photos, len(photos) // 2)
        files = [path for row in lost for path in row]
        removed = sum(_remove(storage / path) for path in files)
        kept = [row.path for row in photos if row not in lost]
        scrambled = random.sample(kept, min(5, len(kept)))
        for path in scrambled:
            _scramble(storage / path, random)
        events = _delete_events(connection)
        connection.execute(delete(PhotoFeedback))
        connection.execute(delete(GalleryGuest))
    return Damage(files=removed, events=events, scrambled=len(scrambled))


def _remove(path: Path) -> bool:
    existed = path.is_file()
    path.unlink(missing_ok=True)
    return existed


def _scramble(path: Path, random: Random) -> None:
    """Overwrite the picture and keep size and time, so that only reading tells."""
    if not path.is_file():
        return
    before = path.stat()
    with path.open("r+b") as file:
        file.write(random.randbytes(min(before.st_size, 30_000)))
    set_time(path, datetime.fromtimestamp(before.st_mtime_ns // 1000 / 1e6, UTC))


def _delete_events(connection: Connection) -> int:
    ids = connection.scalars(select(Event.id).order_by(Event.id)).all()
    doomed = ids[::3]
    connection.execute(delete(Event).where(Event.id.in_(doomed)))
    return len(doomed)


def _replace_photos(connection: Connection, storage: Path, random: Random, now: datetime) -> None:
    """Replace one photo of a thousand, at least one, by a new export."""
    photos = connection.execute(select(Photo.id, Photo.path).order_by(Photo.id)).all()
    for photo in random.sample(photos, min(len(photos), 1 + len(photos) // 1000)):
        path = storage / photo.path
        if not path.is_file():
            continue
        content = make_picture(
            photo.id,
            width=PHOTO_WIDTH,
            header="export again",
            seed=random.getrandbits(48),
            size_bytes=random.randint(60_000, 120_000),
        )
        path.write_bytes(content)
        set_time(path, now)
        row = update(Photo).where(Photo.id == photo.id)
        connection.execute(row.values(size_bytes=len(content)))


def _grow_logs(connection: Connection, random: Random) -> None:
    library = _existing(connection)
    if library.photos:
        amounts = Amounts(90, 30, 4, 2, 0, 0, 0)
        write_logs(connection, random, library, amounts)


def _existing(connection: Connection) -> Library:
    """Return ids of what is there, wrapped as a plan: all the logs need."""
    event_ids = connection.scalars(select(Event.id)).all()
    events = [PlannedEvent(event_id, SUBJECTS[0], "", "", NEWEST) for event_id in event_ids]
    counts = [1] * len(events)
    return extend_library(seeded("ids"), events, counts, sizes=Sizes())


def _edit_setting(connection: Connection, random: Random) -> None:
    key = f"gallery_setting_{random.randrange(1, 100):03d}"
    row = update(AppSetting).where(AppSetting.setting_key == key)
    connection.execute(row.values(setting_value=random.getrandbits(20)))


def _add_event(connection: Connection, storage: Path, random: Random, now: datetime) -> None:
    subject = random.choice(SUBJECTS)
    event_id = _next_id(connection, Event)
    title = f"{subject.title} {event_id}"
    event = PlannedEvent(event_id, subject, title, event_slug(subject, title, now), now)
    library = extend_library(
        random,
        [event],
        [random.randint(5, 15)],
        sizes=Sizes(),
        first_category=_next_id(connection, PhotoCategory),
        first_photo=_next_id(connection, Photo),
    )
    write_photos(storage, library.photos)
    write_library(connection, random, library)


def _next_id(connection: Connection, model: type[Event | Photo | PhotoCategory]) -> int:
    highest: int | None = connection.scalar(select(func.max(model.id)))
    return (highest or 0) + 1


def _archive_oldest(connection: Connection, storage: Path, now: datetime) -> None:
    """Turn an event's originals into one stored zip; its photo rows go with them."""
    oldest = select(Event).where(Event.status == "active").order_by(Event.event_date)
    event = connection.execute(oldest.limit(1)).first()
    if event is None:
        return
    folder = storage / "events/active" / event.slug
    archive = storage / "events/archived" / f"{event.slug}.zip"
    archive.parent.mkdir(parents=True, exist_ok=True)
    photos = connection.execute(
        select(Photo.path, Photo.thumbnail_path, Photo.preview_path)
        .where(Photo.event_id == event.id)
        .order_by(Photo.id)
    ).all()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as bundle:
        for photo in photos:
            info = zipfile.ZipInfo(Path(photo.path).name)
            if (storage / photo.path).is_file():
                bundle.writestr(info, (storage / photo.path).read_bytes())
    for photo in photos:
        for path in photo:
            _remove(storage / path)
    _remove_leftovers(folder)
    set_time(archive, now)
    connection.execute(delete(Photo).where(Photo.event_id == event.id))
    row = update(Event).where(Event.id == event.id)
    connection.execute(row.values(status="archived"))


def _remove_leftovers(folder: Path) -> None:
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if not entry.is_dir():
            entry.unlink()
