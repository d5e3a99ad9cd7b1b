"""What was seen of a repository's history: kept outside it, to notice what goes missing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.durable import replace_file
from backup_admin.core.errors import HistoryChanged
from backup_admin.core.ids import ULID_ALPHABET, is_ulid
from backup_admin.repository.history import Head
from backup_admin.repository.keys import sha256

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_REMEMBERED = 1000
_NAMED = 10
_TIME_DIGITS = 10
_OF_MIRROR = ".mirror-"


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest entry that was seen, and the newest snapshots there were then."""

    head: Head
    snapshots: tuple[str, ...] = ()

    def missing(self, present: Collection[str]) -> str:
        """Name the snapshots that were there and are not, in a sentence; empty when none is."""
        gone = [snapshot for snapshot in self.snapshots if snapshot not in present]
        if not gone:
            return ""
        named = ", ".join(_with_time(snapshot) for snapshot in reversed(gone[-_NAMED:]))
        more = f" and {len(gone) - _NAMED} more" if len(gone) > _NAMED else ""
        return f"No longer there: {named}{more}."


def seen_file(heads: Path, repo_id: str, label: str) -> Path:
    """Return where the newest entry seen in a storage is kept.

    A mirror that is known here has a file of its own: it may be behind, which in the repository
    itself would mean that snapshots were lost.
    """
    own = _mirror_file(heads, repo_id, label)
    return own if own.exists() else heads / f"{repo_id}.json"


def note_mirror(heads: Path, repo_id: str, *, source: str, mirror: str) -> None:
    """Remember which of two storages is the mirror, by their labels."""
    _mirror_file(heads, repo_id, source).unlink(missing_ok=True)
    path = _mirror_file(heads, repo_id, mirror)
    if not path.exists():
        replace_file(path, dump_canonical({"repo_id": ""}))


def is_noted(heads: Path, repo_id: str, label: str) -> bool:
    """Say whether a storage is known here as a mirror."""
    return _mirror_file(heads, repo_id, label).exists()


def forget_mirror(heads: Path, label: str) -> None:
    """Forget that a storage was a mirror: what is missing there counts as lost from now on."""
    for path in heads.glob(_mirror_file(Path(), "*", label).name):
        path.unlink(missing_ok=True)


def is_of_mirror(state_name: str) -> bool:
    """Say whether what is kept under this name in the state folder is about a mirror."""
    return _OF_MIRROR in state_name


def _mirror_file(heads: Path, repo_id: str, label: str) -> Path:
    return heads / f"{repo_id}{_OF_MIRROR}{sha256(label.encode()).hex()[:16]}.json"


def read_seen(path: Path | None, repo_id: bytes) -> Seen | None:
    """Return what was seen of this repository; raise `HistoryChanged` when the file is damaged."""
    if path is None or not os.path.lexists(path):
        return None
    try:
        value = load_strict(path.read_bytes())
        if value["repo_id"] != repo_id.hex():
            return None
        snapshots = tuple(map(str, value.get("snapshots", ())))
        return Seen(Head(int(value["seq"]), str(value["digest"])), snapshots)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise HistoryChanged(
            f"{path} cannot be read ({error}); it tells whether the repository lost snapshots. "
            "Remove it to go on without that check."
        ) from error


def write_seen(path: Path | None, repo_id: bytes, head: Head, snapshots: Sequence[str]) -> None:
    """Remember the newest entry, unless another process has seen a newer one."""
    seen = read_seen(path, repo_id)
    if path is None or head.seq == 0 or (seen is not None and seen.head.seq > head.seq):
        return
    newest = tuple(snapshots[-_REMEMBERED:])
    if seen != Seen(head, newest):
        body = {"repo_id": repo_id.hex(), "seq": head.seq, "digest": head.digest, "snapshots": newest}
        replace_file(path, dump_canonical(body))


def _with_time(snapshot: str) -> str:
    """Write an id with the time it carries."""
    if not is_ulid(snapshot):
        return snapshot
    milliseconds = 0
    for letter in snapshot[:_TIME_DIGITS]:
        milliseconds = milliseconds << 5 | ULID_ALPHABET.index(letter)
    try:
        return f"{snapshot} of {datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError):
        return snapshot
