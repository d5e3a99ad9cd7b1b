"""Objects that nothing names: runs that were interrupted left them, or are storing them now."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.clock import format_time, parse_time
from backup_admin.core.durable import replace_file
from backup_admin.repository import index, manifests, packs
from backup_admin.storage import probe

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime
    from pathlib import Path

    from backup_admin.core.state import StateFolder
    from backup_admin.storage.base import ObjectInfo, Storage

_WAIT = timedelta(hours=24)
_PREFIXES = (packs.PREFIX, index.PREFIX, manifests.PREFIX)


@dataclass(frozen=True, slots=True)
class Unknown:
    """Objects that nothing names: those that may go, and those that were not seen for long enough."""

    ripe: tuple[ObjectInfo, ...]
    young: tuple[ObjectInfo, ...]


class FirstSeen:
    """When this state folder saw each unknown object of a repository for the first time."""

    def __init__(self, state: StateFolder, state_name: str) -> None:
        self._path: Path = state.heads / f"{state_name}.unknown.json"

    def read(self) -> dict[str, str]:
        """Return the times by name; damaged notes count as none, so that everything waits again."""
        with suppress(OSError, ValueError, AttributeError, OverflowError):
            return {str(name): str(time) for name, time in load_strict(self._path.read_bytes()).items()}
        return {}

    def write(self, names: Iterable[str], now: datetime) -> None:
        """Note what is there now, each with the time it was seen first."""
        notes = self.read()
        present = {name: notes.get(name, format_time(now)) for name in names}
        if present != notes:
            replace_file(self._path, dump_canonical(present))


def find_unknown(storage: Storage, known: Collection[str]) -> list[ObjectInfo]:
    """List packs, index objects and manifests that are not among the known names, and what probes left."""
    probes = [info for info in storage.list_objects(probe.PREFIX) if probe.is_left_probe(storage, info.name)]
    objects = [info for prefix in _PREFIXES for info in storage.list_objects(prefix)]
    return [info for info in (*objects, *probes) if info.name not in known]


def sort_unknown(found: Iterable[ObjectInfo], seen: dict[str, str], now: datetime, *, every: bool) -> Unknown:
    """Say which of the objects may go: those seen a day ago and more, or `every` one."""
    ripe: list[ObjectInfo] = []
    young: list[ObjectInfo] = []
    for info in found:
        (ripe if every or _is_old(seen.get(info.name, ""), now) else young).append(info)
    return Unknown(tuple(ripe), tuple(young))


def _is_old(first_seen: str, now: datetime) -> bool:
    try:
        return now - parse_time(first_seen) >= _WAIT
    except ValueError:
        return False
