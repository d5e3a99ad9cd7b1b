"""The scripts for the far host: any POSIX shell runs them, and any login shell hands them on."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from backup_admin.storage import ssh_scripts
from backup_admin.storage.ssh_scripts import ANSWERING, MAKING, command_of
from tests.proof.mounts import mounted, skip_unless_mounts_work

if TYPE_CHECKING:
    from pathlib import Path

SHELLS = ("sh", "dash", "bash", "busybox", "ksh", "mksh", "zsh")
SCRIPTS = [name for name in dir(ssh_scripts) if name.isupper() and " " in str(getattr(ssh_scripts, name))]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    path = shutil.which(request.param)
    if path is None:
        pytest.skip(f"{request.param} is not installed")
    arguments = {"busybox": ["sh"], "bash": ["--posix"], "zsh": ["--emulate", "sh"]}
    return [path, *arguments.get(request.param, [])]


def run(shell: list[str], script: str, lines: list[str], data: bytes = b"") -> list[str]:
    given = "".join(f"{line}\n" for line in lines).encode() + data
    done = subprocess.run([*shell, "-c", script], input=given, capture_output=True, check=True)
    return done.stdout.decode(errors="replace").splitlines()


def put(shell: list[str], folder: str, how: str, data: bytes) -> str:
    _, answer = run(shell, ANSWERING, [folder, f"put {how}"], data)
    return answer


@pytest.mark.parametrize("name", [name for name in SCRIPTS if not name.startswith("_")])
def test_no_login_shell_finds_anything_to_change(name: str) -> None:
    script = getattr(ssh_scripts, name)

    assert not set(script) & set("'!\\\n`")
    assert command_of(script) == f"exec sh -c '{script}'"


def test_a_name_is_published_once(shell: list[str], tmp_path: Path) -> None:
    folder = str(tmp_path / "it's a $(touch evil); `x`")
    run(shell, MAKING, [folder])
    data = os.urandom(70_000)

    first = put(shell, folder, "packs/ab/1 .tmp-1 70000 new", data)
    again = put(shell, folder, "packs/ab/1 .tmp-2 70000 new", data)
    same = put(shell, folder, "packs/ab/1 .tmp-3 70000 again", data)
    other = put(shell, folder, "packs/ab/1 .tmp-4 5 again", b"other")
    short = put(shell, folder, "b .tmp-5 70001 new", data)
    empty = put(shell, folder, "empty .tmp-6 0 new", b"")
    over = put(shell, folder, "empty .tmp-7 5 over", b"other")

    assert (first, again, same, other, short) == ("stored", "exists", "same", "exists", "short")
    assert (empty, over) == ("stored", "stored")
    assert (tmp_path / folder / "empty").read_bytes() == b"other"
    assert [path.name for path in tmp_path.iterdir()] == [folder.rpartition("/")[2]]
    assert (tmp_path / folder / "packs/ab/1").read_bytes() == data
    assert sorted(path.name for path in (tmp_path / folder).rglob("*")) == ["1", "ab", "empty", "packs"]


def test_a_large_object_that_was_cut_stays_where_rsync_goes_on(shell: list[str], tmp_path: Path) -> None:
    folder, data = str(tmp_path), os.urandom(70_000)

    short = put(shell, folder, "packs/1 .tmp-1 70001 large", data)
    kept = (tmp_path / ".tmp-1/0").read_bytes()
    (gone_on,) = run(shell, ANSWERING, [folder, "publish packs/1 .tmp-1 70000 large"])[1:]
    stored = put(shell, folder, "packs/2 .tmp-1 70000 large", data)
    same = put(shell, folder, "packs/1 .tmp-2 70000 large", data)
    other = put(shell, folder, "packs/1 .tmp-3 5 large", b"other")
    (gone,) = run(shell, ANSWERING, [folder, "publish packs/1 .tmp-4 70000 large"])[1:]

    assert (short, gone_on, stored, same, other) == ("short", "stored", "stored", "same", "exists")
    assert gone == "short"
    assert kept == data == (tmp_path / "packs/1").read_bytes() == (tmp_path / "packs/2").read_bytes()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["1", "2", "packs"]


def test_what_cannot_be_written_is_said_in_a_line_and_leaves_nothing(
    shell: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")

    below_a_file = put(shell, str(tmp_path), "file/1 .tmp-1 4 new", b"data")
    nowhere = put(shell, str(tmp_path), "a .tmp-2/2 4 new", b"data")

    assert "file" in below_a_file
    assert ".tmp-2" in nowhere
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["ls", "head"])
def test_a_program_that_fails_there_makes_no_object_and_no_question_of_bytes(
    shell: list[str], tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "objects"
    folder.mkdir()
    (folder / "taken").write_bytes(b"old")
    (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    for question in (b"put cut .tmp-1 99 new\n", b"put taken .tmp-1 99 new\n"):
        done = subprocess.run(
            [*shell, "-c", ANSWERING],
            input=f"{folder}\n".encode() + question + b"\nremove taken\n",
            capture_output=True,
            env=environment,
            check=True,
        )
        assert b"stored" not in done.stdout

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"taken": b"old"}


def test_a_full_disk_is_called_full_whatever_head_says(shell: list[str], tmp_path: Path) -> None:
    skip_unless_mounts_work(tmp_path / "probe", "tmpfs")
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    (tmp_path / "head").symlink_to(busybox)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=256k", "tmpfs") as disk:
        for size, how in ((263_000, "new"), (600_000, "new"), (263_000, "large"), (600_000, "large")):
            done = subprocess.run(
                [*shell, "-c", ANSWERING],
                input=f"{disk}\nput a .tmp-1 {size} {how}\n".encode() + os.urandom(size),
                capture_output=True,
                env=environment,
                check=True,
            )
            assert b"No space left" in done.stdout
            assert list(disk.iterdir()) == []


def test_questions_are_answered_a_line_each(shell: list[str], tmp_path: Path) -> None:
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs" / "1").write_bytes(b"0123456789")
    questions = [
        "size packs/1",
        "size packs",
        "size none",
        "read packs/1 5 1 16384",
        "remove packs/1",
        "size packs/1",
    ]

    answers = run(shell, ANSWERING, [str(tmp_path), *questions])

    assert answers == ["ready", "f 10", "none", "none", "f 10", "done", "none"]


def test_a_folder_that_is_not_there_is_said_at_once(shell: list[str], tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")

    assert run(shell, ANSWERING, [missing, "size a"]) == ["absent"]


@pytest.mark.parametrize(("said", "stored"), [("Input/output error", False), ("usage: sync", True)])
def test_a_sync_that_fails_at_the_disk_stores_nothing(
    shell: list[str], tmp_path: Path, said: str, stored: bool
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "sync").write_text(f'#!/bin/sh\n[ $# = 0 ] || {{ echo "sync: {said}" >&2; exit 1; }}\n')
    (programs / "sync").chmod(0o755)
    given = f"{tmp_path}\nput a .tmp-1 4 new\ndata".encode()
    environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
    if shell[0].endswith("busybox"):
        pytest.skip("it has a sync of its own built in")

    done = subprocess.run(
        [*shell, "-c", ANSWERING], input=given, capture_output=True, env=environment, check=False
    )

    assert (tmp_path / "a").exists() is stored
    assert (said in done.stdout.decode()) is not stored
