"""Where the gallery keeps its things below its data folder."""

from dataclasses import dataclass
from pathlib import Path

EXCLUDED_FOLDERS = ("temp/", "chunks/", ".download-cache/")


@dataclass(frozen=True, slots=True)
class Folders:
    """The paths below one data folder."""

    data: Path

    @property
    def storage(self) -> Path:
        """Return the tree of photos and their derivatives."""
        return self.data / "storage"

    @property
    def database(self) -> Path:
        """Return the SQLite file; it lies outside the storage tree."""
        return self.data / "gallery.db"

    @property
    def database_url(self) -> str:
        """Return the address SQLAlchemy opens the database with."""
        return f"sqlite:///{self.database.absolute()}"
