"""A machine on which nothing but the package and what it always needs was installed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from backup_admin.repository.secrets import generate_application_key
from examples.gallery.compare import describe_database, describe_tree
from tests.e2e.cli.command import Done, World, make_database
from tests.e2e.cli.test_doctor import levels
from tests.e2e.cli.test_in_place import _KILLED, arguments, in_place, spoil, state_of
from tests.without_extras import hide

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS = "postgresql://shop:secret@127.0.0.1:1/shop"
HOW = "pip install 'backup_admin[postgres]'"
HOST = """
import json, os, pathlib
from flask import Flask
from backup_admin import BackupAdmin

def create_app():
    app = Flask(__name__, instance_path=os.getcwd())
    app.config.update(json.loads(pathlib.Path("config.json").read_text()))
    admin = BackupAdmin(app)
    admin.permission_loader(lambda user: ["admin"])
    return app
"""


@pytest.fixture
def bare(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return a machine with an app and a repository that was made there."""
    world.environment |= hide(tmp_path_factory.mktemp("hiding"))
    world.init()
    done = world.back_up("--json")
    assert done.status == 0, done.err
    return world


def test_a_backup_is_listed_verified_and_restored(bare: World) -> None:
    listed, verified = bare.call("list"), bare.call("verify", "latest")
    restored = bare.restore(bare.root / "out")

    assert (listed.status, verified.status, restored.status) == (0, 0, 0), verified.err + restored.err
    assert len(listed.result["snapshots"]) == 1
    assert describe_tree(bare.root / "out/files/files") == describe_tree(bare.files)
    assert describe_database(bare.root / "out/databases/app.sqlite") == describe_database(bare.database)


def test_a_restore_in_place_is_undone(bare: World) -> None:
    before = state_of(bare)
    spoil(bare)
    spoilt = state_of(bare)

    done = in_place(bare, "--yes")
    assert (done.status, state_of(bare)) == (0, before), done.out
    undone = bare.run("undo", "--yes", "--json")

    assert (undone.status, state_of(bare)) == (0, spoilt), undone.out


@pytest.mark.parametrize("line", [4, 7])
def test_an_interrupted_restore_is_recovered(bare: World, line: int) -> None:
    before = state_of(bare)
    spoil(bare)
    spoilt = state_of(bare)
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(line), *map(str, arguments(bare)), "--yes"],
        env={**bare.environment, "PATH": "", "BACKUP_ADMIN_STATE_DIR": str(bare.state)},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    done = bare.run("recover", "--json")

    assert done.status == 0, done.out
    assert state_of(bare) in (before, spoilt)


def test_the_other_verbs_of_such_a_machine_work(bare: World) -> None:
    (bare.root / "mirror").mkdir()
    mirror = bare.root / "mirror"

    done = [
        bare.call("repair"),
        bare.run("mirror", bare.storage, "--to", mirror, "--json"),
        bare.back_up("--if-changed", "--json"),
        bare.call("check"),
        bare.call("prune"),
        bare.call("diff", "latest", "latest"),
        *(
            bare.run(verb, "--help")
            for verb in ("run", "restore", "undo", "recover", "load", "cluster", "stream")
        ),
    ]

    assert [one.status for one in done] == [0] * len(done), [one.err for one in done if one.status]


@pytest.mark.parametrize("verb", ["run", "in place", "export", "import", "load", "changes", "run cluster"])
def test_naming_a_postgresql_database_says_in_one_line_what_to_install(bare: World, verb: str) -> None:
    before = state_of(bare)
    key = ("--key-file", bare.key)
    (bare.root / "parts").mkdir()
    calls: dict[str, tuple[object, ...]] = {
        "run": ("run", bare.storage, *key, "--postgres", f"shop={ADDRESS}"),
        "run cluster": ("run", bare.storage, *key, "--postgres-cluster", f"shop={ADDRESS}"),
        "in place": ("restore", "latest", bare.storage, *key, "--in-place", "--postgres", f"shop={ADDRESS}"),
        "export": ("export", "--postgres", ADDRESS, "--format", "json", "--to", bare.root / "out"),
        "import": ("import", bare.root / "parts", "--postgres", ADDRESS),
        "load": ("load", bare.root / "parts", "--postgres", ADDRESS),
        "changes": ("changes", "install", "--postgres", f"shop={ADDRESS}"),
    }

    done = bare.run(*calls[verb])

    assert done.status == 2, done.err
    assert done.err.count("\n") == 1, done.err
    assert HOW in done.err
    assert "secret" not in done.err
    assert state_of(bare) == before
    assert len(bare.call("list").result["snapshots"]) == 1


