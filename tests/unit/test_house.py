"""The house rules: locks, CI, vendored files, the light import, dev.py."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import backup_admin
import dev

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-test.lock")
PINNED = re.compile(r"^([a-z0-9._-]+)==([^ ;]+)", re.MULTILINE)
HTMX_SHA384 = "Qp9rdC8H7EqOoX+nR0P3RPG2Noji+qdwJlGpfzwQJsfOpp3sGwIdSP9xO3+UlEhn"
HEAVY = ("flask", "sqlalchemy", "redis", "rq", "boto3")


def pins(lock: str) -> dict[str, str]:
    found = PINNED.findall((ROOT / lock).read_text())
    return {canonicalize_name(name): version for name, version in found}


def dependencies(*extras: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    lines = project["dependencies"] + [line for key in extras for line in optional[key]]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_names_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()

    assert re.findall(r"://|file:|@|--[a-z-]*(?:index|links|host)[a-z-]*", text) == []


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_is_a_pin_with_hashes(lock: str) -> None:
    text = (ROOT / lock).read_text().replace("\\\n", " ")

    bare = [line for line in text.splitlines() if "--hash=sha256:" not in line]

    assert bare == []
    assert len(text.splitlines()) == len(PINNED.findall(text))


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        (LOCKS[0], ("demo", "metrics")),
        (LOCKS[1], ("postgres", "demo", "notify", "metrics", "test")),
    ],
)
def test_lock_fits_the_dependencies(lock: str, extras: tuple[str, ...]) -> None:
    locked = pins(lock)
    wanted = dependencies(*extras)

    unmet = [
        str(requirement)
        for requirement in wanted
        if locked.get(canonicalize_name(requirement.name), "0") not in requirement.specifier
    ]

    assert unmet == []


def test_both_locks_pin_the_same_versions() -> None:
    demo, test = (pins(lock) for lock in LOCKS)

    assert {name: test.get(name) for name in demo} == demo


def test_ci_runs_the_strict_tests_and_nothing_else() -> None:
    script = ROOT / ".ci" / "run"

    assert script.read_text() == "#!/bin/sh\nexec python3 dev.py test --strict\n"
    assert os.access(script, os.X_OK)


def test_vendored_htmx_is_the_published_one() -> None:
    content = (ROOT / "static/backup_admin/htmx.min.js").read_bytes()

    digest = base64.b64encode(hashlib.sha384(content).digest()).decode()

    assert digest == HTMX_SHA384


def test_licences_are_here() -> None:
    ours = (ROOT / "LICENSE").read_text()
    theirs = (ROOT / "static/backup_admin/htmx.LICENSE.txt").read_text()

    assert ours.startswith("MIT License")
    assert "backup_admin contributors" in ours
    assert theirs.startswith("Zero-Clause BSD")


def test_changelog_has_an_unreleased_part() -> None:
    assert "\n## Unreleased\n" in (ROOT / "CHANGELOG.md").read_text()


def test_importing_the_package_loads_no_framework() -> None:
    code = f"import backup_admin, sys; print(*sorted({set(HEAVY)} & set(sys.modules)))"

    program = [sys.executable, "-c", code]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_extension_is_loaded_on_first_use() -> None:
    assert backup_admin.BackupAdmin.__module__ == "backup_admin.web.extension"


def test_package_has_no_other_name() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = backup_admin.nothing


@pytest.mark.parametrize("command", ["run", "test", "lint", "bench", "lock"])
def test_every_command_of_dev_py_is_in_the_contributing_guide(command: str) -> None:
    assert f"dev.py {command}" in (ROOT / "CONTRIBUTING.md").read_text()
    assert f"    {command} " in dev.parser().format_help()


def test_dev_py_says_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    code = dev.main(["lint", "--quickly"])

    assert code == 1
    assert capsys.readouterr().err == "dev.py: unknown arguments: --quickly\n"


def test_dev_py_without_ensurepip_names_the_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dev, "PYTHON", tmp_path / "bin" / "python")
    monkeypatch.setattr(dev, "has_ensurepip", lambda: False)
    monkeypatch.setattr(dev, "can_install", lambda: False)

    code = dev.main(["lint"])

    assert code == 1
    assert "apt install python3-venv" in capsys.readouterr().err


def test_dev_py_without_a_network_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dev, "is_installed", lambda lock: False)
    monkeypatch.setattr(dev, "has_uv", lambda: False)
    monkeypatch.setattr(dev, "complaint_of", lambda program: "no route")

    code = dev.main(["lint"])

    assert code == 1
    assert "is the package index reachable?" in capsys.readouterr().err


def test_changed_lock_changes_the_stamp(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("a==1\n")
    before = dev.fingerprint(lock)

    lock.write_text("a==2\n")

    assert dev.fingerprint(lock) != before


def test_installed_environment_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "is_installed", lambda lock: True)
    monkeypatch.delattr(dev, "install")

    dev.ensure_environment(dev.TEST_LOCK)
