"""Make the repository fixture `format-1`: objects, its secrets, and what they hold.

Run once for a format version, from the top of the checkout:
`PYTHONPATH=. python tests/data/repositories/format-1/make.py`. It refuses to replace one: what
an old version wrote must stay readable for ever.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from backup_admin.core.canonical import dump_canonical
from backup_admin.core.paths import path_to_json
from backup_admin.core.state import StateFolder
from backup_admin.operations.results import SourceSet
from backup_admin.repository.creation import create_repository
from backup_admin.repository.repository import open_repository
from backup_admin.repository.secrets import (
    generate_application_key,
    generate_recovery_key,
    parse_application_key,
    parse_recovery_key,
    passphrase_secret,
)
from backup_admin.sources.app_settings import SettingsSource
from backup_admin.sources.files import FileSource
from backup_admin.sources.sqlite import SqliteSource
from backup_admin.storage.local import LocalStorage
from tests.factories import SMALL, prose, run_backup, write_tree
from tests.fakes import SteppingClock

TARGET = Path(__file__).parent
PASSPHRASE = "a passphrase that is not secret"


def main() -> None:
    """Make everything anew."""
    keys = {
        "application_key": generate_application_key().reveal(),
        "recovery_key": generate_recovery_key().reveal(),
        "passphrase": PASSPHRASE,
    }
    (TARGET / "secrets.json").write_text(json.dumps(keys, indent=1) + "\n")
    clock = SteppingClock()
    storage = LocalStorage(TARGET / "objects")
    application = parse_application_key(keys["application_key"])
    secrets = [
        (application, "application"),
        (parse_recovery_key(keys["recovery_key"]), "recovery"),
        (passphrase_secret(PASSPHRASE), "passphrase"),
    ]
    parameters = replace(SMALL, pack_padding=256)
    create_repository(storage, secrets, clock=clock, parameters=parameters)
    with TemporaryDirectory() as folder:
        root = Path(folder)
        state = StateFolder(root / "state")
        repository = open_repository(storage, application, state=state, clock=clock)
        expected: dict[str, Any] = {}
        for turn in range(3):
            change(root, turn)
            sources = SourceSet(
                files=(FileSource("uploads", root / "files"),),
                databases=(SqliteSource("app", root / "app.db"),),
                settings=SettingsSource(lambda: {"SITE": "Gallery", "SECRET_KEY": "s", "turn": turn}),  # noqa: B023  called at once
            )
            result = run_backup(repository, sources, root / "state", label=f"turn {turn}", clock=clock)
            expected[result.snapshot.id] = describe(root, turn)
        gone = repository.snapshot_ids()[1]
        repository.record("forget", {"ids": [gone]}, actor="tests")
        del expected[gone]
    (TARGET / "expected.json").write_bytes(dump_canonical(expected) + b"\n")


def change(root: Path, turn: int) -> None:
    """Bring files and database to the state of a turn."""
    files = root / "files"
    if turn == 0:
        write_tree(files, {f"small/{number}.txt": prose(200, number) for number in range(5)})
        write_tree(files, {"empty": b"", "photo.jpg": b"\xff\xd8\xff" + os.urandom(20_000)})
        (files / "link").symlink_to("small/0.txt")
        (files / "folder").mkdir(mode=0o750)
        (files / "hard").hardlink_to(files / "small/1.txt")
        (files / os.fsdecode(b"not-utf8-\xff")).write_bytes(b"x")
    write_tree(files, {"long.txt": prose(90_000, 1) + prose(500, turn), f"turn {turn}": b"new"})
    with closing(sqlite3.connect(root / "app.db")) as connection, connection:
        connection.execute("PRAGMA page_size = 1024")
        connection.execute("CREATE TABLE IF NOT EXISTS photo (id INTEGER PRIMARY KEY, title TEXT, data BLOB)")
        rows = [(f"photo {turn}-{number}", bytes([turn]) * 90) for number in range(120)]
        connection.executemany("INSERT INTO photo (title, data) VALUES (?, ?)", rows)


def describe(root: Path, turn: int) -> dict[str, Any]:
    """Say what a snapshot of this moment holds."""
    entries = [describe_entry(root / "files", path) for path in sorted((root / "files").rglob("*"))]
    with closing(sqlite3.connect(root / "app.db")) as connection:
        lines = "\n".join(connection.iterdump())
    return {
        "label": f"turn {turn}",
        "entries": sorted(entries, key=lambda entry: json.dumps(entry["path"])),
        "dump": hashlib.sha256(lines.encode()).hexdigest(),
        "settings": {"secrets": {"SECRET_KEY": "s"}, "values": {"SITE": "Gallery", "turn": turn}},
    }


def describe_entry(root: Path, path: Path) -> dict[str, Any]:
    """Say what one entry of the tree is."""
    found = path.lstat()
    entry: dict[str, Any] = {
        "path": path_to_json(os.fsencode(path.relative_to(root))),
        "mode": found.st_mode & 0o7777,
        "mtime_ns": found.st_mtime_ns,
    }
    if path.is_symlink():
        return entry | {"kind": "l", "target": str(path.readlink())}
    if path.is_dir():
        return entry | {"kind": "d"}
    return entry | {"kind": "f", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


if __name__ == "__main__":
    main()
