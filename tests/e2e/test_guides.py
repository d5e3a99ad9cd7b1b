"""What README and the administrator's guide say, done literally."""

from __future__ import annotations

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from flask import Flask

from backup_admin.cli import main
from backup_admin.core.settings import SETTINGS
from backup_admin.storage.s3_place import parse_s3_address
from backup_admin.storage.ssh_place import parse_ssh_address
from backup_admin.web.commands import backup
from backup_admin.web.extension import BackupAdmin
from backup_admin.web.standalone import create_app

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
KINDS = {"aws.md": "s3://", "minio.md": "s3://", "ssh.md": "ssh://"}
PAGES = [
    "README.md",
    "docs/admin-guide.md",
    *(f"docs/admin-guide/{name}" for name in KINDS),
    "docs/admin-guide/formats.md",
    "docs/admin-guide/postgres.md",
    "docs/admin-guide/restore-points.md",
    "docs/cli.md",
    "docs/storage-s3.md",
]
GUIDE = (ROOT / "docs" / "admin-guide.md").read_text()
# Variables of the commands alone; docs/cli.md explains them.
OF_THE_COMMAND = {"APP", "RECOVERY_KEY", "RECOVERY_KEY_FILE", "PASSPHRASE", "PASSPHRASE_FILE"}
BEFORE_THE_DISASTER = """
backup-admin init /mnt/backups --key-file /etc/shop/key --recovery-file /mnt/stick/recovery.key
backup-admin run /mnt/backups --key-file /etc/shop/key --files uploads=/srv/shop/uploads \\
    --sqlite shop=/srv/shop/shop.db
rm -r /srv/shop /etc/shop "$HOME"
"""
ROOTS = re.compile(r"(?<![\w.])/(srv|mnt|etc)/")


def part_of(text: str, heading: str) -> str:
    """Return what stands below a heading of the second level."""
    below = text.split(f"\n## {heading}\n", 1)[1]
    return below.split("\n## ", 1)[0]


def block_of(text: str, heading: str, language: str) -> str:
    """Return the first block of code below a heading."""
    found = re.search(rf"```{language}\n(.*?)```", part_of(text, heading), re.DOTALL)
    assert found is not None, heading
    return found[1]


def moved(text: str, root: Path) -> str:
    """Return the same with all of it below a folder of the test."""
    return ROOTS.sub(rf"{root}/\1/", text)


def make_shop(root: Path) -> None:
    for folder in ("srv/shop/uploads/cache", "srv/backups", "mnt/stick", "etc/shop", "bin"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "srv/shop/uploads/one.txt").write_bytes(b"one")
    with closing(sqlite3.connect(root / "srv/shop/shop.db")) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO orders VALUES (1), (2)")
        connection.commit()


