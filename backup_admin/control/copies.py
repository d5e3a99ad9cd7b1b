"""The 3-2-1 rule: three copies, on two kinds of storage, one of them away from this machine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from backup_admin.core.errors import UsageError
from backup_admin.core.shown import count_of
from backup_admin.storage.open import folder_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from backup_admin.control.destinations import PlaceState
    from backup_admin.core.settings import Settings

_HERE = ("localhost", "127.", "::1")


class Medium(StrEnum):
    """What kind of storage a copy lies on."""

    SAME_DISK = "same_disk"
    OTHER_DISK = "other_disk"
    BUCKET = "bucket"
    HOST = "host"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Copies:
    """How far the rule is kept, the app's own data counted as the first copy."""

    copies: int
    kinds: int
    away: int

    @property
    def is_kept(self) -> bool:
        """Whether all three parts of the rule are kept."""
        return self.copies >= 3 and self.kinds >= 2 and self.away >= 1

    @property
    def sentence(self) -> str:
        """Say how far the rule is kept, and what is missing."""
        copies = "1 copy" if self.copies == 1 else f"{self.copies} copies"
        counted = f"{copies}, on {count_of(self.kinds, 'kind')} of storage, {self.away} of them elsewhere"
        if self.is_kept:
            return f"The 3-2-1 rule is kept: {counted}."
        if not self.away:
            return f"The 3-2-1 rule is not kept: {counted}. Add a mirror on another machine."
        return f"The 3-2-1 rule is not kept: {counted}. Add a mirror on another kind of storage."


def count_copies(states: Iterable[PlaceState]) -> Copies:
    """Count the copies of the newest backup: storages whose last run came to a good end."""
    good = [state for state in states if not state.problem]
    kinds = {state.medium for state in good} | {Medium.SAME_DISK}
    return Copies(1 + len(good), len(kinds), sum(state.is_away for state in good))


def medium_of(address: str, settings: Settings) -> tuple[Medium, bool]:
    """Say what kind of storage an address is, seen from the app's data, and whether it is elsewhere."""
    if address.startswith("s3://"):
        endpoint = parse_qs(urlsplit(address).query).get("endpoint", ["aws"])[0]
        return Medium.BUCKET, _is_away(urlsplit(endpoint).hostname or endpoint)
    if address.startswith("ssh://"):
        return Medium.HOST, _is_away(urlsplit(address).hostname or "")
    try:
        folder = folder_of(address)
    except UsageError:
        return Medium.UNKNOWN, False
    if folder is None:
        return Medium.UNKNOWN, False
    disks = {_disk(one.path) for one in settings.files} | {_disk(settings.state_dir)}
    return Medium.SAME_DISK if _disk(folder) in disks else Medium.OTHER_DISK, False


def _is_away(host: str) -> bool:
    return bool(host) and not host.lower().startswith(_HERE)


def _disk(path: Path) -> int:
    """Return the device a path is or would be on."""
    while True:
        try:
            return path.stat().st_dev
        except OSError:
            if path == path.parent:
                return 0
            path = path.parent
