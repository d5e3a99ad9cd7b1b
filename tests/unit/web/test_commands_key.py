"""The app goes on with a new application key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.cli import main
from tests.unit.web.shell import Shell, make_app, set_up

if TYPE_CHECKING:
    from pathlib import Path


def test_the_app_takes_a_new_application_key(tmp_path: Path) -> None:
    ready = Shell(tmp_path, make_app(tmp_path))
    set_up(ready)
    assert ready("run").exit_code == 0
    folder = tmp_path
    old, new = folder / "backup.key", folder / "second.key"
    exchange = ["keys", "application", str(folder / "storage"), "--key-file", str(old)]
    state = ["--new-key-file", str(new), "--state-dir", str(folder / "apart")]
    assert main.run([*exchange, *state]) == 0

    other = Shell(folder, make_app(folder, BACKUP_ADMIN_KEY_FILE=str(new)))
    status, taken = other.json("new-key", "--old-key-file", str(old))

    assert (status, taken["secrets"]) == (0, 0)
    assert (folder / "state" / taken["old_log"]).exists()
    assert other.json("audit-verify")[1]["ok"] is True
    assert other("run").exit_code == 0
    assert ready("run").exit_code == 1
    assert other("new-key", "--old-key-file", str(new)).exit_code == 2
