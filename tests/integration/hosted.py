"""A small host app with backup_admin, for tests that start real workers of it.

`python -m tests.integration.hosted FOLDER` runs a worker of the app in a folder.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from flask import Flask

from backup_admin import BackupAdmin, jobs
from backup_admin.repository.secrets import generate_application_key
from tests.installations import make_contents

FOREVER = 600.0


def write_config(folder: Path, redis_url: str, queue: str, **more: Any) -> None:
    """Decide once what all processes of the app share."""
    make_contents(folder)
    config = {
        "SECRET_KEY": "host secret",
        "BACKUP_ADMIN_STATE_DIR": str(folder / "state"),
        "BACKUP_ADMIN_KEY": generate_application_key().reveal(),
        "BACKUP_ADMIN_APP_NAME": "gallery",
        "BACKUP_ADMIN_DATABASES": {"main": str(folder / "app.db")},
        "BACKUP_ADMIN_FILES": {"uploads": str(folder / "uploads")},
        "BACKUP_ADMIN_REDIS_URL": redis_url,
        "BACKUP_ADMIN_QUEUE": queue,
        "BACKUP_ADMIN_HEARTBEAT_SECONDS": 1,
        **more,
    }
    (folder / "config.json").write_text(json.dumps(config))


def create_app(folder: Path) -> Flask:
    """Make the app. A file `hang-NAME` makes the hook of that name hang and say so."""
    app = Flask("gallery", instance_path=str(folder))
    app.config.update(json.loads((folder / "config.json").read_text()))
    backup_admin = BackupAdmin(app)

    @backup_admin.settings_provider
    def settings() -> dict[str, Any]:
        hang(folder, "settings")
        return {"title": "Gallery"}

    @backup_admin.maintenance
    def maintenance(on: bool) -> None:
        if on:
            hang(folder, "maintenance")

    @backup_admin.restore_check("smoke")
    def check() -> str:
        hang(folder, "check")
        return "ok"

    return app


def hang(folder: Path, name: str) -> None:
    """Hang as long as a file says so, and tell that we do."""
    if not (folder / f"hang-{name}").exists():
        return
    (folder / f"hangs-{name}").touch()
    deadline = time.monotonic() + FOREVER
    while (folder / f"hang-{name}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)


if __name__ == "__main__":
    jobs.work(create_app(Path(sys.argv[1])), with_scheduler_loop="--no-scheduler" not in sys.argv)
