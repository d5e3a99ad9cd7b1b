"""What becomes of a value of SQLite in a column of PostgreSQL: declared casts, and nothing else.

A cast gives the text that PostgreSQL reads. `same_form` brings that text, and what is read back, into one
form, so that 4.5 and 4.50 compare as the number they are.
"""

from __future__ import annotations

import json
import math
import re
import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from backup_admin.sources.formats.importing import Refused
from backup_admin.sources.formats.sqlite_values import RawText, Value, value_from_json

if TYPE_CHECKING:
    from collections.abc import Callable

_RANGES = {"smallint": 15, "integer": 31, "bigint": 63}
_TEXTS = ("text", "character varying", "character", "citext", "name")
_SCALE = re.compile(r"numeric\((\d+),(-?\d+)\)")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIME = re.compile(r"\d\d:\d\d(:\d\d(\.\d{1,6})?)?", re.ASCII)
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)(Z|[+-]\d\d:?\d\d)?", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SINGLE_DIGITS = 6  # what a `real` keeps of any decimal


def postgres_cast(target: str) -> Callable[[Any], str | None]:
    """Return the cast of values of an export of SQLite to a type of PostgreSQL; it raises `Refused`."""
    cast = _cast_for(target)

    def safe(value: Any) -> str | None:
        try:
            found = value_from_json(value)
        except ValueError as error:
            raise Refused(str(error)) from error
        if found is None:
            return None
        text = cast(found)
        if "\0" in text:
            raise Refused("PostgreSQL keeps no text with NUL")
        return text

    return safe


def same_form(target: str) -> Callable[[str], str] | None:
    """Return what makes equal values of a type the same text; None where they are anyway."""
    forms: dict[str, Callable[[str], str]] = {
        "double precision": lambda text: repr(float(text)),
        "real": lambda text: repr(_as_single(float(text))),
        "numeric": _exact,
        "character": lambda text: text.rstrip(" "),
        "jsonb": _ordered,
    }
    return forms.get(base_of(target))


def base_of(target: str) -> str:
    """Return a type without its length or precision, which may stand in its middle."""
    return re.sub(r" +", " ", re.sub(r"\(.*?\)", "", target)).strip()


def _cast_for(target: str) -> Callable[[Value], str]:
    base = base_of(target)
    if target.startswith("enum(") or base in _TEXTS:
        return _text
    if base in _RANGES:
        return _integer(_RANGES[base])
    casts: dict[str, Callable[[Value], str]] = {
        "boolean": _boolean,
        "real": _single,
        "double precision": _double,
        "numeric": _numeric(target),
        "bytea": _bytes,
        "date": _date,
        "time without time zone": _time,
        "timestamp without time zone": _stamp,
        "timestamp with time zone": _stamp_with_zone,
        "uuid": _uuid,
        "json": _json,
        "jsonb": _json,
    }
    return casts.get(base) or _refuse(target)


def _refuse(target: str) -> Callable[[Value], str]:
    def refuse(_value: Value) -> str:
        raise Refused(f"SQLite has nothing that is {target}")

    return refuse


def _shown(value: Value) -> str:
    if isinstance(value, bytes | RawText):
        return "a blob" if isinstance(value, bytes) else "text that is not UTF-8"
    kind = {int: "the integer", float: "the real"}.get(type(value), "the text")
    return f"{kind} {str(value)[:60]!r}"


def _no(value: Value, what: str) -> Refused:
    return Refused(f"{_shown(value)} is no {what}")


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise _no(value, "text")
    return value


def _integer(bits: int) -> Callable[[Value], str]:
    def cast(value: Value) -> str:
        if not isinstance(value, int):
            raise _no(value, "integer")
        if not -(1 << bits) <= value < 1 << bits:
            raise Refused(f"{value} is too large for the column")
        return str(value)

    return cast


def _boolean(value: Value) -> str:
    if type(value) is not int or value not in (0, 1):
        raise _no(value, "truth value (0 or 1)")
    return "t" if value else "f"


