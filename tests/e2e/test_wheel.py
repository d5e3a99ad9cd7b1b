"""The wheel is complete: it works installed, far away from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import backup_admin

ROOT = Path(__file__).parents[2]
FOLDERS = ("templates", "static", "migrations")
INFO = f"backup_admin-{backup_admin.__version__}.dist-info"

LOOK_AROUND = """
import json, backup_admin
from backup_admin.core.resources import resource_dir
folders = {name: str(resource_dir(name)) for name in ("templates", "static", "migrations")}
print(json.dumps({"package": backup_admin.__path__[0], **folders}))
"""


def run(*program: str | Path, cwd: Path) -> str:
    """Run a program without what could lead it back to the checkout."""
    unwanted = ("PYTHON", "PIP_", "VIRTUAL_ENV", "FLASK_", "BACKUP_ADMIN_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
    done = subprocess.run(program, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(folder: Path) -> set[str]:
    """Return the names of the files below a folder, without compiled ones."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in found if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source distribution, and from that alone the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir", folder)
    run(*build, ROOT, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def home(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it; the dependencies are borrowed."""
    folder = tmp_path_factory.mktemp("installed")
    venv = folder / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=folder)
    python = venv / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", wheel, cwd=folder)
    # A .pth inside a borrowed folder is not read: the checkout stays unknown.
    site_packages = next((venv / "lib").glob("python*/site-packages"))
    borrowed = sysconfig.get_path("purelib")
    (site_packages / "dependencies.pth").write_text(f"{borrowed}\n")
    return folder


def test_wheel_holds_every_resource_of_the_checkout(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    for folder in FOLDERS:
        prefix = f"backup_admin/{folder}/"
        inside = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
        assert inside == files(ROOT / folder)


def test_wheel_holds_every_module(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"backup_admin/{name}" for name in files(ROOT / "backup_admin")}

    assert wanted - names == set()


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.split("/")[0] for name in names} == {"backup_admin", INFO}


def test_wheel_holds_both_licences(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    prefix = f"{INFO}/licenses/"

    assert {name.removeprefix(prefix) for name in names if name.startswith(prefix)} == {
        "LICENSE",
        "static/backup_admin/htmx.LICENSE.txt",
    }


def test_installed_package_finds_its_own_resources(home: Path) -> None:
    output = run(home / "venv/bin/python", "-I", "-c", LOOK_AROUND, cwd=home)

    found = {key: Path(value) for key, value in json.loads(output).items()}
    package = found["package"]
    assert package.is_relative_to(home)
    assert found == {"package": package} | {key: package / key for key in FOLDERS}


def test_installed_package_offers_its_command_and_reaches_into_no_foreign_app(home: Path) -> None:
    code = (
        "from importlib.metadata import distribution as d;"
        "print(*(f'{e.group} {e.name}' for e in d('backup_admin').entry_points))"
    )

    output = run(home / "venv/bin/python", "-I", "-c", code, cwd=home)

    assert output.split() == ["console_scripts", "backup-admin"]


def test_installed_package_serves_every_page(home: Path) -> None:
    script = Path(__file__).with_name("walk_pages.py")
    flask = (home / "venv/bin/python", "-I", "-m", "flask", "--app", f"{script}:create_app")
    for folder in ("storage", "uploads"):
        (home / folder).mkdir()
    run(*flask, "backup", "init", cwd=home)

    output = run(home / "venv/bin/python", "-I", script, cwd=home)

    statuses = json.loads(output)
    assert {page: status for page, status in statuses.items() if status >= 500} == {}
    assert statuses["/backup-admin/"] < 400
    assert statuses["/backup-admin/static/backup_admin/htmx.min.js"] == 200
    assert len(statuses) > 5
