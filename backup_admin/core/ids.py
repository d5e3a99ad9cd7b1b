"""Identifiers: what they look like and how they are made."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from datetime import datetime

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
