"""What the doctor sees, and the verbs that need the app."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e.cli.command import flip

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.cli.command import Done, World

HOST = """
from flask import Flask
from backup_admin import BackupAdmin

def create_app():
    app = Flask(__name__)
    app.config["SECRET_KEY"] = "only for this test"
    BackupAdmin(app)
    return app

def create_bare():
    return Flask(__name__)
"""


def levels(done: Done) -> dict[str, str]:
    order = ["ok", "warn", "fail"]
    found: dict[str, str] = {}
    for one in done.result["findings"]:
        found[one["topic"]] = max(one["level"], found.get(one["topic"], "ok"), key=order.index)
    return found


def test_doctor_finds_nothing_wrong(repository: World) -> None:
    done = repository.call("doctor", "--folder", repository.files)

    found = levels(done)
    assert done.status == 0, done.out
    assert found.pop("storage") in ("ok", "warn")
    assert found.pop("state folder") in ("ok", "warn")
    assert set(found.values()) == {"ok"}
    assert {"python", "sqlite", "cryptography", "key file", "repository"} <= set(found)
    assert found[f"swap in {repository.files}"] == "ok"
    assert not list(repository.files.glob(".backup-admin*"))


def test_doctor_needs_neither_storage_nor_key(world: World) -> None:
    done = world.run("doctor", "--json")

    assert done.status == 0
    assert "storage" not in levels(done)


def test_doctor_names_what_must_be_mended(repository: World) -> None:
    repository.key.chmod(0o644)
    repository.state.chmod(0o755)
    (repository.root / "empty").mkdir()

    done = repository.run(
        "doctor",
        repository.root / "empty",
        "--key-file",
        repository.key,
        "--folder",
        repository.root / "nowhere",
        "--json",
    )

    found = levels(done)
    assert done.status == 1
    assert (found["key file"], found["storage"], found["state folder"]) == ("fail", "fail", "warn")
    assert found[f"swap in {repository.root / 'nowhere'}"] == "fail"
    assert list((repository.root / "empty").iterdir()) == []


def test_doctor_sees_a_damaged_configuration(repository: World) -> None:
    flip(repository.storage / "config")

    assert repository.call("doctor").status == 1


def test_doctor_for_people_is_aligned(repository: World) -> None:
    lines = repository.call("doctor", json=False).out.splitlines()

    assert lines[0].startswith("ok")
    assert "Nothing is in the way" in lines[-1]


@pytest.fixture
def host(world: World) -> World:
    (world.root / "host_of_this_test.py").write_text(HOST)
    world.environment["PYTHONPATH"] = os.pathsep.join([str(world.root), os.environ.get("PYTHONPATH", "")])
    world.environment["BACKUP_ADMIN_APP"] = "host_of_this_test:create_app"
    return world


def test_upgrade_makes_the_control_database(host: World) -> None:
    first, second = (host.run("upgrade", "--json", alone=False, obey_permissions=False) for _ in range(2))

    assert (first.status, second.status) == (0, 0), first.err
    assert first.result == second.result
    assert _tables(host.state / "state.db") >= {"backup_runs", "restore_operations"}
    assert stat.S_IMODE(host.state.stat().st_mode) == 0o700


def test_state_folder_option_holds_for_the_app_too(host: World) -> None:
    done = host.run("upgrade", "--state-dir", host.root / "named", alone=False)

    assert done.status == 0, done.err
    assert (host.root / "named" / "state.db").exists()


def test_scheduler_runs_until_it_is_told_to_stop(host: World) -> None:
    assert host.run("upgrade", alone=False).status == 0
    process = host.start("scheduler", alone=False)
    assert process.stderr is not None
    line = process.stderr.readline()
    time.sleep(1)
    still = process.poll()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)

    assert ("started" in line, still) == (True, None)
    assert (process.returncode, out) == (0, "The scheduler has ended.\n"), err


def test_scheduler_and_worker_want_an_upgraded_database(host: World) -> None:
    for verb in ("scheduler", "worker"):
        done = host.run(verb, "--json", alone=False)
        assert (done.status, done.error["code"]) == (2, "configuration"), done.err


def test_worker_without_a_queue_says_what_is_missing(host: World) -> None:
    assert host.run("upgrade", alone=False).status == 0

    done = host.run("worker", "--json", alone=False)

    assert (done.status, done.error["code"]) == (2, "configuration")
    assert "BACKUP_ADMIN_REDIS_URL" in done.error["message"]


@pytest.mark.parametrize(
    "name", ["nowhere:create_app", "host_of_this_test:nothing", "host_of_this_test:create_bare"]
)
def test_app_that_cannot_be_used_is_named(host: World, name: str) -> None:
    done = host.run("upgrade", "--app", name, "--json", alone=False)

    assert (done.status, done.error["code"]) == (2, "configuration")
    assert name in done.error["message"]


def test_app_side_verbs_say_that_their_libraries_are_missing(world: World) -> None:
    done = world.run("upgrade", "--json", alone=True)

    assert done.status == 2
    assert "flask" in done.error["message"]


def _tables(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    connection.close()
    return {name for (name,) in rows}
