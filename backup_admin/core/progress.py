"""How long work tells what it is doing, and learns that it shall stop."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """Receives the progress of an operation. Calls may come from any thread."""

    def stage(self, name: str, *, total_bytes: int = 0, total_items: int = 0) -> None:
        """Begin a named stage. Zero totals mean: not known."""
        ...

    def advance(self, *, size: int = 0, items: int = 0, current: str = "") -> None:
        """Add bytes and items to the stage; `current` is shown as it is."""
        ...

    def warn(self, message: str) -> None:
        """Tell a person something that also stands in the result."""
        ...

    def check_cancelled(self) -> None:
        """Raise `Cancelled` when somebody asked to stop."""
        ...


class QuietReporter:
    """A reporter that says nothing and never stops the work."""

    def stage(self, name: str, *, total_bytes: int = 0, total_items: int = 0) -> None:
        """Ignore the stage."""

    def advance(self, *, size: int = 0, items: int = 0, current: str = "") -> None:
        """Ignore the progress."""

    def warn(self, message: str) -> None:
        """Ignore the warning; it also stands in the result."""

    def check_cancelled(self) -> None:
        """Go on."""


class WithinStage:
    """Lets one operation run inside a stage of another: its own stages are not shown."""

    def __init__(self, outer: Reporter) -> None:
        self._outer = outer

    def stage(self, name: str, *, total_bytes: int = 0, total_items: int = 0) -> None:
        """Stay in the outer stage."""

    def advance(self, *, size: int = 0, items: int = 0, current: str = "") -> None:  # noqa: ARG002
        """Pass on what is worked at; the items are not those of the outer stage."""
        self._outer.advance(size=size, current=current)

    def warn(self, message: str) -> None:
        """Ignore the warning; it also stands in the result."""

    def check_cancelled(self) -> None:
        """Ask the outer operation."""
        self._outer.check_cancelled()
