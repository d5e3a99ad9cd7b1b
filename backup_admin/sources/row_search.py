"""Look for rows of a table by some text: what is found, and the bounds within which is looked."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

MOST_FOUND = 20
MOST_LOOKED_AT = 200_000
LOOK_SECONDS = 8.0
VALUE_LETTERS = 1000
"""Of a longer value only so much is looked at."""
_LONGEST_LINE = 4 << 20
_SHOWN_COLUMNS = 4
_SHOWN_LETTERS = 60
_SECRET = re.compile(
    r"passw|passphrase|pwd|secret|token|hash|salt|totp|(^|_)otp|(^|_)pin($|_)|(api|private|session)_?key|credential|cookie",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Shape:
    """The columns of a table, those of its primary key, and which hold text."""

    columns: tuple[str, ...]
    key: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def shown(self) -> tuple[str, ...]:
        """Return the columns by which a person knows a row."""
        others = [name for name in self.columns if name not in self.key and not is_secret(name)]
        return tuple([name for name in others if name in self.texts] or others)[:_SHOWN_COLUMNS]


def is_secret(column: str) -> bool:
    """Say whether a column sounds like one of secrets, which are neither searched nor shown."""
    return _SECRET.search(column) is not None


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A row: its key as people write it, empty when it cannot be written so, and its first columns."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FoundRows:
    """What was found; `stopped` says why not all rows were looked at, or nothing."""

    columns: tuple[str, ...] = ()
    rows: tuple[FoundRow, ...] = ()
    looked_at: int = 0
    stopped: str = ""
    key: tuple[str, ...] = field(default=())

    def to_plain(self) -> dict[str, Any]:
        """Return it as a process answers it."""
        rows = [[row.key, *row.values] for row in self.rows]
        return {
            "columns": self.columns,
            "rows": rows,
            "looked_at": self.looked_at,
            "stopped": self.stopped,
            "key": self.key,
        }

    @staticmethod
    def from_plain(value: Mapping[str, Any]) -> FoundRows:
        """Read what `to_plain` wrote."""
        rows = tuple(FoundRow(row[0], tuple(row[1:])) for row in value["rows"])
        return FoundRows(
            tuple(value["columns"]), rows, value["looked_at"], value["stopped"], tuple(value["key"])
        )


def search(shape: Shape, rows: Iterable[Sequence[str | None]], text: str) -> FoundRows:
    """Return the first rows in which a value has the text, upper or lower case; without text the first."""
    wanted, end = text.casefold(), monotonic() + LOOK_SECONDS
    secrets = [at for at, name in enumerate(shape.columns) if is_secret(name)]
    found: list[FoundRow] = []
    looked_at, stopped = 0, ""
    for row in rows:
        if len(found) == MOST_FOUND:
            stopped = f"These are the first {MOST_FOUND}; there may be more."
            break
        if looked_at == MOST_LOOKED_AT or monotonic() > end:
            stopped = f"Looking ended after {looked_at:,} rows; there may be more."
            break
        looked_at += 1
        values = list(row)
        for at in secrets:
            values[at] = None
        if not wanted or any(value and wanted in value.casefold() for value in values):
            found.append(_found(shape, dict(zip(shape.columns, values, strict=True))))
    return FoundRows(shape.shown, tuple(found), looked_at, stopped, shape.key)


def _found(shape: Shape, values: Mapping[str, str | None]) -> FoundRow:
    shown = [values[name] or "" for name in shape.shown]
    cut = [text if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]}…" for text in shown]
    return FoundRow(_written([values[name] for name in shape.key]), tuple(cut))


def _written(key: Sequence[str | None]) -> str:
    """Write a key as a restore of rows reads it; nothing when no line can say it."""
    values = [value for value in key if value is not None and len(value) < VALUE_LETTERS]
    if not values or len(values) != len(key) or not all(map(str.isprintable, values)):
        return ""
    if len(values) == 1 and not values[0].startswith('"'):
        return values[0] if values[0] == values[0].strip() else ""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()


def short_lines(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Yield the lines of a text without those that are too long to be kept, for a while."""
    rest, skipping, end = b"", False, monotonic() + LOOK_SECONDS
    for piece in pieces:
        if monotonic() > end:
            return
        *lines, rest = (rest + bytes(piece)).split(b"\n")
        for line in lines:
            if not skipping and len(line) <= _LONGEST_LINE:
                yield line
            skipping = False
        if len(rest) > _LONGEST_LINE:
            rest, skipping = b"", True
