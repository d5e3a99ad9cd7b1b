"""What was not installed keeps nothing from starting that does without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.without_extras import MODULES, hide

ROOT = Path(__file__).parents[2]
POSTGRES = "backup_admin.sources.postgres."
LOAD_ALL = """
import importlib, json, pkgutil
import backup_admin
failed = {}
for module in pkgutil.walk_packages(backup_admin.__path__, "backup_admin."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except Exception as error:
            failed[module.name] = [type(error).__name__, str(error)]
print(json.dumps(failed))
"""


def test_the_tests_know_every_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert set(MODULES) == set(project["optional-dependencies"]) - {"test"}


def test_without_any_extra_all_loads_but_what_speaks_to_postgresql_which_says_how_to_get_it(
    tmp_path: Path,
) -> None:
    environment = {**os.environ, **hide(tmp_path / "hiding")}

    done = subprocess.run(
        [sys.executable, "-c", LOAD_ALL], cwd=ROOT, env=environment, capture_output=True, check=True
    )

    failed: dict[str, list[str]] = json.loads(done.stdout)
    assert f"{POSTGRES}connect" in failed  # else nothing was hidden
    assert [name for name in failed if not name.startswith(POSTGRES)] == []
    assert {kind for kind, _ in failed.values()} == {"ConfigurationError"}
    assert all("pip install 'backup_admin[postgres]'" in said for _, said in failed.values())


def test_only_one_module_loads_psycopg() -> None:
    loads = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "backup_admin").rglob("*.py")
        for line in path.read_text().splitlines()
        if line.startswith(("import psycopg", "from psycopg"))
    ]

    assert loads == []  # the one that may does so in a `try`
