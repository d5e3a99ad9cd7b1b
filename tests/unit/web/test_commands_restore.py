"""`flask backup` looks into backups and brings them back, with the same statuses as `backup-admin`."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from backup_admin import jobs
from backup_admin.records import RestoreOperation
from backup_admin.web import command_line
from tests.unit.web.shell import Shell, make_app, set_up

if TYPE_CHECKING:
    from pathlib import Path

BEFORE = (b"one", ["a", "b", "c"])
CHANGED = (b"changed", ["b", "c"])


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell on a server with one backup, and changes since."""
    shell = Shell(tmp_path, make_app(tmp_path))
    set_up(shell)
    assert shell("run").exit_code == 0
    (tmp_path / "uploads" / "one.txt").write_bytes(b"changed")
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.execute("DELETE FROM photos WHERE title = 'a'")
        connection.commit()
    return shell


def live(shell: Shell) -> tuple[bytes, list[str]]:
    with closing(sqlite3.connect(shell.folder / "app.db")) as connection:
        titles = [row[0] for row in connection.execute("SELECT title FROM photos ORDER BY id")]
    return (shell.folder / "uploads" / "one.txt").read_bytes(), titles


def rows(shell: Shell) -> list[str]:
    with jobs.installation_of(shell.app).database.new_session() as session:
        return [row.status.value for row in session.query(RestoreOperation).order_by(RestoreOperation.id)]


def test_show_prints_the_manifest(shell: Shell) -> None:
    manifest = json.loads(shell("show", "latest").stdout)
    assert manifest["files"]["count"] == 2
    assert shell("show", "latest", "--json").stdout == shell("show", "latest").stdout
    assert shell.document("show", "zzz")["error"]["code"] == "snapshot_missing"


def test_diff_names_what_changed(shell: Shell) -> None:
    first = shell.json("list")[1]["snapshots"][0]["snapshot"]
    shell("run")
    code, found = shell.json("diff", first, "latest")
    assert code == 0
    assert [(one["path"], one["change"]) for one in found["files"]] == [("one.txt", "changed")]
    assert [(one["old_rows"], one["new_rows"]) for one in found["tables"]] == [(3, 2)]
    assert "~ files/uploads/one.txt" in shell("diff", first, "latest").stdout
    assert shell("diff", "latest", "latest").stdout == "Nothing differs.\n"


def test_check_reads_what_it_is_told_and_names_damage(shell: Shell) -> None:
    assert shell.json("check")[1]["read_data"] is False
    code, found = shell.json("check", "--read-data")
    assert (code, found["read_data"], found["problems"]) == (0, True, [])
    next((shell.folder / "storage").glob("packs/*/*")).unlink()
    code, found = shell.json("check")
    assert code == 4
    assert found["problems"]


def test_restore_into_a_folder_leaves_the_live_state_alone(shell: Shell) -> None:
    target = shell.folder / "out"
    code, planned = shell.json("restore", "latest", "--to", str(target), "--dry-run")
    assert (code, planned["files"], planned["dry_run"], target.exists()) == (0, 2, True, False)
    code, done = shell.json("restore", "latest", "--to", str(target), "--only", "files/uploads/one.txt")
    assert (code, done["files"], done["databases"]) == (0, 1, 0)
    assert (target / "files" / "uploads" / "one.txt").read_bytes() == b"one"
    assert shell.document("restore", "latest", "--to", str(target))["error"]["code"] == "restore_refused"
    other = shell.folder / "other"
    other.mkdir()
    (other / "mine.txt").write_bytes(b"mine")
    assert shell("restore", "latest", "--to", str(other), "--allow-non-empty").exit_code == 0
    assert (other / "mine.txt").read_bytes() == b"mine"
    assert (live(shell), rows(shell)) == (CHANGED, [])


def test_restore_never_writes_into_the_storage(shell: Shell) -> None:
    result = shell("restore", "latest", "--to", str(shell.folder / "storage" / "x"))
    assert result.exit_code == 1
    assert "lie inside each other" in result.stderr
    assert not (shell.folder / "storage" / "x").exists()