def run_script(script: str, root: Path, *, typed: str = "") -> subprocess.CompletedProcess[str]:
    """Run lines in a shell that stops at the first failure; our commands are on its path."""
    for name, module in (("backup-admin", "backup_admin.cli"), ("flask", "flask")):
        program = root / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        program.chmod(0o755)
    unwanted = ("BACKUP_ADMIN_", "FLASK_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
    home = root / "home"
    home.mkdir(exist_ok=True)
    path = f"{root / 'bin'}:{environment['PATH']}"
    environment |= {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(home)}
    return subprocess.run(
        ["sh", "-euc", script],
        cwd=root,
        env=environment,
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What the README's lines make, on a machine of the test's own."""
    make_shop(tmp_path)
    names: dict[str, Any] = {"__name__": "shop"}
    code = moved(block_of(README, "Mount it", "python"), tmp_path)
    state = str(tmp_path / "srv" / "state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BACKUP_ADMIN_STATE_DIR", state)
        exec(compile(code, "README.md", "exec"), names)
        yield names


# --- README ------------------------------------------------------------------------


def test_the_lines_of_the_readme_mount_pages_that_answer(mounted: dict[str, Any]) -> None:
    app = mounted["app"]
    assert isinstance(app, Flask)
    assert isinstance(mounted["backup_admin"], BackupAdmin)
    runner = app.test_cli_runner()
    made = runner.invoke(args=["backup", "init"])
    assert made.exit_code == 0, made.output
    shown = re.search(r"^ {4}(\S+)$", made.stdout, re.MULTILINE)
    assert shown is not None
    assert runner.invoke(args=["backup", "confirm-recovery-key"], input=f"{shown[1]}\n").exit_code == 0
    result = runner.invoke(args=["backup", "run", "--json"])
    assert result.exit_code == 0, result.output
    manifest = json.loads(runner.invoke(args=["backup", "show", "latest"]).stdout)
    assert [one["path"] for one in manifest["files"]["entries"] if one["kind"] == "file"] == ["one.txt"]
    assert [one["name"] for one in manifest["databases"]] == ["shop"]


def test_the_readme_lets_in_who_it_says_and_nobody_else(mounted: dict[str, Any]) -> None:
    class Person:
        is_admin = True

    assert mounted["permissions"](Person()) == ["admin"]
    assert mounted["permissions"](object()) == []
    mounted["app"].test_cli_runner().invoke(args=["backup", "upgrade"])
    assert mounted["app"].test_client().get("/backup-admin/").status_code in {401, 403}


# --- settings ------------------------------------------------------------------------


def table() -> list[list[str]]:
    lines = re.findall(r"^\| `BACKUP_ADMIN_.*$", part_of(GUIDE, "Configure"), re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_setting_is_in_the_guide_and_none_is_invented() -> None:
    assert [row[0] for row in table()] == [f"`{setting.key}`" for setting in SETTINGS]


def test_the_guide_says_what_a_setting_means_and_its_default() -> None:
    for setting, (_, default, meaning) in zip(SETTINGS, table(), strict=True):
        assert meaning.startswith(setting.help), setting.key
        if setting.default in (None, "", ()):
            assert default, setting.key
        else:
            value = setting.default
            said = str(value).lower() if isinstance(value, bool) else str(value)
            assert default == f"`{said}`", setting.key


@pytest.mark.parametrize("path", PAGES)
def test_no_page_names_a_setting_that_does_not_exist(path: str) -> None:
    known = {setting.name for setting in SETTINGS} | OF_THE_COMMAND
    named = set(re.findall(r"BACKUP_ADMIN_([A-Z0-9_]*[A-Z])", (ROOT / path).read_text()))
    assert named - known == set()


@pytest.mark.parametrize("path", PAGES)
def test_no_page_names_a_verb_that_does_not_exist(path: str) -> None:
    text = (ROOT / path).read_text()
    of_the_app = set(re.findall(r"flask backup ([a-z][a-z-]*)", text))
    alone = set(re.findall(r"(?:^|`)backup-admin ([a-z][a-z-]*)", text, re.MULTILINE))
    assert of_the_app - set(backup.commands) == set()
    assert alone - set(main._VERBS) == set()


def test_every_link_of_the_guides_leads_somewhere() -> None:
    text = GUIDE + (ROOT / "docs" / "storage-s3.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (ROOT / "docs" / target).exists(), target
    assert "docs/admin-guide.md" in README


# --- commands ------------------------------------------------------------------------


def test_the_commands_for_a_bare_machine_bring_everything_back(tmp_path: Path) -> None:
    make_shop(tmp_path)
    made = run_script(moved(BEFORE_THE_DISASTER, tmp_path), tmp_path)
    assert made.returncode == 0, made.stderr
    assert not (tmp_path / "srv/shop").exists()

    done = run_script(moved(block_of(GUIDE, "On a bare machine", "sh"), tmp_path), tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "srv/shop/uploads/one.txt").read_bytes() == b"one"
    with closing(sqlite3.connect(tmp_path / "srv/shop/shop.db")) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (2,)


def test_the_first_run_and_the_standalone_app_work_as_written(tmp_path: Path) -> None:
    make_shop(tmp_path)
    alone = moved(block_of(GUIDE, "Without an app of your own", "sh"), tmp_path)
    started = run_script(alone, tmp_path, typed="a long password\na long password\n")
    assert started.returncode == 0, started.stdout + started.stderr
    shown = re.search(r"^ {4}(\S+)$", started.stdout, re.MULTILINE)
    assert shown is not None
    environment = "\n".join(line for line in alone.splitlines() if line.startswith("export"))

    first = block_of(GUIDE, "First run", "sh")
    done = run_script(f"{environment}\n{first}", tmp_path, typed=f"{shown[1]}\n")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "completed: snapshot" in done.stdout


def test_commands_of_the_guide_know_their_options() -> None:
    for line in re.findall(r"^flask backup ([^#\n]+)", GUIDE, re.MULTILINE):
        name, *words = line.split()
        known = {option for parameter in backup.commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} - known == set(), line


def test_without_tls_the_cookie_is_sent_when_the_guide_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = re.search(r"`(FLASK_\w+)=(\w+)`", GUIDE)
    assert variable is not None
    monkeypatch.setenv("BACKUP_ADMIN_STATE_DIR", str(tmp_path))
    assert create_app().config["SESSION_COOKIE_SECURE"] is True

    monkeypatch.setenv(variable[1], variable[2])

    assert create_app().config["SESSION_COOKIE_SECURE"] is False


@pytest.mark.parametrize(("page", "scheme"), KINDS.items())
def test_each_kind_of_storage_has_a_page_whose_commands_can_be_copied(page: str, scheme: str) -> None:
    text = (ROOT / "docs" / "admin-guide" / page).read_text()
    shown = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    calls = [shlex.split(line)[1:] for line in shown.splitlines() if line.strip().startswith("backup-admin ")]

    verbs = [" ".join(call[:2]) if call[0] == "storage" else call[0] for call in calls]
    assert {"init", "run"} <= set(verbs)
    for call in calls:
        (address,) = [part for part in call if part.startswith(scheme)]
        sample = address.replace("SHA256:…", f"SHA256:{'a' * 43}")
        (parse_ssh_address if scheme == "ssh://" else parse_s3_address)(sample)
        command = main.backup_admin.get_command(click.Context(main.backup_admin), call[0])
        assert command is not None
        options = {name for parameter in command.params for name in parameter.opts}
        used = {part for part in call[1:] if part.startswith("--")}
        assert call[0] == "storage" or used <= options
