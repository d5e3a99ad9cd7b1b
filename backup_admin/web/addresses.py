"""Addresses of our own pages, and which foreign ones may be followed."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import url_for

if TYPE_CHECKING:
    from backup_admin.control.overview import Line


def line_url(line: Line) -> str:
    """Return the page of an operation."""
    if line.kind == "restore":
        return url_for("backup_admin.restore_show", operation_id=line.id)
    return url_for("backup_admin.backup", run_id=line.id)


def local_path(address: str, fallback: str) -> str:
    """Return the address if it stays on this site, else the fallback.

    Only a path with one leading slash will do: browsers read `//`, `/\\` and
    control characters as the start of another host.
    """
    if not address.isprintable() or not address.startswith("/") or address[1:2] in ("/", "\\"):
        return fallback
    try:
        parts = urlsplit(address)
    except ValueError:
        return fallback
    return fallback if parts.scheme or parts.netloc else address
