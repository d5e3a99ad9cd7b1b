"""The text of `COPY` as lines of JSON and back: each value is a string, as PostgreSQL writes it, or null.

Both escape with backslashes, mostly in the same way, so a block of any size is turned as bytes: a value
of a hundred megabytes never has to be whole in memory.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backup_admin.sources.base import ReadInto

_BLOCK_BYTES = 256 << 10
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_VERTICAL_TAB = re.compile(rb"\\(\\|v)")
# Where a block may be cut: between two letters that belong to no escape and separate nothing.
_CUT = re.compile(rb"[^\\\t\n][^\\\t\n](?=[^\\\t\n])")
_LOOK_BACK = 64
_ESCAPED = re.compile(r"[\b\t\n\v\f\r\\]")
# The backslash comes first: the others bring some.
_ESCAPES = (
    ("\\", "\\\\"),
    ("\b", "\\b"),
    ("\t", "\\t"),
    ("\n", "\\n"),
    ("\v", "\\v"),
    ("\f", "\\f"),
    ("\r", "\\r"),
)


class JsonLines:
    """Turns the text of `COPY`, block by block."""

    def __init__(self, read_into: ReadInto, width: int) -> None:
        self._read_into = read_into
        self._width = width
        self.rows = 0

    def blocks(self) -> Iterator[bytes]:
        """Yield the lines of JSON, in pieces of about the size of a block."""
        view = memoryview(bytearray(_BLOCK_BYTES))
        rest = b""
        begins = True
        while count := self._read_into(view):
            rest += view[:count]
            cut = _cut(rest)
            if cut:
                yield self._turn(rest[:cut], begins=begins)
                begins = rest[cut - 1] == 10
                rest = rest[cut:]
        if rest:  # `COPY` ends every row
            yield self._turn(rest, begins=begins)

    def _turn(self, block: bytes, *, begins: bool) -> bytes:
        """Turn a block; it `begins` a row, or goes on with one."""
        rows = block.count(b"\n")
        self.rows += rows
        if self._width == 0:
            return b"[]\n" * rows
        ends = block.endswith(b"\n")
        text = block[:-1] if ends else block
        if b'"' in text:
            text = text.replace(b'"', b'\\"')
        if b"\\v" in text:
            text = _VERTICAL_TAB.sub(_vertical_tab, text)
        text = text.replace(b"\t", b'","').replace(b"\n", b'"]\n["')
        if _CONTROL.search(text):
            text = _CONTROL.sub(lambda found: b"\\u%04x" % found[0][0], text)
        text = (b'["' if begins else b"") + text + (b'"]\n' if ends else b"")
        # A backslash before N is nothing but the sign for NULL, and that is a whole value.
        return text.replace(b'"\\N"', b"null")


def copy_line(row: Sequence[str | None]) -> bytes:
    """Write a row as `COPY` reads it, and as PostgreSQL 13 to 18 write it."""
    values = [
        "\\N" if value is None else value if _ESCAPED.search(value) is None else _escaped(value)
        for value in row
    ]
    return "\t".join(values).encode("utf-8", "surrogatepass") + b"\n"


def _escaped(value: str) -> str:
    for letter, escape in _ESCAPES:
        value = value.replace(letter, escape)
    return value


def values_of(line: bytes) -> list[str | None]:
    """Read a row that `COPY` wrote."""
    fields = line.removesuffix(b"\n").decode().split("\t")
    return [None if field == "\\N" else _plain(field) for field in fields]


def _cut(block: bytes) -> int:
    """Return how much of a block may be turned by itself; 0 when more must be read first."""
    end = block.rfind(b"\n") + 1
    if end:
        return end
    start = max(0, len(block) - _LOOK_BACK)
    last = None
    for last in _CUT.finditer(block, start):  # noqa: B007 - the last one counts
        pass
    return 0 if last is None else last.end()


def _vertical_tab(found: re.Match[bytes]) -> bytes:
    return b"\\u000b" if found[1] == b"v" else found[0]


_UNESCAPED = re.compile(r"\\(.)", re.DOTALL)
_LETTERS = {"b": "\b", "t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r"}


def _plain(field: str) -> str:
    if "\\" not in field:
        return field
    return _UNESCAPED.sub(lambda found: _LETTERS.get(found[1], found[1]), field)
