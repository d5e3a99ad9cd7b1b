"""Every module but the app side's is under the contract that keeps it alone."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_module_but_app_side_must_stand_alone() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    modules = {
        f"backup_admin.cli.{path.stem}" for path in (ROOT / "backup_admin" / "cli").glob("[!_]*.py")
    } | {"backup_admin.cli.__main__"}

    for name in ("rescue stands alone", "the engine knows no app, no queue, no ORM"):
        (contract,) = [one for one in contracts if one["name"] == name]
        assert modules - set(contract["source_modules"]) == {"backup_admin.cli.app_side"}, name