def _double(value: Value) -> str:
    if isinstance(value, int) and int(float(value)) == value:
        return str(value)
    if not isinstance(value, float):
        raise _no(value, "real number")
    return "Infinity" if value == math.inf else "-Infinity" if value == -math.inf else repr(value)


def _single(value: Value) -> str:
    text = _double(value)
    if not isinstance(value, int | float) or not math.isfinite(value):
        return text
    digits = len(Decimal(text).normalize().as_tuple().digits)
    try:
        kept = _as_single(value)
    except OverflowError as error:
        raise Refused(f"{text} is too large for the column") from error
    if kept != value and (digits > _SINGLE_DIGITS or abs(value) < 1.2e-38):
        raise Refused(f"{text} has more digits than the column keeps")
    return text


def _as_single(value: float) -> float:
    (kept,) = struct.unpack("<f", struct.pack("<f", value))
    return float(kept)


def _numeric(target: str) -> Callable[[Value], str]:
    found = _SCALE.fullmatch(target)
    scale = None if found is None else int(found[2])

    def cast(value: Value) -> str:
        if isinstance(value, float) and not math.isfinite(value):
            return _double(value)
        if not isinstance(value, int | float | str):
            raise _no(value, "number")
        text = repr(value) if isinstance(value, float) else str(value)
        if not _NUMBER.fullmatch(text):
            raise _no(value, "number")
        number = Decimal(text)
        if scale is not None and number != round(number, scale):
            raise Refused(f"{text[:60]} would be rounded")
        return text

    return cast


def _bytes(value: Value) -> str:
    if not isinstance(value, bytes):
        raise _no(value, "blob")
    return f"\\x{value.hex()}"


def _date(value: Value) -> str:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        raise _no(value, "date (YYYY-MM-DD)")
    return value


def _time(value: Value) -> str:
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise _no(value, "time (HH:MM:SS)")
    return _short(value)


def _stamp(value: Value) -> str:
    matched = _STAMP.fullmatch(value) if isinstance(value, str) else None
    if matched is None:
        raise _no(value, "time (YYYY-MM-DD HH:MM:SS)")
    if matched[3]:
        raise Refused(f"{value!r} has a zone, which the column would drop")
    return f"{matched[1]} {_short(matched[2])}"


def _stamp_with_zone(value: Value) -> str:
    """Take a time without a zone as UTC."""
    matched = _STAMP.fullmatch(value) if isinstance(value, str) else None
    if matched is None:
        raise _no(value, "time (YYYY-MM-DD HH:MM:SS)")
    if not matched[3]:
        return f"{matched[1]} {_short(matched[2])}+00"
    try:
        moment = datetime.fromisoformat(f"{matched[1]} {matched[2]}{matched[3]}").astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise _no(value, "time") from error
    return f"{moment.date()} {_short(moment.time().isoformat())}+00"


def _short(time: str) -> str:
    """Write a time of day as PostgreSQL does: with seconds, without zeros at the end."""
    if time.count(":") == 1:
        return f"{time}:00"
    return time.rstrip("0").rstrip(".") if "." in time else time


def _uuid(value: Value) -> str:
    text = value.hex() if isinstance(value, bytes) else str(value).replace("-", "").lower()
    if not _UUID.fullmatch(text):
        raise _no(value, "uuid")
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _json(value: Value) -> str:
    """Take JSON as it is written; a number as what a column of that kind made of it."""
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    if not isinstance(value, str):
        raise _no(value, "JSON")
    try:
        json.loads(value, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _no(value, "JSON") from error
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _exact(text: str) -> str:
    """Write a decimal number without zeros that say nothing."""
    number = Decimal(text)
    if not number.is_finite():
        return str(number)
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _ordered(text: str) -> str:
    value = json.loads(text, parse_float=_as_number, parse_int=_as_number)
    return json.dumps(value, sort_keys=True)


def _as_number(text: str) -> list[str]:
    return ["number", _exact(text)]
