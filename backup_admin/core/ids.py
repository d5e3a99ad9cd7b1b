"""Identifiers: what they look like and how they are made."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from typing import NewType

SnapshotId = NewType("SnapshotId", str)
RestoreId = NewType("RestoreId", str)

ULID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ULID = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}")


def new_ulid(now: datetime) -> str:
    """Make a 26 character id that sorts by time (ULID, in small letters)."""
    value = int(now.timestamp() * 1000) << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join(ULID_ALPHABET[value >> shift & 31] for shift in range(125, -5, -5))


def is_ulid(text: str) -> bool:
    """Say whether the text has the form of an id made here."""
    return _ULID.fullmatch(text) is not None


def ulid_time(text: str) -> datetime:
    """Return when an id was made; raise `ValueError` for a text that is none."""
    if not is_ulid(text):
        raise ValueError(f"{text!r} is no id")
    milliseconds = 0
    for letter in text[:10]:
        milliseconds = milliseconds << 5 | ULID_ALPHABET.index(letter)
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, OSError, ValueError) as error:
        raise ValueError(f"{text!r} has no time that could be") from error
