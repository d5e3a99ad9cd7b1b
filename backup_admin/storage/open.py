"""From an address to a storage."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

from backup_admin.core.errors import UsageError
from backup_admin.storage.local import LocalStorage
from backup_admin.storage.s3_place import parse_s3_address

if TYPE_CHECKING:
    from backup_admin.storage.base import Storage
    from backup_admin.storage.s3_place import S3Credentials


def open_storage(
    address: str,
    *,
    state: Path,
    allow_private: bool = True,
    quick: bool = False,
    credentials: S3Credentials | None = None,
) -> Storage:
    """Open the storage an address names: a folder, `file:///…`, `s3://bucket/…` or `ssh://user@host/…`.

    Nothing is written there. `state` is the state folder, where our own ssh key lies.
    `allow_private` lets an endpoint be a private address: for who gives the
    address also runs this machine. `quick` is for a person who waits for the answer: what fails is
    not tried again for long. `credentials` are for a bucket, where the address names no profile; without
    them the usual chain finds some. Raises `UsageError` for an address of another kind.
    """
    if "://" not in address:
        return LocalStorage(_absolute(address))
    if address.startswith("s3://"):
        # The client library takes a quarter of a second to load, so only who needs it does.
        s3 = import_module("backup_admin.storage.s3")
        return cast(
            "Storage",
            s3.open_s3(address, allow_private=allow_private, quick=quick, credentials=credentials),
        )
    if address.startswith("ssh://"):
        ssh = import_module("backup_admin.storage.ssh")
        own = state / "ssh"
        return cast(
            "Storage", ssh.open_ssh(address, own_folder=own, allow_private=allow_private, quick=quick)
        )
    return LocalStorage(_file_path(address))


def folder_of(address: str) -> Path | None:
    """Return the folder an address names, or None when it is elsewhere; opens nothing."""
    if address.startswith(("s3://", "ssh://")):
        return None
    return _absolute(address) if "://" not in address else _file_path(address)


def asks_to_be_made(address: str) -> bool:
    """Say whether the address itself asks for its place to be made where it is missing."""
    return address.startswith("s3://") and parse_s3_address(address).create_bucket


def local_folder(storage: Storage) -> Path | None:
    """Return the folder a storage lies in when it is on this machine."""
    return storage.folder if isinstance(storage, LocalStorage) else None


def _file_path(address: str) -> Path:
    parts = urlsplit(address)
    if (
        parts.scheme == "file"
        and parts.netloc in ("", "localhost")
        and not parts.query
        and not parts.fragment
    ):
        return _absolute(unquote(parts.path))
    raise UsageError(
        f"{parts.scheme}:// is not an address this version can open; give a folder, file:///folder, "
        "s3://bucket/prefix or ssh://user@host/folder."
    )


def _absolute(text: str) -> Path:
    if not text or "\0" in text:
        raise UsageError("The storage address is empty or holds NUL.")
    return Path(text).expanduser().absolute()
