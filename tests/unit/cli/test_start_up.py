"""Short verbs start fast: they load nothing heavy that they do not need."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from backup_admin.storage.local import LocalStorage
from tests.factories import file_sources, make_storage, open_test_repository, run_backup, write_tree

if TYPE_CHECKING:
    from pathlib import Path

# For a bar, for threads, for other programs, for databases, for what belongs to the app.
NEVER = {
    "asyncio",
    "concurrent",
    "decimal",
    "difflib",
    "email",
    "http",
    "importlib.metadata",
    "logging",
    "multiprocessing",
    "random",
    "rich",
    "secrets",
    "shutil",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "tempfile",
    "flask",
    "redis",
    "rq",
    "sqlalchemy",
}
_SCRIPT = """
import sys
from backup_admin.cli.main import run
code = run(sys.argv[1:])
print("\\n".join(sorted(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


def loaded_by(folder: Path, *arguments: str) -> set[str]:
    """Run a verb on a small repository in a fresh interpreter; return what it loaded."""
    storage = make_storage(LocalStorage(folder / "repo"))
    sources = file_sources(write_tree(folder / "files"))
    run_backup(open_test_repository(storage, folder / "state"), sources, folder / "state")
    environment = {
        "HOME": str(folder),
        "BACKUP_ADMIN_KEY": "bkm1_aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypqmxj3",
        "BACKUP_ADMIN_STATE_DIR": str(folder / "state"),
    }
    command = [sys.executable, "-c", _SCRIPT, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines())


@pytest.mark.parametrize("verb", [("list",), ("show", "latest")])
def test_a_verb_that_only_looks_loads_nothing_heavy(tmp_path: Path, verb: tuple[str, ...]) -> None:
    loaded = loaded_by(tmp_path, *verb, str(tmp_path / "repo"))

    assert "backup_admin.cli.looking" in loaded
    assert loaded & NEVER == set()


def test_a_restore_of_one_file_loads_nothing_for_a_restore_in_place(tmp_path: Path) -> None:
    target = str(tmp_path / "out")
    loaded = loaded_by(
        tmp_path, "restore", "latest", str(tmp_path / "repo"), "--to", target, "--only", "empty"
    )

    assert (tmp_path / "out/files/uploads/empty").is_file()
    unwanted = {"restore", "plan_restore", "backup", "undo", "validate", "journal"}
    assert loaded & {f"backup_admin.operations.{name}" for name in unwanted} == set()
    assert loaded & {"backup_admin.cli.in_place", "asyncio", "rich", "email", "http"} == set()
