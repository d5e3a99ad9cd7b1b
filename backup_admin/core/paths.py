"""File paths as bytes inside a source: how they are ordered, kept and shown.

A path inside a source is relative, has `/` between its parts and may hold any
byte but NUL; it need not be UTF-8.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

MAX_PATH_BYTES = 4096
MAX_NAME_BYTES = 255
MAX_DEPTH = 256

_GOOD_PART = rb"(?!\.\.?(?:/|\Z))[^/\0]{1,255}"
_GOOD_PATH = re.compile(_GOOD_PART + rb"(?:/" + _GOOD_PART + rb"){0,255}").fullmatch


def sort_key(path: bytes) -> bytes:
    """Order paths as a walk meets them: a folder, what is in it, its sibling."""
    return path.replace(b"/", b"\0")


def path_to_json(path: bytes) -> Any:
    """Return text where the path is UTF-8, else `{"b64": ...}`."""
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(path).decode("ascii")}


def path_from_json(value: Any) -> bytes:
    """Read what `path_to_json` wrote; raises `ValueError`."""
    if isinstance(value, str):
        return value.encode("utf-8")
    if isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except binascii.Error as error:
            raise ValueError("a path that is not base64") from error
    raise ValueError("a path that is neither text nor base64")


def check_path(path: bytes) -> None:
    """Refuse a path that could leave its folder or that no system can hold.

    Raises `ValueError` with the reason.
    """
    if len(path) <= MAX_PATH_BYTES and _GOOD_PATH(path):
        return
    if not path or len(path) > MAX_PATH_BYTES or b"\0" in path:
        raise ValueError("a path that is empty, too long or holds NUL")
    parts = path.split(b"/")
    if len(parts) > MAX_DEPTH:
        raise ValueError("a path with too many parts")
    for part in parts:
        if part in (b"", b".", b".."):
            raise ValueError("a path with an empty part, '.' or '..'")
        if len(part) > MAX_NAME_BYTES:
            raise ValueError("a path with a name that is too long")


def show_path(path: bytes) -> str:
    """Write a path for people: one line, nothing that a terminal would obey."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
