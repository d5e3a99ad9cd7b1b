"""JSON in one exact form, and a reader that refuses what is ambiguous.

Objects that are authenticated or compared are written with sorted keys, no
spaces and UTF-8. The reader refuses doubled keys, NaN and infinities, numbers
with more than 32 digits, too deep nesting and anything that is not UTF-8.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

_MAX_DEPTH = 64
_MAX_DIGITS = 32
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def dump_canonical(value: Any) -> bytes:
    """Write JSON in its one exact form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def load_strict(data: bytes | bytearray | memoryview, *, max_bytes: int = 64 << 20) -> Any:
    """Read JSON, refusing whatever two readers could understand differently.

    Raises `ValueError` with the reason.
    """
    if len(data) > max_bytes:
        raise ValueError(f"{len(data)} bytes of JSON, at most {max_bytes} are allowed")
    raw = bytes(data)
    _check_depth(raw)
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_no_doubles,
            parse_constant=_no_constant,
            parse_int=_short_int,
            parse_float=_finite,
        )
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
    if _SURROGATE.search(raw):
        dump_canonical(value)  # half a surrogate pair is no text: it cannot be written, and that raises
    return value


def _check_depth(raw: bytes) -> None:
    if raw.count(b"[") + raw.count(b"{") <= _MAX_DEPTH:
        return
    depth = 0
    for token in _TOKENS.finditer(raw):
        mark = token.group()
        if mark in (b"[", b"{"):
            depth += 1
        elif mark in (b"]", b"}"):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise ValueError("JSON nested too deeply")


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("JSON object with a doubled key")
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"JSON number {name} is not allowed")


def _short_int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError("JSON number with too many digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"JSON number {text[:20]} is not finite")
    return value
