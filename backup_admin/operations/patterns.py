"""Which entries of a snapshot a person means by a pattern.

A pattern names a file or a folder with all that is in it: `files/photos/2024`,
`photos/2024/*.jpg`, `databases/app`. `*` and `?` stay within one name, `**` spans
folders. The leading `files/`, and the name of the source, may be left out.
"""

from __future__ import annotations

import re
from itertools import takewhile
from typing import TYPE_CHECKING

from backup_admin.core.errors import UsageError
from backup_admin.core.paths import sort_key

if TYPE_CHECKING:
    from collections.abc import Sequence

_PIECES = re.compile(rb"\*\*/|\*\*|\*|\?|\[[^\]]+\]|[^*?\[]+|\[")
_WILDCARD = re.compile(rb"[*?\[]")
_WILD = {b"**/": rb"(?:.*/)?", b"**": rb".*", b"*": rb"[^/]*", b"?": rb"[^/]"}


class Patterns:
    """A set of patterns; an empty set means everything."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Compile the patterns; raise `UsageError` for an empty one."""
        self._texts = tuple(patterns)
        self._heads = [_fixed_head(text) for text in patterns]
        self._compiled = [_compile(text) for text in patterns]
        self.used = [False] * len(patterns)

    def __bool__(self) -> bool:
        """Say whether there is any pattern, so that not everything is meant."""
        return bool(self._compiled)

    def match_file(self, source: str, path: bytes) -> bool:
        """Say whether an entry of a folder tree is meant."""
        name = source.encode()
        return self._match((b"files/" + name + b"/" + path, name + b"/" + path, path))

    def branches(self, source: str) -> tuple[bytes, ...]:
        """Return the paths of a folder tree at or below which all entries lie that can match.

        `b""` among them means the whole tree.
        """
        name = source.encode()
        starts: tuple[tuple[bytes, ...], ...] = ((), (name,), (b"files", name))
        found = {
            b"/".join(head[len(start) :])
            for head in self._heads or [()]
            for start in starts
            if head[: len(start)] == start[: len(head)]
        }
        return tuple(sorted(found, key=sort_key))

    def match_database(self, name: str) -> bool:
        """Say whether a database is meant."""
        raw = name.encode()
        return self._match((b"databases/" + raw, b"databases/" + raw + b".sqlite"))

    def match_settings(self) -> bool:
        """Say whether the settings are meant."""
        return self._match((b"settings", b"settings.json"))

    def unused(self) -> tuple[str, ...]:
        """Return the patterns that matched nothing so far."""
        return tuple(text for text, used in zip(self._texts, self.used, strict=True) if not used)

    def _match(self, names: tuple[bytes, ...]) -> bool:
        if not self._compiled:
            return True
        found = False
        for number, pattern in enumerate(self._compiled):
            if any(pattern.match(name) for name in names):
                self.used[number] = found = True
        return found


def compile_exactly(text: str) -> re.Pattern[bytes]:
    """Return what matches the entries a pattern names, not what lies in them; raise `UsageError`."""
    return re.compile(_expression(text) + rb"\Z", re.DOTALL)


def _fixed_head(text: str) -> tuple[bytes, ...]:
    """Return the first parts of a pattern, up to the one that has a wildcard."""
    parts = _normal(text).split(b"/")
    return tuple(takewhile(lambda part: not _WILDCARD.search(part), parts))


def _compile(text: str) -> re.Pattern[bytes]:
    return re.compile(_expression(text) + rb"(?:/.*)?\Z", re.DOTALL)


def _expression(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape").strip(b"/").removeprefix(b"./")
    if not raw:
        raise UsageError("An empty pattern names nothing.")
    return b"".join(_translate(piece) for piece in _PIECES.findall(raw))


def _normal(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape").strip(b"/").removeprefix(b"./")
    if not raw:
        raise UsageError("An empty pattern names nothing.")
    return raw


def _translate(piece: bytes) -> bytes:
    if piece in _WILD:
        return _WILD[piece]
    if piece.startswith(b"[") and len(piece) > 2:
        inside = piece[1:-1].replace(b"\\", b"\\\\")
        return b"[" + (b"^" + inside[1:] if inside.startswith(b"!") else inside) + b"]"
    return re.escape(piece)