def test_a_dry_run_in_place_shows_the_plan_and_touches_nothing(shell: Shell) -> None:
    result = shell("restore", "latest", "--in-place", "--dry-run")
    assert result.exit_code == 0
    assert "2 rows now, 3 then" in result.stdout
    assert "0 come back, 1 changes, 0 go away, 1 stays the same" in result.stdout
    assert "Files are compared by size and time, not by their bytes." in result.stdout
    later = (
        "What is written to the database and the folder after this plan and before the restore is replaced"
    )
    assert later in result.stdout
    assert result.stdout.endswith("Nothing was touched.\n")
    assert (live(shell), rows(shell)) == (CHANGED, [])


def test_a_plan_tells_of_a_table_that_differs_with_as_many_rows(shell: Shell) -> None:
    with closing(sqlite3.connect(shell.folder / "app.db")) as connection:
        connection.execute("INSERT INTO photos (title) VALUES ('another')")
        connection.commit()
    result = shell("restore", "latest", "--in-place", "--dry-run")
    assert "3 rows now and then, but they differ" in result.stdout


def test_a_restore_in_place_and_its_undo(shell: Shell) -> None:
    code, done = shell.json("restore", "latest", "--in-place", "--yes")
    assert (code, done["outcome"], done["dry_run"], live(shell)) == (0, "restored", False, BEFORE)
    assert done["safety_snapshot"]
    code, undone = shell.json("undo", done["restore"][:20], "--yes")
    assert (code, undone["outcome"], live(shell)) == (0, "undone", CHANGED)
    assert rows(shell) == ["undone"]
    assert shell.document("undo", "--yes")["error"]["code"] == "restore_refused"


def test_people_are_told_how_to_take_it_back(shell: Shell) -> None:
    result = shell("restore", "latest", "--in-place", "--yes")
    assert "flask backup undo 0" in result.stdout
    assert "Folder uploads" in result.stderr


@pytest.mark.parametrize(
    ("options", "after"),
    [
        (("--files", "uploads"), (BEFORE[0], CHANGED[1])),
        (("--database", "main"), (CHANGED[0], BEFORE[1])),
    ],
)
def test_in_place_takes_names(shell: Shell, options: tuple[str, ...], after: object) -> None:
    assert shell("restore", "latest", "--in-place", *options, "--yes").exit_code == 0
    assert live(shell) == after


def test_consent_is_asked_for(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shell("restore", "latest", "--in-place").exit_code == 2
    assert shell("undo").exit_code == 2
    monkeypatch.setattr(command_line, "is_terminal", lambda: True)
    refused = shell("restore", "latest", "--in-place", typed="no\n")
    assert (refused.exit_code, live(shell), rows(shell)) == (1, CHANGED, [])
    assert "Nothing was touched" in refused.stderr
    assert shell("restore", "latest", "--in-place", typed="yes\n").exit_code == 0
    assert live(shell) == BEFORE
    assert shell("undo", typed="\n").exit_code == 1
    assert live(shell) == BEFORE
    assert shell("undo", typed="yes\n").exit_code == 0
    assert live(shell) == CHANGED


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--to", "x", "--in-place"),
        ("--to", "x", "--yes"),
        ("--to", "x", "--database", "main"),
        ("--in-place", "--only", "a", "--yes"),
        ("--in-place", "--files", "nothere", "--yes"),
    ],
)
def test_what_makes_no_sense_is_refused(shell: Shell, words: tuple[str, ...]) -> None:
    assert shell("restore", "latest", *words).exit_code == 2
    assert (live(shell), rows(shell)) == (CHANGED, [])


def test_a_failed_check_of_the_app_rolls_back_with_its_status(shell: Shell) -> None:
    hooks = jobs.installation_of(shell.app).hooks
    hooks.restore_checks.append(("login", lambda: "nobody can sign in"))
    code, done = shell.json("restore", "latest", "--in-place", "--yes")
    assert (code, done["outcome"], done["error_code"]) == (4, "rolled_back", "verification_failed")
    assert (live(shell), rows(shell)) == (CHANGED, ["rolled_back"])


