"""From an address to a storage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from backup_admin.core.errors import UsageError
from backup_admin.storage.local import LocalStorage

if TYPE_CHECKING:
    from backup_admin.storage.base import Storage


def open_storage(address: str) -> Storage:
    """Open the storage an address names: a folder or a `file://` address.

    Raises `UsageError` for an address of another kind.
    """
    if "://" not in address:
        return LocalStorage(_absolute(address))
    parts = urlsplit(address)
    if (
        parts.scheme == "file"
        and parts.netloc in ("", "localhost")
        and not parts.query
        and not parts.fragment
    ):
        return LocalStorage(_absolute(unquote(parts.path)))
    raise UsageError(
        f"{parts.scheme}:// is not an address this version can open; give a folder or file:///folder."
    )


def local_folder(storage: Storage) -> Path | None:
    """Return the folder a storage lies in when it is on this machine."""
    return storage.folder if isinstance(storage, LocalStorage) else None


def _absolute(text: str) -> Path:
    if not text or "\0" in text:
        raise UsageError("The storage address is empty or holds NUL.")
    return Path(text).expanduser().absolute()
