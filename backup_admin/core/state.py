"""The state folder: what must survive even the control database, and caches."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.durable import make_folders
from backup_admin.core.errors import Busy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class StateFolder:
    """Names of the places in one state folder (mode 0700)."""

    root: Path

    @property
    def cache(self) -> Path:
        """Where copies of what the repository knows may be dropped any time."""
        return self._folder("cache")

    @property
    def heads(self) -> Path:
        """Where the newest chain entry seen of each repository is pinned."""
        return self._folder("heads")

    @property
    def restores(self) -> Path:
        """Where restore journals lie."""
        return self._folder("restores")

    @property
    def scratch(self) -> Path:
        """Where copies live that nobody misses after a crash."""
        return self._folder("scratch")

    @property
    def audit(self) -> Path:
        """The append-only audit log."""
        return self._folder(".") / "audit.jsonl"

    @property
    def maintenance_flag(self) -> Path:
        """Exists while writers must stay out; holds the restore's id."""
        return self._folder(".") / "maintenance"

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a lock that ends with the process; raise `Busy` when it is taken."""
        path = self._folder("locks") / f"{name}.lock"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise Busy(f"Another {name} is under way here; wait for it to end.") from error
            yield
        finally:
            os.close(handle)

    def _folder(self, name: str) -> Path:
        path = self.root / name
        if not path.is_dir():
            make_folders(path)
        return path
