"""The bar that shows progress on a terminal."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_WORDS = {
    "databases": "Databases",
    "files": "Files",
    "settings": "Settings",
    "commit": "Committing",
    "verify": "Verifying",
    "check": "Checking packs",
    "snapshots": "Checking snapshots",
    "restore": "Restoring",
    "plan": "Comparing",
    "stage": "Staging",
    "maintenance": "Stopping writers",
    "safety_backup": "Safety backup",
    "swap": "Swapping",
    "reopen": "Reopening",
    "mirror": "Copying",
    "history": "Copying history",
    "remove": "Removing",
}


class ProgressBar:
    """One bar at a time on stderr, for the stage that runs; gone when it ends."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr)
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._in_bytes = False

    def begin(self, stage: str, total_bytes: int, total_items: int) -> None:
        """Show a new stage in place of the one before."""
        self.close()
        self._in_bytes = total_bytes > 0 or total_items == 0
        amount = DownloadColumn() if self._in_bytes else MofNCompleteColumn()
        progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            amount,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[current]}", markup=False),
            console=self._console,
            transient=True,
        )
        total = (total_bytes if self._in_bytes else total_items) or None
        self._task = progress.add_task(_WORDS.get(stage, stage), total=total, current="")
        self._progress = progress
        progress.start()

    def add(self, size: int, items: int, current: str) -> None:
        """Move the bar on."""
        if self._progress is None:
            return
        if current:
            self._progress.update(self._task, current=_clip(current))
        self._progress.advance(self._task, size if self._in_bytes else items)

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _clip(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"
