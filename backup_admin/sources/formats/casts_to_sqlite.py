"""What becomes of a value of PostgreSQL, as text, in a column of SQLite: declared casts, and nothing else."""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from backup_admin.sources.formats.importing import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from backup_admin.sources.formats.sqlite_values import Value

_INTEGERS = ("smallint", "integer", "bigint", "oid")
_FLOATS = ("real", "double precision")
_TEXTS = ("text", "character varying", "citext", "name", '"char"')
_LARGEST = 1 << 63
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIME = re.compile(r"((?:[01]\d|2[0-3]):\d\d:\d\d)(?:\.(\d{1,6}))?", re.ASCII)
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(\+00)?", re.ASCII)
_TEXT, _NUMERIC, _INTEGER, _REAL, _BLOB = "TEXT", "NUMERIC", "INTEGER", "REAL", "BLOB"


def sqlite_cast(source: str, target: str) -> Callable[[Any], Value]:
    """Return the cast from a type of PostgreSQL to a declared type of SQLite; it raises `Refused`."""
    # `timestamp(3) with time zone` has its precision in the middle.
    base = re.sub(r" +", " ", re.sub(r"\(.*?\)", "", source)).strip()
    affinity = affinity_of(target)
    cast = _cast_for(source, base, affinity, target)

    def safe(value: Any) -> Value:
        if value is None:
            return None
        if not isinstance(value, str):
            raise Refused(f"{str(value)[:60]!r} is no value of PostgreSQL")
        try:
            return cast(value)
        except (ValueError, KeyError) as error:
            raise Refused(f"{value[:60]!r} is no {source}") from error

    return safe


def affinity_of(declared: str) -> str:
    """Return what a column makes of values, from its declared type, as SQLite decides it."""
    upper = declared.upper()
    if "INT" in upper:
        return _INTEGER
    if any(part in upper for part in ("CHAR", "CLOB", "TEXT")):
        return _TEXT
    if "BLOB" in upper or not upper:
        return _BLOB
    if any(part in upper for part in ("REAL", "FLOA", "DOUB")):
        return _REAL
    return _NUMERIC


def without_kind(value: Value) -> Value:
    """Return a number so that equal ones are the same, whichever storage class a column gave them."""
    if isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST:
        return int(value)
    return value


def _cast_for(source: str, base: str, affinity: str, target: str) -> Callable[[str], Value]:
    if source.startswith("enum("):
        return _text(affinity)
    if base in _INTEGERS:
        return int
    casts: dict[str, Callable[[str], Value]] = {
        "boolean": lambda text: {"t": 1, "f": 0}[text],
        "numeric": _numeric(affinity),
        "bytea": lambda text: bytes.fromhex(text.removeprefix("\\x")),
        "character": lambda text: _text(affinity)(text.rstrip(" ")),
        "date": _date,
        "time without time zone": _time,
        "timestamp without time zone": _stamp,
        "timestamp with time zone": _stamp,
        "uuid": lambda text: text.replace("-", "") if "(32)" in target else text,
        "json": _json(affinity),
        "jsonb": _json(affinity),
    }
    casts |= dict.fromkeys(_FLOATS, _float) | dict.fromkeys(_TEXTS, _text(affinity))
    return casts.get(base) or _refuse(source)


def _refuse(source: str) -> Callable[[str], Value]:
    def refuse(_text: str) -> Value:
        raise Refused(f"SQLite has nothing like {source}")

    return refuse


def _text(affinity: str) -> Callable[[str], Value]:
    def cast(text: str) -> Value:
        if affinity in (_NUMERIC, _INTEGER, _REAL) and _NUMBER.fullmatch(text):
            raise Refused(f"the column would make a number of the text {text[:60]!r}")
        return text

    return cast


def _float(text: str) -> Value:
    value = float(text)
    if value != value:  # noqa: PLR0124 - only NaN differs from itself
        raise Refused("SQLite has no NaN")
    return value


def _numeric(affinity: str) -> Callable[[str], Value]:
    def cast(text: str) -> Value:
        try:
            number = Decimal(text)
        except InvalidOperation as error:
            raise ValueError(text) from error
        if number.is_nan():
            raise Refused("SQLite has no NaN")
        if affinity in (_TEXT, _BLOB):
            return text
        if number.is_finite() and number == number.to_integral_value() and abs(number) < _LARGEST:
            return int(number)
        if number.is_finite() and Decimal(repr(float(number))) != number:
            raise Refused(f"{text[:60]} has more digits than a number of SQLite keeps")
        return float(number)

    return cast


def _date(text: str) -> Value:
    if not _DATE.fullmatch(text):
        raise Refused(f"{text[:60]!r} is no date between the years 1 and 9999")
    return text


def _time(text: str) -> Value:
    matched = _TIME.fullmatch(text)
    if matched is None:
        raise Refused(f"{text[:60]!r} is no time before midnight")
    return f"{matched[1]}.{matched[2] or '':0<6}"


def _stamp(text: str) -> Value:
    """Write a time as SQLAlchemy does for SQLite, in UTC where it has a zone."""
    matched = _STAMP.fullmatch(text)
    if matched is None:
        raise Refused(f"{text[:60]!r} is no time between the years 1 and 9999")
    return f"{matched[1]} {matched[2]}.{matched[3] or '':0<6}"


def _json(affinity: str) -> Callable[[str], Value]:
    """Take JSON as it is written; a bare number as the number a column of that kind makes of it."""

    def cast(text: str) -> Value:
        if affinity in (_TEXT, _BLOB) or not _NUMBER.fullmatch(text):
            return text
        value = json.loads(text)
        if isinstance(value, float) and Decimal(repr(value)) != Decimal(text.strip()):
            raise Refused(f"{text[:60]} has more digits than a number of SQLite keeps")
        if isinstance(value, int) and abs(value) >= _LARGEST:
            raise Refused(f"{text[:60]} is larger than SQLite's integers")
        return value  # type: ignore[no-any-return]  # a number, as the pattern says

    return cast
