"""Init, run, list, show, diff, check, verify, restore: the whole cycle, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from examples.gallery.compare import describe_database, describe_tree, differences
from tests.e2e.cli.command import World, change, flip, make_database, objects, size_of

ROOT = Path(__file__).parents[3]


def test_cycle_brings_everything_back(world: World) -> None:
    world.init()
    tree, rows = describe_tree(world.files), describe_database(world.database)

    assert world.back_up("--label", "first").status == 0
    (world.files / "readme.txt").write_text("changed\n")
    change(world.database, "DELETE FROM item WHERE id < 50")
    assert world.back_up().status == 0
    done = world.restore(world.root / "out", snapshot=_ids(world)[0])

    assert (done.status, done.result["problems"]) == (0, [])
    assert differences(tree, describe_tree(world.root / "out" / "files" / "files")) == []
    assert differences(rows, describe_database(world.root / "out" / "databases" / "app.sqlite")) == []


def test_other_machine_restores_with_nothing_but_storage_and_recovery_key(repository: World) -> None:
    tree, rows = describe_tree(repository.files), describe_database(repository.database)
    repository.key.unlink()
    elsewhere = World(repository.root, repository.root / "other-state")

    done = elsewhere.run(
        "restore", "latest", f"file://{repository.storage}", "--key-file", repository.recovery, "--to", "out"
    )

    assert done.status == 0, done.err
    assert differences(tree, describe_tree(repository.root / "out/files/files")) == []
    assert differences(rows, describe_database(repository.root / "out/databases/app.sqlite")) == []


def test_unchanged_data_is_stored_in_less_than_20_kb(repository: World) -> None:
    _age(repository.files)
    assert repository.back_up().status == 0
    before = size_of(repository.storage)

    done = repository.back_up("--json")

    assert done.status == 0
    assert size_of(repository.storage) - before < 20_000
    assert done.result["new_bytes"] < 20_000


def test_one_percent_of_changed_rows_stores_about_those_pages(world: World) -> None:
    world.database.unlink()
    make_database(world.database, rows=20_000, payload=1000)
    world.init()
    assert world.back_up().status == 0
    before = size_of(world.storage)

    connection = sqlite3.connect(world.database)
    with connection:
        connection.execute("UPDATE item SET payload = randomblob(1000) WHERE id < 200")
    connection.close()
    assert world.back_up().status == 0

    changed = 200 * 1000
    grown = size_of(world.storage) - before
    assert changed < grown < 2 * changed + 150_000


def test_list_shows_each_snapshot_oldest_first(repository: World) -> None:
    repository.back_up("--label", "second \x1b[31m run")

    listed = repository.call("list").result["snapshots"]
    shown = repository.call("list", json=False).out

    assert [one["label"] for one in listed] == ["", "second \x1b[31m run"]
    assert listed[1]["parent"] == listed[0]["id"]
    assert [line.split()[0] for line in shown.splitlines()] == ["SNAPSHOT", *(one["id"] for one in listed)]
    assert "\x1b" not in shown


def test_list_of_a_fresh_repository_is_empty(world: World) -> None:
    world.init()

    assert world.call("list").result["snapshots"] == []
    assert "has no snapshot yet" in world.call("list", json=False).out


def test_show_prints_the_manifest_for_people_and_programs_alike(repository: World) -> None:
    plain, as_json = repository.call("show", "latest", json=False), repository.call("show", "latest")

    manifest = json.loads(plain.out)
    assert plain.out == as_json.out
    assert manifest["id"] == _ids(repository)[0]
    assert [entry["path"] for entry in manifest["files"]["entries"]] == [
        "empty",
        "photos",
        "photos/2024",
        "photos/2024/two.jpg",
        "photos/one.jpg",
        "readme.txt",
    ]
    assert repository.key.read_text().strip() not in plain.out


def test_shown_manifest_fits_its_schema(repository: World) -> None:
    schema = ROOT / "docs" / "manifest.schema.json"
    if not schema.exists():
        pytest.skip("docs/manifest.schema.json is not there")

    jsonschema.validate(json.loads(repository.call("show", "latest").out), json.loads(schema.read_text()))


def test_diff_names_what_changed(repository: World) -> None:
    (repository.files / "new.txt").write_text("new")
    (repository.files / "readme.txt").write_text("longer than before")
    (repository.files / "photos" / "one.jpg").unlink()
    change(repository.database, "DELETE FROM item WHERE id = 1")
    repository.back_up()

    done = repository.call("diff", *_ids(repository))
    shown = repository.call("diff", *_ids(repository), json=False).out

    assert done.document["exit_code"] == 0
    assert done.result["tables"] == [{"database": "app", "table": "item", "old_rows": 100, "new_rows": 99}]
    assert [(one["change"], one["path"]) for one in done.result["files"]] == [
        ("added", "new.txt"),
        ("removed", "photos/one.jpg"),
        ("changed", "readme.txt"),
    ]
    assert [line.split("  ")[0] for line in shown.splitlines()] == [
        "~ databases/app item",
        "+ files/files/new.txt",
        "- files/files/photos/one.jpg",
        "~ files/files/readme.txt",
    ]


def test_diff_of_a_snapshot_with_itself_is_empty(repository: World) -> None:
    (one,) = _ids(repository)

    assert repository.call("diff", one, one).result["files"] == []
    assert repository.call("diff", one, one, json=False).out == "Nothing differs.\n"


def test_check_and_verify_find_nothing_wrong(repository: World) -> None:
    quick, full = repository.call("check"), repository.call("check", "--read-data")
    verified = repository.call("verify", "latest")

    assert [done.status for done in (quick, full, verified)] == [0, 0, 0]
    assert (quick.result["read_data"], full.result["read_data"]) == (False, True)
    assert full.result["bytes_read"] > quick.result["bytes_read"]
    assert (verified.result["files"], verified.result["databases"]) == (3, 1)


def test_only_restores_what_is_asked_for(repository: World) -> None:
    done = repository.restore(repository.root / "out", "--only", "photos/2024", "--only", "databases/app")

    files = sorted(
        str(path.relative_to(repository.root / "out"))
        for path in (repository.root / "out").rglob("*")
        if path.is_file()
    )
    assert done.status == 0
    assert files == ["databases/app.sqlite", "files/files/photos/2024/two.jpg", "manifest.json"]


def test_only_with_no_match_writes_nothing(repository: World) -> None:
    done = repository.restore(repository.root / "out", "--only", "nothing/like/this")

    assert (done.status, done.error["code"]) == (1, "restore_refused")
    assert not (repository.root / "out").exists()


def test_dry_run_of_a_restore_writes_nothing(repository: World) -> None:
    done = repository.restore(repository.root / "out", "--dry-run")

    assert (done.status, done.result["files"], done.result["databases"]) == (0, 3, 1)
    assert not (repository.root / "out").exists()


def test_restore_leaves_a_folder_with_other_things_alone(repository: World) -> None:
    out = repository.root / "out"
    out.mkdir()
    (out / "mine").write_text("mine")

    dry = repository.restore(out, "--dry-run")
    refused = repository.restore(out)
    allowed = repository.restore(out, "--allow-non-empty")

    assert (dry.status, refused.status, allowed.status) == (1, 1, 0)
    assert sorted(path.name for path in out.iterdir()) == ["databases", "files", "manifest.json", "mine"]


def test_restore_into_the_storage_is_refused(repository: World) -> None:
    before = describe_tree(repository.storage)

    for target in (repository.storage, repository.storage / "packs" / "out", repository.root):
        done = repository.restore(target, "--allow-non-empty")
        assert (done.status, done.error["code"]) == (1, "restore_refused")

    assert differences(before, describe_tree(repository.storage)) == []


def test_snapshot_is_found_by_the_beginning_of_its_id(repository: World) -> None:
    (one,) = _ids(repository)

    assert repository.call("verify", one[:12]).result["snapshot"] == one
    assert repository.call("verify", "zzz").error["code"] == "snapshot_missing"


def test_two_snapshots_with_one_beginning_are_not_guessed(repository: World) -> None:
    repository.back_up()

    done = repository.call("verify", "0")

    assert (done.status, done.error["code"]) == (2, "usage")


def test_key_passphrase_and_recovery_key_come_from_the_environment(world: World) -> None:
    phrase = world.root / "phrase"
    phrase.write_text("correct horse battery staple\n")
    phrase.chmod(0o600)
    made = world.run(
        "init",
        world.storage,
        "--key-file",
        world.key,
        "--recovery-file",
        world.recovery,
        environment={"BACKUP_ADMIN_PASSPHRASE_FILE": str(phrase)},
    )
    assert made.status == 0, made.err

    for environment in (
        {"BACKUP_ADMIN_KEY": world.key.read_text()},
        {"BACKUP_ADMIN_KEY_FILE": str(world.key)},
        {"BACKUP_ADMIN_RECOVERY_KEY": world.recovery.read_text().lower().replace("-", " ")},
        {"BACKUP_ADMIN_RECOVERY_KEY_FILE": str(world.recovery)},
        {"BACKUP_ADMIN_PASSPHRASE": "correct horse battery staple"},
        {"BACKUP_ADMIN_PASSPHRASE_FILE": str(phrase)},
        {"BACKUP_ADMIN_KEY": _other_key(world), "BACKUP_ADMIN_PASSPHRASE_FILE": str(phrase)},
    ):
        done = world.run("list", world.storage, "--json", environment=environment)
        assert done.status == 0, (sorted(environment), done.err)


def test_state_folder_is_where_it_was_asked_for(repository: World) -> None:
    for environment, place in (
        ({"BACKUP_ADMIN_STATE_DIR": "", "XDG_STATE_HOME": str(repository.root / "xdg")}, "xdg/backup-admin"),
        (
            {"BACKUP_ADMIN_STATE_DIR": "", "XDG_STATE_HOME": "", "HOME": str(repository.root / "home")},
            "home/.local/state/backup-admin",
        ),
    ):
        assert repository.call("list", environment=environment).status == 0
        folder = repository.root / place
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    assert repository.call("list", "--state-dir", repository.root / "named").status == 0
    assert (repository.root / "named" / "heads").is_dir()


def test_json_of_an_error_is_one_document_too(repository: World) -> None:
    done = repository.run("list", repository.root / "nowhere", "--key-file", repository.key, "--json")

    assert done.status == 75
    assert done.document == {
        "version": 1,
        "command": "list",
        "exit_code": 75,
        "error": {"code": "storage_unavailable", "message": done.error["message"]},
        "result": None,
    }
    assert "is not there" in done.err


def test_no_progress_is_drawn_where_no_terminal_is(repository: World) -> None:
    done = repository.back_up()

    assert done.err == ""
    assert "\x1b" not in done.out


@pytest.mark.parametrize("verb", ["list", "check", "verify", "restore", "show", "diff", "doctor", "recover"])
def test_verb_starts_where_the_app_side_is_missing(repository: World, verb: str) -> None:
    places: dict[str, list[object]] = {
        "list": [repository.storage],
        "check": [repository.storage],
        "verify": ["latest", repository.storage],
        "restore": ["latest", repository.storage, "--to", "out"],
        "show": ["latest", repository.storage],
        "diff": ["latest", "latest", repository.storage],
        "doctor": [repository.storage],
        "recover": [],
    }
    key: list[object] = [] if verb == "recover" else ["--key-file", repository.key]

    assert repository.run(verb, *places[verb], *key).status == 0


def test_listing_loads_neither_rich_nor_the_app_side(repository: World) -> None:
    code = (
        "import sys\nfrom backup_admin.cli.main import run\nstatus = run(sys.argv[1:])\n"
        "print(status, sorted({'rich', 'flask', 'sqlalchemy', 'redis', 'rq', 'boto3'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "list", repository.storage, "--key-file", repository.key],
        env={**os.environ, "BACKUP_ADMIN_STATE_DIR": str(repository.state)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.splitlines()[-1] == "0 []"


def test_unreadable_snapshot_hides_no_other(repository: World) -> None:
    repository.back_up()
    first, second = _ids(repository)
    damaged = next(path for path in objects(repository.storage, "") if first in path.name)
    flip(damaged, 60)

    done = repository.call("list")

    assert done.status == 4
    assert [one["id"] for one in done.result["snapshots"]] == [second]
    assert [one["id"] for one in done.result["damaged"]] == [first]


def test_every_verb_is_in_the_guide(world: World) -> None:
    guide = (ROOT / "docs" / "cli.md").read_text()
    shown = world.run("--help").out

    verbs = re.findall(r"^  ([a-z]+)  ", shown.partition("Verbs:")[2], re.MULTILINE)
    assert len(verbs) >= 15
    assert [verb for verb in verbs if f"### {verb}" not in guide] == []


def _ids(world: World) -> list[str]:
    return [one["id"] for one in world.call("list").result["snapshots"]]


def _other_key(world: World) -> str:
    other = World(world.root, world.root / "another-state")
    made = other.run("init", world.root / "another", "--key-file", world.root / "another-key")
    assert made.status == 0, made.err
    return (world.root / "another-key").read_text()


def _age(folder: Path) -> None:
    """Let the files be old enough to be trusted without reading them again."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (1_700_000_000, 1_700_000_000))
