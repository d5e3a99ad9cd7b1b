"""Fill a data folder with a gallery: the same seed gives the same files and rows."""

from dataclasses import dataclass
from pathlib import Path

from flask_migrate import upgrade
from sqlalchemy import select, update
from werkzeug.security import generate_password_hash

from examples.gallery.app import create_app
from examples.gallery.chance import seeded
from examples.gallery.database import open_database
from examples.gallery.extensions import db
from examples.gallery.folders import Folders
from examples.gallery.library import Sizes, plan_library
from examples.gallery.models import AdminUser, Photo
from examples.gallery.rows import Amounts, write_rows
from examples.gallery.tree import write_tree

ADMIN_NAME = "admin"


@dataclass(frozen=True, slots=True)
class Profile:
    """How large a gallery is."""

    name: str
    events: int
    photos: int
    sizes: Sizes
    sparse_bytes: int
    amounts: Amounts


TINY = Profile(
    name="tiny",
    events=3,
    photos=15,
    sizes=Sizes((60_000, 140_000), (18_000, 30_000), (10_000, 20_000)),
    sparse_bytes=400_000,
    amounts=Amounts(
        access_logs=300,
        image_access_logs=100,
        activity_logs=40,
        security_logs=20,
        feedback=30,
        guests=6,
        mails=20,
    ),
)
DEMO = Profile(
    name="demo",
    events=12,
    photos=900,
    sizes=Sizes(),
    sparse_bytes=8_000_000,
    amounts=Amounts(
        access_logs=30_000,
        image_access_logs=10_000,
        activity_logs=1_200,
        security_logs=800,
        feedback=500,
        guests=60,
        mails=150,
    ),
)
PROFILES = {profile.name: profile for profile in (TINY, DEMO)}


def fill(data: Path, profile: Profile = TINY, *, seed: int = 1) -> None:
    """Write the storage tree and the database of a gallery into an empty folder."""
    folders = Folders(data)
    random = seeded(profile.name, seed)
    library = plan_library(random, events=profile.events, photos=profile.photos, sizes=profile.sizes)
    write_tree(folders.storage, library, sparse_bytes=profile.sparse_bytes)
    create_schema(data)
    with open_database(data) as connection:
        write_rows(connection, random, library, profile.amounts)


def create_schema(data: Path) -> None:
    """Bring the gallery's database to its newest revision, from nothing if need be."""
    data.mkdir(parents=True, exist_ok=True)
    app = create_app({"GALLERY_DATA": data}, mount=False)
    with app.app_context():
        upgrade()
        db.engine.dispose()


def set_password(data: Path, password: str, *, username: str = ADMIN_NAME) -> None:
    """Give an administrator a password; filled rows have one that nobody knows."""
    with open_database(data) as connection:
        user = update(AdminUser).where(AdminUser.username == username)
        connection.execute(user.values(password_hash=generate_password_hash(password)))


def check_links(data: Path) -> list[str]:
    """Return every path a photo row names and the storage tree does not have."""
    storage = Folders(data).storage
    with open_database(data) as connection:
        rows = connection.execute(select(Photo.path, Photo.thumbnail_path, Photo.preview_path))
        paths = [path for row in rows for path in row]
    return sorted(path for path in paths if not (storage / path).is_file())
