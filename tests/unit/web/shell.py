"""A shell on the server of one app, for tests of `flask backup`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flask import Flask

from backup_admin import BackupAdmin
from tests.installations import make_contents

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


@dataclass
class Shell:
    """A shell on the server of one app."""

    folder: Path
    app: Flask

    def __call__(self, *words: str, typed: str | None = None) -> Result:
        return self.app.test_cli_runner().invoke(args=["backup", *words], input=typed)

    def document(self, *words: str) -> dict[str, Any]:
        """Return the one JSON document of a verb; its status is the one it names."""
        result = self(*words, "--json")
        document: dict[str, Any] = json.loads(result.stdout)
        assert (document["version"], document["exit_code"]) == (1, result.exit_code)
        return document

    def json(self, *words: str) -> tuple[int, dict[str, Any]]:
        document = self.document(*words)
        assert document["command"] == words[0]
        return document["exit_code"], document["result"]


def make_app(folder: Path, **config: Any) -> Flask:
    make_contents(folder)
    app = Flask("gallery", instance_path=str(folder / "instance"))
    app.config.update(
        {
            "SECRET_KEY": "x",
            "BACKUP_ADMIN_STATE_DIR": str(folder / "state"),
            "BACKUP_ADMIN_KEY_FILE": str(folder / "backup.key"),
            "BACKUP_ADMIN_STORAGE": str(folder / "storage"),
            "BACKUP_ADMIN_DATABASES": {"main": str(folder / "app.db")},
            "BACKUP_ADMIN_FILES": {"uploads": str(folder / "uploads")},
            **config,
        }
    )
    BackupAdmin(app)
    return app


def set_up(shell: Shell) -> None:
    """Make the repository and confirm its recovery key."""
    shown = re.search(r"^ {4}(\S+)$", shell("init").output, re.MULTILINE)
    assert shown is not None
    assert shell("confirm-recovery-key", typed=f"{shown[1]}\n").exit_code == 0
