"""Places at which something can happen to an operation: storage calls and file-system calls."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from backup_admin.storage.local import LocalStorage
from tests.fakes import FaultyStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

CHANGING_CALLS = (
    "fsync",
    "ftruncate",
    "link",
    "mkdir",
    "pwrite",
    "rename",
    "replace",
    "rmdir",
    "symlink",
    "unlink",
    "write",
)
OPENING = "open"


@dataclass
class Points:
    """Counts calls and lets something happen at the chosen one; zero only counts."""

    happen: Callable[[str], None]
    chosen: int = 0
    seen: int = 0
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def pass_by(self, name: str) -> None:
        """Count a place; the chosen one is where it happens."""
        with self._lock:
            self.seen += 1
            self.names.append(name)
            chosen = self.seen == self.chosen
        if chosen:
            self.happen(name)

    def storage(self, folder: Path) -> FaultyStorage:
        """Return a storage each of whose calls is a place before and one after."""
        return FaultyStorage(
            LocalStorage(folder),
            before=lambda method, name: self.pass_by(f"before {method} of {name}"),
            after=lambda method, name: self.pass_by(f"after {method} of {name}"),
        )


@contextmanager
def watched_calls(
    before: Callable[[str, Sequence[Any]], None], *, after: bool = False, opening: bool = False
) -> Iterator[None]:
    """Announce each call of this process that changes a file system; `opening` adds new files.

    One call is made at a time, and what the announcement itself does is not announced.
    """
    real = {name: getattr(os, name) for name in (*CHANGING_CALLS, *([OPENING] if opening else []))}
    alone, busy = threading.RLock(), threading.local()

    def announce(name: str, arguments: Sequence[Any]) -> None:
        busy.now = True
        try:
            before(name, arguments)
        finally:
            busy.now = False

    def wrap(name: str) -> Callable[..., Any]:
        def announced(*arguments: Any, **more: Any) -> Any:
            quiet = name == OPENING and not arguments[1] & os.O_CREAT
            if quiet or getattr(busy, "now", False):
                return real[name](*arguments, **more)
            with alone:
                announce(name, arguments)
                result = real[name](*arguments, **more)
                if after:
                    announce(f"{name} done", arguments)
            return result

        return announced

    try:
        for name in real:
            setattr(os, name, wrap(name))
        yield
    finally:
        for name, call in real.items():
            setattr(os, name, call)
