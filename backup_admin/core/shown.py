"""How sizes, times, names and counts are written for people on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.core.paths import show_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

_UNITS = ("kB", "MB", "GB", "TB", "PB")


def show_size(size: int) -> str:
    """Write a number of bytes for people: 999 B, 1.2 MB."""
    if size < 1000:
        return f"{size} B"
    value = float(size)
    for unit in _UNITS:
        value /= 1000
        if value < 999.95 or unit == _UNITS[-1]:
            break
    return f"{value:.1f} {unit}"


def show_time(moment: datetime) -> str:
    """Write a time in the zone of this machine."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def show_moment(moment: datetime) -> str:
    """Write a time in the zone of this machine and name the zone, for sentences that others read too."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M %Z")


def show_text(text: str) -> str:
    """Write foreign text on one line, with nothing a terminal would obey."""
    return show_path(text.encode("utf-8", "surrogateescape"))


def count_of(number: int, thing: str) -> str:
    """Write a number with its thing: 1 file, 2 files."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def agree(number: int, one: str, many: str) -> str:
    """Return the word that goes with a number of things: 1 refers, 2 refer."""
    return one if number == 1 else many


def columns(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> Iterator[str]:
    """Yield rows with aligned columns; those named in `right` end flush."""
    if not rows:
        return
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        cells = [
            text.rjust(width) if at in right else text.ljust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