def test_doctor_names_psycopg_as_in_the_way_where_postgresql_is_configured(bare: World) -> None:
    without = bare.call("doctor")
    named = bare.call("doctor", environment={"BACKUP_ADMIN_DATABASES": f"shop={ADDRESS}"})

    assert (without.status, levels(without)["psycopg"]) == (0, "ok"), without.out
    assert (named.status, levels(named)["psycopg"]) == (1, "fail"), named.out
    assert HOW in named.out
    assert "secret" not in named.out


@pytest.fixture
def app(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return a machine with an app that protects a SQLite database."""
    world = World(tmp_path, tmp_path / "state")
    (world.root / "host_of_this_test.py").write_text(HOST)
    hidden = hide(tmp_path_factory.mktemp("hiding"))
    world.environment |= {"PYTHONPATH": f"{world.root}:{hidden['PYTHONPATH']}"}
    make_database(world.database)
    configure(world, {"main": str(world.database)})
    made = flask(world, "init", "--json")
    assert made.status == 0, made.err
    kept = flask(world, "confirm-recovery-key", typed=str(made.result["recovery_key"]))
    assert kept.status == 0, kept.err
    return world


def configure(world: World, databases: dict[str, str]) -> None:
    key = world.root / "app.key"
    if not key.exists():
        key.write_text(generate_application_key().reveal())
        key.chmod(0o600)
    config = {
        "SECRET_KEY": "only for this test",
        "BACKUP_ADMIN_STATE_DIR": str(world.state),
        "BACKUP_ADMIN_STORAGE": str(world.storage),
        "BACKUP_ADMIN_KEY_FILE": str(key),
        "BACKUP_ADMIN_DATABASES": databases,
    }
    (world.root / "config.json").write_text(json.dumps(config))


def flask(world: World, verb: str, *more: str, typed: str = "") -> Done:
    command = [sys.executable, "-m", "flask", "--app", "host_of_this_test:create_app", "backup", verb, *more]
    done = subprocess.run(
        command,
        cwd=world.root,
        env=world.environment,
        input=typed,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_an_app_of_sqlite_is_backed_up_and_shown(app: World) -> None:
    done = flask(app, "run")
    status, doctor = flask(app, "status"), flask(app, "doctor")

    assert done.status == 0, done.err
    assert "Traceback" not in status.err + doctor.err
    assert "psycopg" not in status.out + doctor.out


def test_an_app_that_names_postgresql_says_what_is_missing_and_works_otherwise(app: World) -> None:
    assert flask(app, "run").status == 0
    configure(app, {"main": str(app.database), "shop": ADDRESS})

    run, status, doctor, listed = (flask(app, verb) for verb in ("run", "status", "doctor", "list"))
    back = flask(app, "restore", "latest", "--to", str(app.root / "out"))

    assert run.status != 0
    for shown in (run.out, status.out, doctor.out):
        assert "BACKUP_ADMIN_DATABASES: shop: PostgreSQL needs psycopg" in shown
        assert HOW in shown
    assert (listed.status, back.status) == (0, 0), listed.err + back.err
    assert describe_database(app.root / "out/databases/main.sqlite") == describe_database(app.database)
    assert not [
        one for one in (run, status, doctor) if "Traceback" in one.err or "secret" in one.out + one.err
    ]


def test_a_worker_of_such_an_app_loads(app: World) -> None:
    configure(app, {"main": str(app.database), "shop": ADDRESS})
    load = "import backup_admin.jobs, host_of_this_test; host_of_this_test.create_app()"

    done = subprocess.run(
        [sys.executable, "-c", load], cwd=app.root, env=app.environment, capture_output=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, b"")
