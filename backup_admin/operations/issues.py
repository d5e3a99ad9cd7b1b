"""What was looked at before a restore, and what it means."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

NOT_THERE = "{place} is not there now: it is made, and an undo takes it away again."


class Level(StrEnum):
    """What an issue means for the restore."""

    OK = "ok"
    WARN = "warn"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing that was looked at before a restore."""

    level: Level
    topic: str
    message: str