def test_while_another_restore_works_it_is_busy(shell: Shell) -> None:
    with jobs.installation_of(shell.app).state.lock("restore"):
        document = shell.document("restore", "latest", "--in-place", "--yes")
    assert (document["exit_code"], document["error"]["code"]) == (5, "busy")
    assert live(shell) == CHANGED


def test_an_end_at_once_has_the_status_of_the_command(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*_about: object) -> None:
        raise KeyboardInterrupt

    hooks = jobs.installation_of(shell.app).hooks
    hooks.maintenance.append(lambda on: end() if on else None)
    result = shell("restore", "latest", "--in-place", "--yes")
    assert result.exit_code == 130
    assert "flask backup recover" in result.stderr
    assert live(shell) == CHANGED
    hooks.maintenance.clear()
    assert rows(shell) == ["rolled_back"]
    assert shell("restore", "latest", "--in-place", "--yes").exit_code == 0


def test_rows_come_back_with_the_files_they_name(shell: Shell) -> None:
    with closing(sqlite3.connect(shell.folder / "app.db")) as connection:
        connection.execute("UPDATE photos SET title = 'changed' WHERE title = 'b'")
        connection.commit()
    changed = live(shell)

    code, dry = shell.json("restore", "latest", "--rows", "main.photos:1", "--dry-run")
    assert (code, dry["dry_run"], dry["plan"]["tables"][0]["insert"]) == (0, True, 1)
    assert (live(shell), rows(shell)) == (changed, [])
    code, done = shell.json("restore", "latest", "--rows", "main.photos:1", "--yes")
    assert (code, done["outcome"], live(shell)[1]) == (0, "restored", ["a", "changed", "c"])
    assert done["done"]["tables"] == dry["plan"]["tables"]
    assert done["safety_snapshot"] in [one["snapshot"] for one in shell.json("list")[1]["snapshots"]]
    assert (
        shell.json("restore", "latest", "--rows", "main.photos:1", "--yes")[1]["outcome"] == "nothing_to_do"
    )
    code, _ = shell.json("restore", "latest", "--table", "main.photos", "--on-conflict", "replace", "--yes")
    assert (code, live(shell)[1]) == (0, BEFORE[1])
    assert rows(shell) == ["restored", "restored"]
    assert (shell.json("undo", "--yes")[0], live(shell)[1]) == (0, ["a", "changed", "c"])
    again = shell.document("undo", "--yes")["error"]["message"]  # said twice, it takes nothing else back
    assert ("was taken back already" in again, done["restore"] in again) == (True, True)
    assert shell.document("undo", done["restore"], "--yes")["error"] is None
    assert (live(shell), sorted(rows(shell))) == (changed, ["undone", "undone"])
    assert shell.document("undo", "--yes")["error"]["code"] == "restore_refused"


def test_rows_are_asked_about_first(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("restore", "latest", "--rows", "main.photos:1")
    assert shell(*words).exit_code == 2
    monkeypatch.setattr(command_line, "is_terminal", lambda: True)
    refused = shell(*words, typed="no\n")
    assert (refused.exit_code, live(shell), rows(shell)) == (1, CHANGED, [])
    assert "photos  1 new" in refused.stderr
    assert shell(*words, typed="yes\n").exit_code == 0
    assert live(shell)[1] == BEFORE[1]


@pytest.mark.parametrize(
    "words",
    [
        ("--rows", "photos:1"),
        ("--rows", "main.photos"),
        ("--rows", "main.photos:1", "--in-place"),
        ("--rows", "main.photos:1", "--files", "uploads"),
        ("--table", "main.photos", "--to", "x"),
        ("--table", "main.photos", "--on-conflict", "copy"),
        ("--table", "main.photos", "--linked", "main.photos.title=nothere"),
        ("--in-place", "--on-conflict", "skip"),
        ("--to", "x", "--linked", "main.photos.title=uploads"),
    ],
)
def test_rows_that_make_no_sense_are_refused(shell: Shell, words: tuple[str, ...]) -> None:
    result = shell("restore", "latest", *words, *(() if "--to" in words else ("--yes",)))
    assert result.exit_code == 2, result.stderr
    assert (live(shell), rows(shell)) == (CHANGED, [])
