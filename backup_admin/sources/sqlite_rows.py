"""Chosen rows of a copy go into a live SQLite database, in a process of its own (see `sqlite_worker`)."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

from backup_admin.sources.merging.merge_model import report_from_json
from backup_admin.sources.sqlite import ask_worker

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.sources.merging.merge_model import MergeReport, MergeRequest
    from backup_admin.sources.merging.merging import TellLink


def merge_into_sqlite(
    copy: Path,
    live: Path,
    request: MergeRequest,
    *,
    dry: bool,
    tell_link: TellLink = lambda _number, _path: None,
    deadline_seconds: float = 60,
) -> MergeReport:
    """Merge rows of a checked copy into a live database, or do the same and take it back.

    All or nothing, also when this process or its child is killed. What it needs beside lies next to the copy,
    and is removed. Raises `RestoreRefused`, `Busy`, `SourceMissing`, `LiveUnusable` or `SourceError`; nothing
    live was changed then.
    """
    name = uuid.uuid4().hex
    work, links = copy.with_name(f"{name}.work"), copy.with_name(f"{name}.links")
    arguments = {
        "copy": str(copy),
        "live": str(live),
        "work": str(work),
        "links": str(links),
        "request": request.to_json(),
        "dry": dry,
        "deadline_seconds": deadline_seconds,
    }
    try:
        answer = ask_worker("merge", arguments, copy, deadline_seconds)
        with links.open(encoding="ascii") as lines:
            for line in lines:
                tell_link(*json.loads(line))
    finally:
        work.unlink(missing_ok=True)
        links.unlink(missing_ok=True)
    return report_from_json(answer)
