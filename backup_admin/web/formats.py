"""Numbers, sizes and times as people read them: the filters of our templates."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape

from backup_admin.web.words import word

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")
_SPANS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


def text(message: str) -> Markup:
    """Write a message of ours; what stands between backticks is shown as code."""
    parts = str(message).split("`")
    if len(parts) % 2 == 0:
        return escape(message)
    pieces = (
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
        for index, part in enumerate(parts)
    )
    return Markup("").join(pieces)


def number(value: int) -> str:
    """Write a whole number in groups of three."""
    return f"{value:,}"


def count(value: int, noun: str) -> str:
    """Write a number with its noun: 1 file, 2 files, 3 entries."""
    if value == 1:
        return f"1 {noun}"
    plural = f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeo" else f"{noun}s"
    return f"{value:,} {plural}"


def size(value: int | None) -> str:
    """Write a number of bytes with three digits and a unit."""
    if value is None:
        return "unknown"
    amount, unit = float(value), 0
    while amount >= 999.5 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    if unit == 0:
        return count(value, "byte")
    digits = 0 if amount >= 99.95 else 1 if amount >= 9.995 else 2
    return f"{amount:.{digits}f} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """Write how long something took."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def span(seconds: float) -> str:
    """Write a span roughly, in its largest fitting unit."""
    for length, noun in _SPANS:
        if seconds >= length * (2 if noun == "day" else 1):
            return count(int(seconds // length), noun)
    return "a moment"


def ago(moment: datetime, now: datetime) -> str:
    """Write how long ago a moment was."""
    return f"{span((now - moment).total_seconds())} ago"


def until(moment: datetime, now: datetime) -> str:
    """Write how far away a moment is."""
    seconds = (moment - now).total_seconds()
    return f"in {span(seconds)}" if seconds > 0 else "due now"


def in_zone(moment: datetime, zone: str) -> str:
    """Write a moment in a time zone, to the minute."""
    local = moment.astimezone(ZoneInfo(zone))
    return f"{local.day} {local:%b %Y, %H:%M}"


def iso(moment: datetime) -> str:
    """Write a moment for machines."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def day(value: date) -> str:
    """Write a day."""
    return f"{value.day} {value:%b}"


def filters(now: Callable[[], datetime], zone: Callable[[], str]) -> dict[str, Callable[..., object]]:
    """Return the filters; `now` and `zone` are asked at each use."""
    return {
        "ba_text": text,
        "ba_number": number,
        "ba_count": count,
        "ba_bytes": size,
        "ba_duration": duration,
        "ba_iso": iso,
        "ba_date": day,
        "ba_word": lambda state: word(str(state)),
        "ba_ago": lambda moment: ago(moment, now()),
        "ba_age": lambda moment: span((now() - moment).total_seconds()),
        "ba_until": lambda moment: until(moment, now()),
        "ba_moment": lambda moment: in_zone(moment, zone()),
        "ba_zone_moment": in_zone,
    }
