"""How one folder tree is exchanged in place, as plain data and as deed.

Which entries change places, which stay because they are pinned or left out of
backups, and which folders get the snapshot's modes and times: all of it is in
the journal first, so that it can be repeated or taken back by another process.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backup_admin.core.paths import path_from_json, path_to_json
from backup_admin.sources.base import STAGING_PREFIX, Skipped, SkipReason
from backup_admin.sources.exchange import SwapPair, carry, plan_swaps, swap, unswap

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from backup_admin.operations.restore_parts import TreePart
    from backup_admin.repository.types import FileEntry, FilesRoot
    from backup_admin.sources.files import FileSource

_CARRIED = frozenset({SkipReason.EXCLUDED, SkipReason.SPECIAL})


@dataclass(frozen=True, slots=True)
class KeptFolder:
    """A folder that stays in place; mode and time it gets, and those it had."""

    path: bytes
    after: tuple[int, int]
    before: tuple[int, int]


@dataclass(frozen=True, slots=True)
class TreeSwap:
    """How one tree is exchanged."""

    pairs: tuple[SwapPair, ...]
    carried: tuple[bytes, ...]
    folders: tuple[KeptFolder, ...]


def carried_paths(source: FileSource) -> list[bytes]:
    """Return the live entries a backup leaves out on purpose: they stay where they are.

    What a restore itself keeps beside the live state is not among them.
    """
    if not source.root.is_dir():
        return []
    return [
        item.path
        for item in source.walk()
        if isinstance(item, Skipped)
        and item.reason in _CARRIED
        and not item.path.rpartition(b"/")[2].startswith(STAGING_PREFIX)
    ]


def plan_tree(part: TreePart, source: FileSource, root: FilesRoot, entries: Iterable[FileEntry]) -> TreeSwap:
    """Decide how a tree is exchanged: which entries move, which stay, which folders get times."""
    pairs = _plan_pairs(part, source.pinned)
    carried = tuple(carried_paths(source))
    stay = _folders_that_stay(part, pairs) | {path.rpartition(b"/")[0] for path in carried}
    folders = []
    if stay:
        rows = [(entry.path, entry.mode, entry.mtime_ns) for entry in entries if entry.path in stay]
        for path, mode, mtime_ns in [(b"", root.mode, root.mtime_ns), *rows]:
            live = Path(part.live) / os.fsdecode(path)
            if live.is_dir():
                now = live.stat()
                before = (stat.S_IMODE(now.st_mode), now.st_mtime_ns)
                folders.append(KeptFolder(path, (mode, mtime_ns), before))
    return TreeSwap(pairs, carried, tuple(folders))


def swap_tree(part: TreePart, planned: TreeSwap) -> None:
    """Exchange the live tree and the staged one; folders that stay get mode and time."""
    for pair in planned.pairs:
        swap(pair)
    if planned.carried and part.staged.is_dir():
        carry(part.staged, Path(part.live), planned.carried)
    for folder in reversed(planned.folders):
        _set_folder(part, folder.path, *folder.after)


def unswap_tree(part: TreePart, planned: TreeSwap) -> None:
    """Put back what `swap_tree` exchanged, however far it came."""
    pairs, carried = planned.pairs, planned.carried
    if carried and part.staged.is_dir() and Path(part.live).is_dir():
        carry(Path(part.live), part.staged, carried)
    for pair in reversed(pairs):
        unswap(pair)
    for folder in reversed(planned.folders):
        _set_folder(part, folder.path, *folder.before)


def tree_swap_to_json(planned: TreeSwap) -> dict[str, Any]:
    """Write how a tree is exchanged for the journal."""
    return {
        "pairs": [
            [_name(pair.live), _name(pair.staged), pair.live_inode, pair.staged_inode]
            for pair in planned.pairs
        ],
        "carried": [path_to_json(path) for path in planned.carried],
        "folders": [
            [path_to_json(folder.path), list(folder.after), list(folder.before)] for folder in planned.folders
        ],
    }


def tree_swap_from_json(value: Mapping[str, Any]) -> TreeSwap:
    """Read what `tree_swap_to_json` wrote."""
    return TreeSwap(
        tuple(
            SwapPair(_path(live), _path(staged), int(old), int(new))
            for live, staged, old, new in value["pairs"]
        ),
        tuple(path_from_json(path) for path in value["carried"]),
        tuple(
            KeptFolder(path_from_json(path), (int(after[0]), int(after[1])), (int(before[0]), int(before[1])))
            for path, after, before in value["folders"]
        ),
    )


def _plan_pairs(part: TreePart, pinned: Sequence[Path]) -> tuple[SwapPair, ...]:
    """Decide which entries are exchanged, without ever moving a pinned path."""
    inside = Path(part.work).parent == Path(part.live)
    return plan_swaps(Path(part.live), part.staged, (*pinned, Path(part.work)) if inside else pinned)


def _folders_that_stay(part: TreePart, pairs: Sequence[SwapPair]) -> set[bytes]:
    live = Path(part.live)
    if any(pair.live == live for pair in pairs):
        return set()
    stay = {b""}
    for pair in pairs:
        for folder in pair.live.parents:
            if folder == live:
                break
            stay.add(os.fsencode(folder.relative_to(live)))
    return stay


def _set_folder(part: TreePart, path: bytes, mode: int, mtime_ns: int) -> None:
    folder = Path(part.live) / os.fsdecode(path)
    folder.chmod(mode & 0o777)
    os.utime(folder, ns=(mtime_ns, mtime_ns))


def _name(path: Path) -> Any:
    return path_to_json(os.fsencode(path))


def _path(value: Any) -> Path:
    return Path(os.fsdecode(path_from_json(value)))
