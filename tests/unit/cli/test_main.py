"""From arguments to an exit code, in this process."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING

import pytest

from backup_admin.cli import archiving, looking, main
from backup_admin.core.errors import BackupAdminError, Busy, StorageUnavailable
from backup_admin.storage.local import LocalStorage
from tests.factories import file_sources, make_storage, open_test_repository, run_backup, write_tree

if TYPE_CHECKING:
    from pathlib import Path

KEY_TEXT = "bkm1_aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypqmxj3"
VERBS = (
    *("init", "run", "list", "show", "diff", "check", "verify", "restore", "undo", "recover", "doctor"),
    *("upgrade", "worker", "scheduler"),
)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = main.run([verb, "--help"])

    shown = capsys.readouterr().out
    assert status == 0
    assert "--json" in shown
    assert "--state-dir" in shown


def test_help_names_every_verb_without_loading_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--help"]) == 0

    shown = capsys.readouterr().out
    assert [verb for verb in VERBS if f"  {verb} " not in shown] == []


def test_nothing_at_all_shows_help_and_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([]) == 2
    assert "Verbs:" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["nothing"], ["list"], ["list", "x", "--nothing"], ["list", "s3://x"]])
def test_wrong_use_is_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([*arguments, "--json"]) == 2

    shown = capsys.readouterr()
    assert json.loads(shown.out)["error"]["code"] == "usage"
    assert shown.err.startswith("backup-admin")


@pytest.mark.parametrize("error", [Busy("wait"), StorageUnavailable("gone"), BackupAdminError("bad")])
def test_exit_code_is_that_of_the_error(
    error: BackupAdminError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(looking, "open_given", fail)

    assert main.run(["list", "x", "--json"]) == error.exit_code
    assert json.loads(capsys.readouterr().out)["error"] == {"code": error.code, "message": str(error)}


def test_unexpected_error_is_kept_in_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr(looking, "open_given", fail)

    status = main.run(["list", "x", "--state-dir", str(tmp_path / "state")])

    (log,) = (tmp_path / "state" / "logs").iterdir()
    shown = capsys.readouterr()
    assert (status, shown.out, len(shown.err.splitlines())) == (1, "", 1)
    assert str(log) in shown.err
    assert "Traceback" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_unexpected_error_without_a_place_for_its_log_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(looking, "open_given", fail)

    assert main.run(["list", "x", "--state-dir", "/dev/null/state"]) == 1
    assert "could not be kept" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [["list"], ["check"], ["restore", "latest"]])
def test_a_full_state_folder_is_named_with_the_way_out(
    verb: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = make_storage(LocalStorage(tmp_path / "repo"))
    sources = file_sources(write_tree(tmp_path / "files"))
    run_backup(open_test_repository(storage, tmp_path / "other state"), sources, tmp_path / "other state")
    monkeypatch.setenv("BACKUP_ADMIN_KEY", KEY_TEXT)
    monkeypatch.setattr(os, "write", no_space)
    target = ["--to", str(tmp_path / "out")] if verb[0] == "restore" else []

    status = main.run(
        [*verb, str(tmp_path / "repo"), *target, "--state-dir", str(tmp_path / "state"), "--json"]
    )

    answer = json.loads(capsys.readouterr().out)
    assert status == 1
    assert answer["error"]["code"] == "local_disk"
    assert f"{tmp_path / 'state'}/" in answer["error"]["message"]
    assert "--state-dir" in answer["error"]["message"]


def no_space(_handle: int, _data: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_server_that_asks_for_wal_never_takes_a_mistake_for_the_end_of_its_archive(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    file = "000000010000000000000001"
    state = f"--state-dir={tmp_path}"
    monkeypatch.setattr(archiving, "read_system", broken)

    assert main.run(["archive-get", "/repository", file, str(tmp_path / "x"), state]) == 126
    assert main.run(["archive-get", "/repository", file, "--no-such-option", state]) == 126
    assert main.run(["archive-get", "/repository", "no.wal", str(tmp_path / "x"), state]) == 126
    assert main.run(["list", "--no-such-option"]) == 2
