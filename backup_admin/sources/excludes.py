"""Patterns that leave entries out of a backup: a small part of gitignore's.

`*.tmp` leaves out every file or folder of such a name, `temp/` folders only.
A pattern with a slash before its end, like `/only/here` or `a/**/b`, is matched
against the path from the root of the source. `*` and `?` never match a slash,
`**` matches any number of folders, `[abc]` and `[!abc]` one character (those named
are ASCII), and a backslash takes the next character as it is. A leading `!` is refused.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from backup_admin.core.errors import ConfigurationError
from backup_admin.sources.base import STAGING_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable

_NETWORK_LEFTOVER = b".nfs"
_NEVER = re.compile(rb"(?!)")
_WIDE = rb"[\xc2-\xf4][\x80-\xbf]{1,3}"  # one character beyond ASCII in UTF-8


class Excludes:
    """Compiled patterns; raises `ConfigurationError` naming one that is wrong.

    `has_patterns` is false when only names with a leading dot can match.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        names: list[bytes] = []
        folder_names: list[bytes] = []
        paths: list[bytes] = []
        folder_paths: list[bytes] = []
        for pattern in patterns:
            text = _checked(pattern)
            only_folders = text.endswith(b"/")
            text = text.rstrip(b"/")
            if b"/" in text:
                target = folder_paths if only_folders else paths
                text = text.removeprefix(b"/")
            else:
                target = folder_names if only_folders else names
            target.append(_translate(text, pattern))
        self._names = _alternatives(names)
        self._folder_names = _alternatives(names + folder_names)
        self._paths = _alternatives(paths)
        self._folder_paths = _alternatives(paths + folder_paths)
        self.has_patterns = bool(names or folder_names or paths or folder_paths)
        self._has_paths = bool(paths or folder_paths)
        self._has_names = bool(names or folder_names)

    def match(self, path: bytes, name: bytes, *, is_folder: bool) -> bool:
        """Say whether the entry is left out; `name` is the last part of `path`."""
        if name[:1] == b"." and name.startswith((_NETWORK_LEFTOVER, STAGING_PREFIX)):
            return True
        if self._has_names:
            names = self._folder_names if is_folder else self._names
            if names.fullmatch(name):
                return True
        if self._has_paths:
            paths = self._folder_paths if is_folder else self._paths
            return paths.fullmatch(path) is not None
        return False


def _checked(pattern: str) -> bytes:
    text = os.fsencode(pattern)
    if not text.strip(b"/") or text.startswith(b"!") or b"\0" in text:
        raise ConfigurationError(
            f"{pattern!r} is no exclude pattern; write for example '*.tmp', 'cache/' or '/only/at/the/root'."
        )
    if any(part in (b".", b"..") for part in text.split(b"/")):
        raise ConfigurationError(
            f"The exclude pattern {pattern!r} holds '.' or '..'; "
            "patterns are matched below the root of the source."
        )
    return text


def _alternatives(expressions: list[bytes]) -> re.Pattern[bytes]:
    if not expressions:
        return _NEVER
    return re.compile(b"|".join(expressions), re.DOTALL)


def _translate(text: bytes, pattern: str) -> bytes:
    """Write one pattern as a regular expression over bytes."""
    parts = text.split(b"/")
    result = b""
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        if part == b"**":
            result += b".+" if is_last else b"(?:[^/]+/)*"
            continue
        result += _translate_part(part, pattern) + (b"" if is_last else b"/")
    try:
        re.compile(result)
    except re.error as error:
        raise ConfigurationError(
            f"The exclude pattern {pattern!r} cannot be understood: {error.msg}."
        ) from error
    return result


def _translate_part(part: bytes, pattern: str) -> bytes:
    result = b""
    position = 0
    while position < len(part):
        character = part[position : position + 1]
        position += 1
        if character == b"*":
            result += b"[^/]*"
        elif character == b"?":
            result += b"(?:" + _WIDE + b"|[^/])"
        elif character == b"[":
            piece, position = _translate_set(part, position, pattern)
            result += piece
        else:
            if character == b"\\" and position < len(part):
                character = part[position : position + 1]
                position += 1
            result += re.escape(character)
    return result


def _translate_set(part: bytes, start: int, pattern: str) -> tuple[bytes, int]:
    end = part.find(b"]", start + 2 if part[start : start + 1] in b"!^" else start + 1)
    if end < 0:
        raise ConfigurationError(f"The exclude pattern {pattern!r} has a '[' without its ']'.")
    if not part[start:end].isascii():
        raise ConfigurationError(f"The exclude pattern {pattern!r} has more than ASCII between '[' and ']'.")
    inner = part[start:end]
    is_negated = inner[:1] in (b"!", b"^")
    if is_negated:
        inner = inner[1:]
    escaped = inner.replace(b"\\", b"\\\\").replace(b"[", b"\\[").replace(b"^", b"\\^")
    escaped = escaped.replace(b"]", b"\\]")
    if is_negated:
        return b"(?:" + _WIDE + b"|[^/" + escaped + b"])", end + 1
    return b"[" + escaped + b"]", end + 1
