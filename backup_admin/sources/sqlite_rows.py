"""Chosen rows of a copy go into a live SQLite database, in a process of its own (see `sqlite_worker`)."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

from backup_admin.sources.merging.merge_model import report_from_json, undo_report_from_json
from backup_admin.sources.sqlite import ask_worker

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.sources.merging.merge_model import MergeReport, MergeRequest, UndoReport
    from backup_admin.sources.merging.merging import TellLink


def merge_into_sqlite(  # noqa: PLR0913 - of what into what, and how
    copy: Path,
    live: Path,
    request: MergeRequest,
    *,
    dry: bool,
    tell_link: TellLink = lambda _number, _path: None,
    record: Path | None = None,
    deadline_seconds: float = 60,
) -> MergeReport:
    """Merge rows of a checked copy into a live database, or do the same and take it back.

    All or nothing, also when this process or its child is killed. What it needs beside lies next to the copy,
    and is removed; what an undo needs is in the file `record` before it is committed.
    Raises `RestoreRefused`, `Busy`, `SourceMissing`, `LiveUnusable` or `SourceError`; nothing live was
    changed then.
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
        "record": None if record is None else str(record),
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


def undo_in_sqlite(
    live: Path, record: Path, scratch: Path, *, dry: bool, deadline_seconds: float = 60
) -> UndoReport:
    """Take back what the record of a merge tells of, or only look at it; needs room in `scratch`.

    All or nothing. Raises `RestoreRefused`, `Busy`, `Damaged`, `VerificationFailed`, `SourceMissing`,
    `LiveUnusable` or `SourceError`; nothing live was changed then.
    """
    work = scratch / f"{uuid.uuid4().hex}.work"
    arguments = {
        "live": str(live),
        "work": str(work),
        "record": str(record),
        "dry": dry,
        "deadline_seconds": deadline_seconds,
    }
    try:
        return undo_report_from_json(ask_worker("undo_merge", arguments, live, deadline_seconds))
    finally:
        work.unlink(missing_ok=True)
