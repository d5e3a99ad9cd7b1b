"""The demo's data folder: make it, fill it, throw it away, and its password."""

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from examples.gallery.fill import Profile, fill, set_password
from examples.gallery.folders import Folders

_MARK = "gallery-demo"


class FolderRefused(Exception):
    """The data folder is not ours to use; the message says why."""


@dataclass(frozen=True, slots=True)
class Household:
    """A data folder that is ready, and how to get in."""

    data: Path
    password: str
    is_new: bool


def keep_house(data: Path, profile: Profile, *, fresh: bool = False) -> Household:
    """Return the data folder, filled now if it is not yet.

    `fresh` throws an earlier demo away first. A folder that holds anything else is
    refused. A fill that broke off is done again.
    """
    _claim(data)
    if fresh:
        _empty(data)
    ready = data / "filled"
    is_new = not ready.exists()
    if is_new:
        _empty(data)
        _write_private(data / "secret.key", secrets.token_hex(32))
        _write_private(data / "password", secrets.token_urlsafe(12))
        fill(data, profile)
        set_password(data, (data / "password").read_text())
        ready.write_text(f"{profile.name}\n")
    return Household(data, (data / "password").read_text(), is_new)


def lose_everything(data: Path) -> None:
    """Delete the whole storage tree's content, as a wrong command does."""
    _empty(Folders(data).storage)


def _claim(data: Path) -> None:
    """Make the folder and mark it as ours, so that `--fresh` deletes nothing else."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    mark = data / _MARK
    if mark.exists():
        return
    if any(data.iterdir()):
        raise FolderRefused(f"{data} holds something else; name an empty folder.")
    mark.write_text("The gallery demo keeps its data here and may delete it all.\n")
    (data / ".gitignore").write_text("*\n")


def _empty(folder: Path) -> None:
    """Delete what a folder holds, but not the marks that make it ours."""
    for entry in folder.iterdir():
        if entry.name in {_MARK, ".gitignore"}:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _write_private(path: Path, content: str) -> None:
    path.touch(mode=0o600)
    path.write_text(content)
