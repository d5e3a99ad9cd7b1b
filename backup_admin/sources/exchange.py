"""Swap a staged tree with the live one in place, and put it back.

One `renameat2` exchanges both names at once. Where the file system cannot do
that, three renames through a third name do; a crash in between leaves a state
that the next call of `swap` or `unswap` understands. Who is where is told by
inode numbers, taken when the plan was made, so every call may be repeated.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backup_admin.core.durable import exchange, make_folders, rename_new, sync_folder
from backup_admin.core.errors import NeedsAttention, RestoreRefused, SourceError
from backup_admin.core.paths import check_path, show_path
from backup_admin.sources.base import STAGING_PREFIX
from backup_admin.sources.beneath import FOLDER_FLAGS, open_parent, rename_beneath, stat_beneath
from backup_admin.sources.pins import Pins

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_CANNOT_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_STAGING = os.fsdecode(STAGING_PREFIX)


@dataclass(frozen=True, slots=True)
class SwapPair:
    """A live and a staged entry that change places; inode 0 means absent."""

    live: Path
    staged: Path
    live_inode: int
    staged_inode: int


def plan_swaps(live_root: Path, staged_root: Path, pinned: Iterable[Path]) -> tuple[SwapPair, ...]:
    """Decide which entries change places.

    The two roots do, unless something below the live root must stay where it is:
    a pinned path (a declared database with its sidecars, the state folder), the
    staged tree itself, or the root because it is a mount point. Then the folders
    on the way stay and what is in them changes places, one pair each.

    Raises `RestoreRefused` when the trees lie on different file systems or the
    staged tree has something else where a folder must stay.
    """
    if staged_root.is_symlink() or not staged_root.is_dir():
        raise RestoreRefused(f"The staged folder {staged_root} is not there.")
    live, staged = Path(os.path.realpath(live_root)), Path(os.path.realpath(staged_root))
    names = Pins(live, (*pinned, staged)).names
    keep = frozenset(live / os.fsdecode(name) for name in names)
    _refuse_mounts(live, staged, keep)
    if not keep and live not in _mount_points():
        return (_pair(live, staged),)
    return tuple(_pairs_below(live, staged, keep))


def swap(pair: SwapPair) -> None:
    """Bring the staged entry into place; the live one goes where it was.

    Safe to repeat, also after a crash at any point. Raises `NeedsAttention`
    when other entries than the planned ones are found; nothing moves then.
    """
    places = _Places.of(pair)
    if places.live == pair.staged_inode and not places.third:
        _sync(pair)
        return
    here = {places.live, places.staged, places.third}
    if here | {0} != {0, pair.live_inode, pair.staged_inode}:
        raise NeedsAttention(
            f"{pair.live} or {pair.staged} is not what it was when the restore was "
            "planned; nothing was moved there."
        )
    _settle(pair, pair.staged_inode)


def unswap(pair: SwapPair) -> None:
    """Put the old entry back; what is live now goes where the old one was.

    Safe to repeat, also after a crash of `swap` or of itself at any point. What
    the app has put in the place of the restored entry since is moved away like
    the restored entry itself; nothing is deleted. Raises `NeedsAttention` when
    the old entry is nowhere.
    """
    places = _Places.of(pair)
    if pair.live_inode == 0 and places.staged:
        return  # not swapped, or put back before; what is live now is the app's
    _settle(pair, pair.live_inode)


def carry(old_root: Path, new_root: Path, relative_paths: Iterable[bytes]) -> tuple[bytes, ...]:
    """Move paths that a backup leaves out from the old tree into the new one.

    Returns what this call moved. Safe to repeat: what is not in the old tree, or
    is in the new one already, or would lie below a file or symlink there, stays
    where it is. The way back is the same call with the roots exchanged. Folders
    on the way are made like those of the old tree.
    """
    with _opened(old_root) as old, _opened(new_root) as new:
        return tuple(path for path in relative_paths if _carry_one(old, new, path))


def is_mount_point(path: Path) -> bool:
    """Say whether something is mounted there, also a folder of the same file system."""
    return Path(os.path.realpath(path)) in _mount_points()


# --- planning --------------------------------------------------------------


def _pairs_below(live: Path, staged: Path, keep: frozenset[Path]) -> Iterator[SwapPair]:
    for name in sorted({*_names(live), *_names(staged)}):
        inner, new = live / name, staged / name
        if inner in keep or name.startswith(_STAGING):
            continue
        is_on_the_way = any(path.is_relative_to(inner) for path in keep)
        if not is_on_the_way or inner.is_symlink() or not inner.is_dir():
            yield _pair(inner, new)
            continue
        if os.path.lexists(new) and (new.is_symlink() or not new.is_dir()):
            raise RestoreRefused(
                f"{inner} has to stay, since something in it is not restored this way, "
                "but the snapshot has no folder of that name."
            )
        yield from _pairs_below(inner, new, keep)


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _pair(live: Path, staged: Path) -> SwapPair:
    return SwapPair(live, staged, _inode(live), _inode(staged))


def _refuse_mounts(live: Path, staged: Path, keep: frozenset[Path]) -> None:
    """Refuse what a rename cannot reach, or would take away together with a mount."""
    mounts = _mount_points()
    for mount in mounts:
        is_below = mount != live and mount.is_relative_to(live)
        if is_below and not any(mount.is_relative_to(path) for path in keep):
            raise RestoreRefused(
                f"{mount} is another file system inside {live}; declare it as a folder of "
                "its own, or leave it out."
            )
    place = live if live in mounts else live.parent
    if _mount_of(place, mounts) != _mount_of(staged, mounts):
        raise RestoreRefused(f"{staged} and {live} do not lie on the same file system.")


def _mount_of(path: Path, mounts: frozenset[Path]) -> Path:
    return next(folder for folder in (path, *path.parents) if folder in mounts or folder == folder.parent)


def _mount_points() -> frozenset[Path]:
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return frozenset()
    return frozenset(Path(os.fsdecode(_unescaped(line.split(b" ")[4]))) for line in lines)


def _unescaped(raw: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), raw)


# --- moving ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Places:
    """Which inode is where; the third place is used without RENAME_EXCHANGE only."""

    live: int
    staged: int
    third: int

    @classmethod
    def of(cls, pair: SwapPair) -> _Places:
        return cls(_inode(pair.live), _inode(pair.staged), _inode(_third(pair)))


def _settle(pair: SwapPair, wanted: int) -> None:
    """Move, one step at a time, until the wanted inode is live; 0 means nothing is.

    Each step is decided from what is where now, so a crash between two steps
    costs nothing: the next call sees the same state and goes on, either way.
    """
    try:
        while not _step(pair, wanted):
            pass
    except FileExistsError as error:
        raise NeedsAttention(
            f"Something new appeared at {error.filename2 or error.filename} while {pair.live} "
            "was exchanged; move it away and try again."
        ) from error
    except OSError as error:
        raise SourceError(f"{pair.live} could not be exchanged: {error.strerror}.") from error


def _step(pair: SwapPair, wanted: int) -> bool:
    """Take the next step; true when there is none left."""
    places = _Places.of(pair)
    third = _third(pair)
    if places.live == wanted:
        if not places.third:
            _sync(pair)
            return True
        _move(third, pair.staged)
    elif wanted not in (0, places.staged, places.third):
        raise NeedsAttention(f"What belongs at {pair.live} is neither there nor at {pair.staged}.")
    elif places.live == 0:
        _move(pair.staged if places.staged == wanted else third, pair.live)
    elif wanted != 0 and places.staged == wanted:
        _exchange_or_begin(pair)
    else:
        _move(pair.live, pair.staged)
    return False


def _exchange_or_begin(pair: SwapPair) -> None:
    """Exchange in one step, or take the first of three."""
    try:
        exchange(pair.live, pair.staged)
    except OSError as error:
        if error.errno not in _CANNOT_EXCHANGE:
            raise
        _move(pair.live, _third(pair))
    _sync(pair)


def _move(source: Path, target: Path) -> None:
    make_folders(target.parent)
    rename_new(source, target)
    sync_folder(target.parent)
    sync_folder(source.parent)


def _third(pair: SwapPair) -> Path:
    return pair.staged.with_name(f"{_STAGING}swap-{pair.staged.name}")


def _sync(pair: SwapPair) -> None:
    for folder in (pair.live.parent, pair.staged.parent):
        with suppress(FileNotFoundError):  # the staged tree was cleaned up before
            sync_folder(folder)


def _inode(path: Path) -> int:
    try:
        return path.lstat().st_ino
    except (FileNotFoundError, NotADirectoryError):
        return 0


# --- carrying --------------------------------------------------------------


def _carry_one(old: int, new: int, path: bytes) -> bool:
    try:
        check_path(path)
    except ValueError as error:
        raise RestoreRefused(f"{show_path(path)} is not moved: {error}.") from error
    if stat_beneath(old, path) is None or stat_beneath(new, path) is not None:
        return False
    try:
        _make_parents(old, new, path)
        rename_beneath(old, path, new, path)
    except (FileExistsError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise SourceError(f"{show_path(path)} could not be moved: {error.strerror}.") from error
    return True


def _make_parents(old: int, new: int, path: bytes) -> None:
    parts = path.split(b"/")[:-1]
    for count in range(1, len(parts) + 1):
        folder = b"/".join(parts[:count])
        if stat_beneath(new, folder) is not None:
            continue
        model = stat_beneath(old, folder)
        with open_parent(new, folder) as (parent, name):
            before = os.fstat(parent)
            os.mkdir(name, 0o700, dir_fd=parent)
            os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
            handle = os.open(name, FOLDER_FLAGS, dir_fd=parent)
            try:
                os.fchmod(handle, model.st_mode & 0o777 if model else 0o700)
            finally:
                os.close(handle)


@contextmanager
def _opened(root: Path) -> Iterator[int]:
    try:
        handle = os.open(root, FOLDER_FLAGS)
    except OSError as error:
        raise SourceError(f"{root} cannot be opened: {error.strerror}.") from error
    try:
        yield handle
    finally:
        os.close(handle)
