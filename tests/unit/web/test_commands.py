"""`flask backup ...`: the same functions, with statuses and JSON."""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

import click
import pytest

from backup_admin import jobs
from backup_admin.cli import main
from backup_admin.control import perform
from backup_admin.operations import known
from backup_admin.records import BackupRun, BackupSchedule
from tests.unit.web.shell import Shell, make_app, set_up

if TYPE_CHECKING:
    from pathlib import Path

# Keys are changed beside the app, by who holds secrets that the app must not have; and a
# repository to repair may be one that no app can open. Mirrors of an app are its own affair. Loading needs no
# repository. Exports are for others,
# and imports go into a database that is not in use yet. Triggers are put into a database by who may change
# its definitions. WAL, base backups and streams are the affair of who runs that server.
ALONE = {"keys", "repair", "mirror", "storage", "load", "export", "import", "changes"}
ALONE |= {"stream", "cluster", "archive-push", "archive-get"}
VERBS_OF_BOTH = tuple(
    name for name in main.backup_admin.list_commands(click.Context(main.backup_admin)) if name not in ALONE
)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell on a server where nothing was set up yet."""
    return Shell(tmp_path, make_app(tmp_path))


@pytest.fixture
def ready(shell: Shell) -> Shell:
    """The same after `init` and the confirmation of the recovery key."""
    set_up(shell)
    return shell


def test_init_makes_what_is_missing_and_may_be_repeated(shell: Shell) -> None:
    first = shell("init")
    assert first.exit_code == 0, first.output
    assert "shown this once" in first.output
    assert stat.S_IMODE((shell.folder / "backup.key").stat().st_mode) == 0o600
    key = (shell.folder / "backup.key").read_bytes()
    again = shell("init")
    assert again.exit_code == 0, again.output
    assert "shown this once" not in again.output
    assert (shell.folder / "backup.key").read_bytes() == key


def test_before_upgrade_every_command_says_so(shell: Shell) -> None:
    for command in ("run", "list", "tick", "status", "recover"):
        result = shell(command)
        assert result.exit_code == 2
        assert "flask backup upgrade" in result.output
    assert not (shell.folder / "state").exists()
    assert shell("upgrade").exit_code == 0
    assert shell("list").exit_code == 0


def test_a_state_folder_open_to_others_is_refused(shell: Shell) -> None:
    (shell.folder / "state").mkdir(mode=0o755)
    for command in ("init", "upgrade"):
        result = shell(command)
        assert result.exit_code == 2
        assert "chmod 700" in result.output
    assert list((shell.folder / "state").iterdir()) == []


def test_errors_are_json_too(shell: Shell) -> None:
    document = shell.document("run")
    assert (document["exit_code"], document["error"]["code"]) == (2, "configuration")
    assert document["result"] is None


def test_a_wrong_recovery_key_confirms_nothing(shell: Shell) -> None:
    shell("init")
    result = shell("confirm-recovery-key", typed="AAAA\n")
    assert result.exit_code == 12
    assert shell.json("run")[0] == 2


def test_run_list_verify_and_status_tell_one_story(ready: Shell) -> None:
    code, made = ready.json("run", "--label", "before the upgrade")
    assert (code, made["status"], made["warnings"]) == (0, "completed", [])
    assert made["bytes_read"] > 0
    _, listed = ready.json("list")
    (row,) = listed["snapshots"]
    assert (row["snapshot"], row["label"], row["states"]) == (
        made["snapshot"],
        "before the upgrade",
        ["verified"],
    )
    code, read = ready.json("verify", made["snapshot"][:10])
    assert (code, read["status"], read["snapshot"]) == (0, "completed", made["snapshot"])
    code, state = ready.json("status")
    assert (code, state["state"]) == (1, "at_risk")
    assert "no schedule is on" in state["sentence"]
    assert ready("run").exit_code == 0


def test_a_run_that_may_be_skipped_says_why_it_was(ready: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "SETTLE_NS", -(10**12))  # or the test would have to wait
    ready("run")
    assert ready.json("run", "--exit-skipped")[0] == 2
    code, found = ready.json("run", "--if-changed", "--exit-skipped")
    assert (code, found["status"], found["snapshot"]) == (10, "skipped", "")
    assert found["reason"].startswith(f"Nothing changed since snapshot {found['unchanged']}")
    result = ready("run", "--if-changed")
    assert (result.exit_code, "skipped: Nothing changed" in result.output) == (0, True)


def test_a_failed_backup_ends_with_a_status(ready: Shell) -> None:
    (ready.folder / "uploads").rename(ready.folder / "gone")
    code, made = ready.json("run")
    assert (code, made["status"], made["snapshot"]) == (1, "failed", "")
    assert "uploads" in made["message"]


def test_without_a_queue_nothing_is_queued(ready: Shell) -> None:
    result = ready("run", "--queue")
    assert result.exit_code == 2
    assert "BACKUP_ADMIN_REDIS_URL" in result.output


def test_doctor_names_what_is_wrong_and_what_is_right(ready: Shell) -> None:
    code, found = ready.json("doctor")
    health = {one["topic"]: one["level"] for one in found["findings"]}
    assert code == 0
    assert health["storage"] == health["repository"] == health["recovery key"] == health["audit log"] == "ok"
    assert health["queue"] == "warn"
    (ready.folder / "state").chmod(0o755)
    (ready.folder / "app.db").unlink()
    code, found = ready.json("doctor")
    health = {one["topic"]: one["level"] for one in found["findings"]}
    assert (code, health["state folder"], health["database main"]) == (1, "fail", "fail")
    assert not [path for path in (ready.folder / "storage").iterdir() if "probe" in path.name]


def test_doctor_helps_before_anything_is_there(shell: Shell) -> None:
    code, found = shell.json("doctor")
    assert code == 1
    assert any("flask backup init" in one["message"] for one in found["findings"])


def test_without_a_queue_tick_does_the_work_itself(ready: Shell) -> None:
    installation = jobs.installation_of(ready.app)
    now = installation.clock.now()
    with installation.database.new_session() as session:
        session.add(
            BackupSchedule(name="s", cron="0 2 * * *", created_at=now, updated_at=now, next_run_at=now)
        )
        session.commit()
    assert ready.json("schedules")[1]["schedules"][0]["name"] == "s"
    code, answer = ready.json("tick")
    assert (code, len(answer["started"])) == (0, 1)
    assert len(ready.json("list")[1]["snapshots"]) == 1
    assert ready.json("tick") == (0, {"started": []})


def test_recover_and_undo_say_when_there_is_nothing(ready: Shell) -> None:
    assert ready.json("recover") == (0, {"restores": []})
    assert ready("undo", "nothing", "--yes").exit_code == 1


def test_reindex_learns_the_backups_from_the_storage(ready: Shell) -> None:
    ready("run")
    lost = Shell(ready.folder, make_app(ready.folder, BACKUP_ADMIN_STATE_DIR=str(ready.folder / "new")))
    assert lost("init").exit_code == 0
    assert lost.json("reindex") == (0, {"problems": []})
    assert len(lost.json("list")[1]["snapshots"]) == 1


def test_a_changed_audit_log_is_named(ready: Shell) -> None:
    assert ready.json("audit-verify")[1]["ok"] is True
    log = ready.folder / "state" / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b"repository.make", b"repository.mine", 1))
    code, answer = ready.json("audit-verify")
    assert (code, answer["ok"]) == (4, False)
    assert answer["first_bad"] > 0


def test_every_command_has_a_help_line(shell: Shell) -> None:
    result = shell("--help")
    for name in (*VERBS_OF_BOTH, "tick", "schedules", "status", "reindex", "audit-verify"):
        assert re.search(rf"^ +{name} +\S", result.output, re.MULTILINE), name
    assert BackupRun.__tablename__ not in result.output


def test_a_verb_takes_the_same_options_in_both_commands(shell: Shell) -> None:
    of_the_app = {"storage", "key_file", "state_dir", "app", "recovery_file", "exclude", "folders"}
    of_the_app |= {"sqlite", "postgres", "postgres_format", "as_superuser"}
    group = shell.app.cli.commands["backup"]
    assert isinstance(group, click.Group)
    for name in VERBS_OF_BOTH:
        alone = main.backup_admin.get_command(click.Context(main.backup_admin), name)
        assert alone is not None
        wanted = {parameter.name for parameter in alone.params} - of_the_app
        if name == "run":
            # What a run protects, where it goes and what it overlooks, the app says.
            wanted -= {"files", "clusters", "mirrors", "ignored", "max_skip_hours", "postgres_format"}
        if name == "restore":
            wanted.discard("no_pin")  # the app's own storage is no mirror
        mounted = {parameter.name for parameter in group.commands[name].params}
        assert wanted - mounted == set(), name


def test_every_verb_of_the_app_takes_json(shell: Shell) -> None:
    group = shell.app.cli.commands["backup"]
    assert isinstance(group, click.Group)
    without = [
        name
        for name, command in group.commands.items()
        if "as_json" not in {parameter.name for parameter in command.params}
    ]
    assert without == []


def test_a_damaged_backup_ends_verify_with_four(ready: Shell) -> None:
    ready("run")
    for pack in (ready.folder / "storage").glob("packs/*/*"):
        pack.chmod(0o600)
        pack.write_bytes(bytes(pack.stat().st_size))
    assert ready("verify").exit_code == 4


def test_a_backup_ended_at_once_leaves_the_way_free(ready: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*_words: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(perform, "back_up", end)
        assert ready("run").exit_code == 130
    assert ready("run").exit_code == 0


def test_a_backup_beside_another_is_busy(ready: Shell) -> None:
    with jobs.installation_of(ready.app).state.lock("backup"):
        assert ready("run").exit_code == 5


def test_forget_is_audited_and_the_list_follows(ready: Shell) -> None:
    ids = [ready.json("run")[1]["snapshot"] for _ in range(2)]

    code, answer = ready.json("forget", "--keep-last", "1", "--dry-run")
    assert (code, answer["forgotten"]) == (0, ids[:1])
    code, answer = ready.json("forget", ids[0])

    assert (code, answer["forgotten"], answer["kept"]) == (0, ids[:1], ids[1:])
    assert ready("forget", ids[1]).exit_code == 1
    log = jobs.installation_of(ready.app).audit()
    seen = [(one.action, one.outcome) for one in reversed(log.read_page(limit=4))]
    assert seen == [
        ("repository.forget.start", "done"),
        ("repository.forget", "done"),
        ("repository.forget.start", "done"),
        ("repository.forget", "failed"),
    ]
    assert [one["snapshot"] for one in ready.json("list")[1]["snapshots"]] == ids[1:]


def test_find_and_ls_look_into_the_repository_of_the_app(ready: Shell) -> None:
    ready("run")
    code, answer = ready.json("ls", "latest")
    assert code == 0
    assert [one["path"] for one in answer["entries"]][:2] == ["databases/main", "files/uploads"]
    name = next(path.name for path in (ready.folder / "uploads").rglob("*") if path.is_file())
    code, answer = ready.json("find", name)
    assert (code, answer["paths"][0]["source"]) == (0, "files/uploads")
