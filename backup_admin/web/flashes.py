"""Short messages for the next page; a host's own messages are never touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from flask import flash, get_flashed_messages

if TYPE_CHECKING:
    from collections.abc import Iterator

LEVELS = ("ok", "info", "warn", "bad")
_PREFIX = "backup_admin."


def say(level: str, message: str) -> None:
    """Show a message on the next page of ours."""
    flash(message, f"{_PREFIX}{level}")


def waiting() -> Iterator[tuple[str, str]]:
    """Take our messages with their levels."""
    ours = [f"{_PREFIX}{level}" for level in LEVELS]
    found = cast("list[tuple[str, str]]", get_flashed_messages(with_categories=True, category_filter=ours))
    for category, message in found:
        yield category.removeprefix(_PREFIX), message
