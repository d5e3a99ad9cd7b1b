"""Run the real command as its own process, with the libraries of the app side forbidden."""

from __future__ import annotations

import ctypes
import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORBIDDEN = ("flask", "sqlalchemy", "flask_sqlalchemy", "redis", "rq", "boto3", "botocore", "alembic")
# None in sys.modules makes an import raise ImportError.
_ALONE = (
    f"import sys; sys.modules.update(dict.fromkeys({FORBIDDEN!r})); "
    "from backup_admin.cli.main import main; main()"
)
_OPEN = "from backup_admin.cli.main import main; main()"
_PR_CAPBSET_DROP = 24
_DAC_CAPABILITIES = (1, 2)


@dataclass(frozen=True, slots=True)
class Done:
    """How a call ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        value: dict[str, Any] = json.loads(self.out)
        return value

    @property
    def result(self) -> dict[str, Any]:
        """What the verb answered."""
        value: dict[str, Any] = self.document["result"]
        return value

    @property
    def error(self) -> dict[str, str]:
        """Why the verb failed."""
        value: dict[str, str] = self.document["error"]
        return value


def _obey_permissions() -> None:
    """Let file permissions bind the program about to start, also as root."""
    libc = ctypes.CDLL(None)
    for capability in _DAC_CAPABILITIES:
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


@dataclass
class World:
    """One machine with an app, a storage and keys; `run` calls the command there."""

    root: Path
    state: Path
    environment: dict[str, str] = field(default_factory=dict)
    database: Path = field(init=False)

    def __post_init__(self) -> None:
        self.database = self.root / "app.db"

    @property
    def storage(self) -> Path:
        return self.root / "storage"

    @property
    def key(self) -> Path:
        return self.root / "key"

    @property
    def recovery(self) -> Path:
        return self.root / "recovery"

    @property
    def files(self) -> Path:
        return self.root / "files"

    def start(
        self,
        *arguments: object,
        environment: Mapping[str, str] | None = None,
        obey_permissions: bool = False,
        alone: bool = True,
        stdout: int = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BACKUP_ADMIN_")}
        clean.pop("FLASK_APP", None)
        clean["BACKUP_ADMIN_STATE_DIR"] = str(self.state)
        clean |= self.environment | dict(environment or {})
        return subprocess.Popen(
            [sys.executable, "-c", _ALONE if alone else _OPEN, *map(_plain, arguments)],
            env=clean,
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            preexec_fn=_obey_permissions if obey_permissions else None,  # noqa: PLW1509  no threads here
        )

    def run(
        self,
        *arguments: object,
        environment: Mapping[str, str] | None = None,
        obey_permissions: bool = False,
        alone: bool = True,
        timeout: float = 120,
    ) -> Done:
        process = self.start(
            *arguments, environment=environment, obey_permissions=obey_permissions, alone=alone
        )
        out, err = process.communicate(timeout=timeout)
        return Done(process.returncode, out, err)

    def init(self) -> None:
        done = self.run("init", self.storage, "--key-file", self.key, "--recovery-file", self.recovery)
        assert done.status == 0, done.err

    def back_up(self, *more: object, **options: Any) -> Done:
        sources: list[object] = []
        if self.files.exists():
            sources += ["--files", f"files={self.files}"]
        if self.database.exists():
            sources += ["--sqlite", f"app={self.database}"]
        return self.run("run", self.storage, "--key-file", self.key, *sources, *more, **options)

    def call(self, verb: str, *before: object, json: bool = True, **options: Any) -> Done:
        """Call a verb that takes the storage last, with the key file."""
        more = ["--json"] if json else []
        return self.run(verb, *before, self.storage, "--key-file", self.key, *more, **options)

    def restore(self, target: Path, *more: object, snapshot: str = "latest") -> Done:
        return self.run(
            "restore", snapshot, self.storage, "--key-file", self.key, "--to", target, "--json", *more
        )


def _plain(argument: object) -> str | bytes:
    return argument if isinstance(argument, bytes) else str(argument)


def make_database(path: Path, rows: int = 100, *, payload: int = 100) -> None:
    """Make a small SQLite database in WAL mode."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, payload BLOB)")
        connection.executemany(
            "INSERT INTO item VALUES (?, ?, ?)",
            ((number, f"item {number}", os.urandom(payload)) for number in range(rows)),
        )
    connection.close()


def change(path: Path, statement: str) -> None:
    """Carry out one statement on a database."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def objects(storage: Path, prefix: str) -> list[Path]:
    """Return the files of the stored objects whose names begin so, the largest first."""
    found = [path for path in storage.rglob("*") if path.is_file()]
    named = [path for path in found if str(path.relative_to(storage)).startswith(prefix)]
    return sorted(named, key=lambda path: path.stat().st_size, reverse=True)


def flip(path: Path, position: int | None = None) -> None:
    """Change one bit of a file; in its middle when no position is given."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if position is None else position] ^= 0x10
    path.write_bytes(data)
