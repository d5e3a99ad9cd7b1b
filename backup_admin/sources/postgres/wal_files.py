"""What the files of a WAL archive are called and what must stand in them; needs no server."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.errors import SourceInvalid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SEGMENT = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})", re.ASCII)
_BACKUP = re.compile(r"([0-9A-F]{24})\.[0-9A-F]{8}\.backup", re.ASCII)
_LINE = re.compile(r"\s*(\d+)\s+([0-9A-F]+/[0-9A-F]+)\s")
# magic, flags, timeline, address of the page, rest of a record, system, bytes of a segment, bytes of a page
_LONG_HEADER = struct.Struct("=HHIQI4xQII")
_HAS_LONG_HEADER = 0x0002
_CONTROL = struct.Struct("=Q")


@dataclass(frozen=True, slots=True)
class Segment:
    """A WAL segment: the timeline it was written on, and its number."""

    timeline: int
    number: int

    def file(self, segment_bytes: int) -> str:
        """Return the name that the server gives it."""
        per_id = (1 << 32) // segment_bytes
        return f"{self.timeline:08X}{self.number // per_id:08X}{self.number % per_id:08X}"


@dataclass(frozen=True, slots=True)
class Switch:
    """Where a timeline ended and the next one of a history began."""

    timeline: int
    at: int


def parse_segment(file: str, segment_bytes: int) -> Segment | None:
    """Return the segment a file is, or a backup label is about; None for another file."""
    label = _BACKUP.fullmatch(file)
    found = SEGMENT.fullmatch(label[1] if label else file.removesuffix(".partial"))
    if found is None:
        return None
    timeline, high, low = (int(part, 16) for part in found.groups())
    return Segment(timeline, high * ((1 << 32) // segment_bytes) + low)


def parse_lsn(text: str) -> int:
    """Read a place in the WAL, as in 0/2000028; raise `ValueError`."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def show_lsn(lsn: int) -> str:
    """Write a place in the WAL as the server does."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def parse_history(data: bytes) -> tuple[Switch, ...]:
    """Read a timeline history file: the timelines before it, oldest first; raise `SourceInvalid`."""
    switches = []
    for line in data.decode("utf-8", "replace").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.match(line + " ")
        if found is None:
            raise SourceInvalid(f"A line of a timeline history cannot be read: {line[:100]!r}.")
        switches.append(Switch(int(found[1]), parse_lsn(found[2])))
    return tuple(switches)


def timeline_for(history: Sequence[Switch], target: int, number: int, segment_bytes: int) -> tuple[int, ...]:
    """Return the timelines that may have the segment needed on the way to `target`, newest first."""
    begins = 0
    found = []
    for switch in (*history, Switch(target, -1)):
        is_over = switch.at >= 0 and number > switch.at // segment_bytes
        if begins // segment_bytes <= number and not is_over:
            found.append(switch.timeline)
        begins = switch.at
    return tuple(reversed(found))


def read_system(data_folder: Path) -> str:
    """Return the identifier of the cluster in a folder; raise `SourceInvalid`."""
    path = data_folder / "global" / "pg_control"
    try:
        with path.open("rb") as file:
            (system,) = _CONTROL.unpack(file.read(_CONTROL.size))
    except (OSError, struct.error) as error:
        raise SourceInvalid(
            f"{path} cannot be read, so it is not known which cluster this is. Let the server call the "
            "command (%p), or begin in its data directory. Nothing was written."
        ) from error
    return f"{system:016x}"


def check_segment(file: str, data: bytes, system: str) -> None:
    """Refuse bytes that are not the segment of that name and cluster; raise `SourceInvalid`.

    Other files (histories, backup labels) say nothing about themselves, and pass.
    """
    if SEGMENT.fullmatch(file.removesuffix(".partial")) is None:
        return
    if len(data) < _LONG_HEADER.size:
        raise SourceInvalid(f"{file} has {len(data)} bytes, which is no WAL segment. Nothing was archived.")
    _, flags, timeline, address, _, found, segment_bytes, _ = _LONG_HEADER.unpack_from(data)
    if not flags & _HAS_LONG_HEADER or segment_bytes != len(data):
        raise SourceInvalid(f"{file} is no whole WAL segment. Nothing was archived.")
    segment = parse_segment(file, segment_bytes)
    if f"{found:016x}" != system:
        raise SourceInvalid(f"{file} is of cluster {found:016x}, not of {system}. Nothing was archived.")
    if segment is None or address != segment.number * segment_bytes or timeline > segment.timeline:
        raise SourceInvalid(f"{file} holds another segment than its name says. Nothing was archived.")
