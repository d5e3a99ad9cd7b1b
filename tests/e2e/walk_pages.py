"""Run inside an installed environment: print the status of every page as JSON.

A page is a GET route without arguments; the person who asks is an administrator.
The app mounts the package the way a host does, in the current folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask, url_for

from backup_admin import BackupAdmin

if TYPE_CHECKING:
    from werkzeug.routing import Rule


class OneAdministrator:
    """The people of this app: one, always signed in."""

    def current(self) -> Any:
        return self

    def id(self, user: Any) -> str:
        return "1"

    def display(self, user: Any) -> str:
        return "Ada"

    def sign_in_url(self, back: str) -> str | None:
        return None


def create_app() -> Flask:
    app = Flask("host", instance_path=str(Path.cwd() / "instance"))
    app.config["SECRET_KEY"] = "walk"
    app.config["BACKUP_ADMIN_KEY_FILE"] = str(Path.cwd() / "key")
    app.config["BACKUP_ADMIN_STORAGE"] = str(Path.cwd() / "storage")
    app.config["BACKUP_ADMIN_FILES"] = {"uploads": str(Path.cwd() / "uploads")}
    BackupAdmin(app, users=OneAdministrator()).permission_loader(lambda user: ["admin"])
    return app


def is_page(rule: Rule) -> bool:
    return "GET" in (rule.methods or ()) and not rule.arguments


def walk(app: Flask) -> dict[str, int]:
    """Ask for every page and for the scripts they load."""
    rules = [rule for rule in app.url_map.iter_rules() if is_page(rule)]
    client = app.test_client()
    with app.test_request_context():
        script = url_for("backup_admin.static", filename="backup_admin/htmx.min.js")
        addresses = [url_for(rule.endpoint) for rule in rules] + [script]
    return {address: client.get(address).status_code for address in addresses}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(walk(create_app())))
