"""Put a copy in the place of a SQLite file that cannot be written into.

A database is its file and its sidecars (-wal, -shm, -journal) together. A new
file beside an old sidecar silently becomes the old one again, or a blend of
both; so the sidecars leave first and come back last. What is where is told by
inode numbers in a small plan, so that every function may be repeated after a
crash at any point. Nothing here opens a database.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backup_admin.core.durable import (
    make_folders,
    rename_new,
    replace_file,
    sync_folder,
)
from backup_admin.core.errors import (
    Busy,
    NeedsAttention,
    RestoreRefused,
    SourceMissing,
)
from backup_admin.sources.base import STAGING_PREFIX
from backup_admin.sources.sidecars import SIDECAR_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator

_PLAN = "place.json"
_SUFFIXES = tuple(os.fsdecode(suffix) for suffix in SIDECAR_SUFFIXES)


@dataclass(frozen=True, slots=True)
class _Plan:
    staged: str
    staged_inode: int
    live_inode: int


def place_offline(copy: Path, live: Path, aside: Path) -> None:
    """Move the old database aside and the copy into its place.

    `aside` is a folder on the file system of `live`; it keeps the old files for
    `undo_place_offline`. The copy is used up. Safe to repeat after a crash.
    Raises `Busy` when a process has one of the files open, before anything moves.
    """
    plan = _read_plan(aside) or _make_plan(copy, live, aside)
    if _inode(live) == plan.staged_inode:
        _sync(live, aside)
        return
    staged = Path(plan.staged)
    _need_staged(staged, plan)
    _refuse_holders(live)
    _take_owner_and_mode(staged, live)
    for path in _sidecars(live):
        _move_aside(path, aside)
    _move_aside(live, aside)
    sync_folder(live.parent)
    rename_new(staged, live)
    _sync(live, aside)


def undo_place_offline(live: Path, aside: Path) -> None:
    """Put the old database and its sidecars back; the new one stays in `aside`.

    Safe to repeat, and the only way on once it has begun; does nothing when
    nothing was placed. Raises `Busy` as
    `place_offline` does, and `NeedsAttention` when the files in place are
    neither the old nor the new ones.
    """
    plan = _read_plan(aside)
    if plan is None:
        return
    if _inode(live) == plan.staged_inode:
        _refuse_holders(live)
        for path in _sidecars(live):
            _move_aside(path, aside, ending=".undone")
        _move_aside(live, aside, ending=".undone")
        sync_folder(live.parent)
    _put_back(live, aside, plan)
    _sync(live, aside)
    (aside / _PLAN).unlink()
    sync_folder(aside)


def _put_back(live: Path, aside: Path, plan: _Plan) -> None:
    if _inode(live) not in (0, plan.live_inode):
        raise NeedsAttention(
            f"{live} is neither the database from before the restore nor the "
            f"restored one; the old one is kept in {aside}."
        )
    kept = aside / live.name
    if _inode(kept) == plan.live_inode != 0:
        rename_new(kept, live)
    for path in _sidecars(live):
        kept = aside / path.name
        if not os.path.lexists(kept):
            continue
        if os.path.lexists(path):
            raise NeedsAttention(
                f"{live} was opened while it was being put back; its old journal is kept as {kept}."
            )
        rename_new(kept, path)


def _make_plan(copy: Path, live: Path, aside: Path) -> _Plan:
    if not copy.is_file():
        raise SourceMissing(f"{copy} is not there; nothing was moved.")
    if live.is_symlink() or live.is_dir():
        raise RestoreRefused(f"{live} is not a file of its own; nothing was moved.")
    make_folders(aside)
    folder = live.parent.stat()
    if aside.stat().st_dev != folder.st_dev:
        raise RestoreRefused(f"{aside} is not on the file system of {live}; nothing was moved.")
    staged = copy.resolve()
    if copy.stat().st_dev != folder.st_dev:
        staged = _copy_beside(copy, live)
    plan = _Plan(str(staged), _inode(staged), _inode(live))
    replace_file(aside / _PLAN, json.dumps(asdict(plan)).encode("ascii"))
    return plan


def _copy_beside(copy: Path, live: Path) -> Path:
    beside = live.parent / f"{os.fsdecode(STAGING_PREFIX)}{live.name}.new"
    with suppress(FileNotFoundError):
        beside.unlink()
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with copy.open("rb") as source, os.fdopen(handle, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
        target.flush()
        os.fsync(target.fileno())
    return beside


def _read_plan(aside: Path) -> _Plan | None:
    try:
        return _Plan(**json.loads((aside / _PLAN).read_bytes()))
    except FileNotFoundError:
        return None


def _need_staged(staged: Path, plan: _Plan) -> None:
    if _inode(staged) != plan.staged_inode:
        raise NeedsAttention(f"The restored database {staged} is gone and not in place either.")
    with staged.open("rb") as file:
        os.fsync(file.fileno())


def _take_owner_and_mode(staged: Path, live: Path) -> None:
    """Give the copy the mode of the old file; its owner where we may."""
    try:
        model = live.lstat()
        staged.chmod(model.st_mode & 0o777)
    except FileNotFoundError:
        model = live.parent.stat()
    if os.geteuid() == 0:
        os.chown(staged, model.st_uid, model.st_gid)


def _sidecars(live: Path) -> tuple[Path, ...]:
    return tuple(Path(f"{live}{suffix}") for suffix in _SUFFIXES)


def _move_aside(path: Path, aside: Path, *, ending: str = "") -> None:
    if not os.path.lexists(path):
        return
    for number in range(100):
        # A second one under the name exists only after a crash in between.
        target = aside / f"{path.name}{ending}{f'.{number}' if number else ''}"
        with suppress(FileExistsError):
            rename_new(path, target)
            return
    raise NeedsAttention(f"Too many old files in {aside}.")


def _refuse_holders(live: Path) -> None:
    """Look through the processes we may look into for one that uses the files."""
    wanted = set()
    for path in (live, *_sidecars(live)):
        with suppress(FileNotFoundError):
            found = path.lstat()
            wanted.add((found.st_dev, found.st_ino))
    holders = sorted({pid for pid, file in _open_files() if file in wanted})
    if holders:
        listed = ", ".join(map(str, holders[:5]))
        raise Busy(f"{live} is in use by process {listed}; stop it and try again.")


def _open_files() -> Iterator[tuple[int, tuple[int, int]]]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            for handle in os.scandir(process / "fd"):
                with suppress(OSError):
                    found = handle.stat()
                    yield int(process.name), (found.st_dev, found.st_ino)
        except OSError:
            continue  # ended meanwhile, or not ours to look into


def _inode(path: Path) -> int:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return 0


def _sync(live: Path, aside: Path) -> None:
    sync_folder(live.parent)
    sync_folder(aside)
