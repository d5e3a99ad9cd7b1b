"""Values of SQLite as JSON and back, each with its storage class.

NULL                                null
INTEGER up to 2^53                  a number without point and exponent
INTEGER beyond, which other readers of JSON would round     {"int": "9007199254740993"}
REAL                                a number with point or exponent, the shortest that is the same double
REAL without end                    {"real": "inf"}, {"real": "-inf"}
TEXT                                a string
TEXT with NUL, or not UTF-8         {"text_b64": "..."}
BLOB                                {"b64": "..."}
"""

from __future__ import annotations

import json
import math
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SAFE_INTEGER = 1 << 53
_LARGEST, _SMALLEST = (1 << 63) - 1, -(1 << 63)
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class RawText:
    """Text as its bytes: with NUL, or not UTF-8."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


Value = int | float | str | bytes | RawText | None


def text_of(raw: bytes) -> str | RawText:
    """Take text as SQLite has it (`text_factory` of a connection that is read for an export)."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return RawText(raw)
    return RawText(raw) if "\0" in text else text


def row_line(row: Sequence[Value]) -> bytes:
    """Write a row as a line of JSON."""
    return _encode([_to_json(value) for value in row]).encode() + b"\n"


def value_from_json(value: Any) -> Value:
    """Read a value; raise `ValueError` for what an export never holds."""
    if value is None or isinstance(value, str | float):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and _SMALLEST <= value <= _LARGEST:
        return value
    if isinstance(value, dict) and len(value) == 1:
        ((kind, text),) = value.items()
        reader = _READERS.get(kind)
        if reader is not None and isinstance(text, str):
            return reader(text)
    raise ValueError(f"{str(value)[:60]!r} is no value of SQLite")


def _to_json(value: Value) -> Any:
    kind = type(value)
    if kind is str or value is None:
        return value
    if kind is int:
        return value if -_SAFE_INTEGER <= value <= _SAFE_INTEGER else {"int": str(value)}  # type: ignore[operator]  # is int
    if kind is float:
        return value if math.isfinite(value) else {"real": repr(value)}  # type: ignore[arg-type]  # is float
    if kind is bytes:
        return {"b64": b64encode(value).decode()}  # type: ignore[arg-type]  # is bytes
    return {"text_b64": b64encode(value.data).decode()}  # type: ignore[union-attr]  # what is left


def _read_real(text: str) -> float:
    if text not in ("inf", "-inf"):
        raise ValueError(f"{text!r} is no real without end")
    return float(text)


def _read_integer(text: str) -> int:
    value = int(text)
    if not _SMALLEST <= value <= _LARGEST:
        raise ValueError(f"{text} is larger than SQLite's integers")
    return value


def _read_text(text: str) -> str | RawText:
    raw = b64decode(text, validate=True)
    try:
        return raw.decode()  # NUL is no trouble for who writes
    except UnicodeDecodeError:
        return RawText(raw)


_READERS: dict[str, Callable[[str], Value]] = {
    "int": _read_integer,
    "real": _read_real,
    "b64": lambda text: b64decode(text, validate=True),
    "text_b64": _read_text,
}
