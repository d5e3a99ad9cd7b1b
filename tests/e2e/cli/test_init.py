"""A repository is made whole with its keys, or not at all; an interruption loses nothing."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from examples.gallery.compare import describe_tree, differences

if TYPE_CHECKING:
    from collections.abc import Mapping

    from examples.gallery.compare import Entry
    from tests.e2e.cli.command import World

# Kills a copy of the process at the n-th call that changes the disk, for each n; then
# calls the verb once more. Prints how each pair ended.
_SWEEP = """
import json, os, pathlib, shutil, signal, sys
from backup_admin.cli import beginning
from backup_admin.cli.main import run
from backup_admin.core import durable
root, arguments = pathlib.Path(sys.argv[1]), sys.argv[2:]

def arm(count):
    def counted(call):
        def wrapped(*given, **options):
            nonlocal count
            count -= 1
            if count == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*given, **options)
        return wrapped
    for name in ("link", "rename", "replace", "unlink", "mkdir", "fsync"):
        setattr(os, name, counted(getattr(os, name)))
    beginning.rename_new = counted(durable.rename_new)

def in_a_copy(call):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.dup2(2, 1)
        os._exit(call())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def armed(count):
    arm(count)
    return run(arguments)

ends = []
for count in range(1, 200):
    for name in ("storage", "state"):
        shutil.rmtree(root / name, ignore_errors=True)
    for name in ("key", "recovery"):
        (root / name).unlink(missing_ok=True)
    if in_a_copy(lambda: armed(count)) == 0:
        break
    whole = (root / "recovery").exists()
    again = 0 if whole else in_a_copy(lambda: run(arguments))
    opened = [
        in_a_copy(lambda: run(["list", str(root / "storage"), "--key-file", str(root / name)]))
        for name in ("key", "recovery")
    ]
    ends.append([count, again, *opened])
print(json.dumps(ends))
"""
_RECOVERY_KEY = re.compile(r"[A-Z2-7]{7}(?:-[A-Z2-7]{7}){7}")


def test_keys_are_made_for_the_owner_only(world: World) -> None:
    done = world.run("init", world.storage, "--key-file", world.key, "--recovery-file", world.recovery)

    assert done.status == 0
    assert world.key.read_text().startswith("bkm1_")
    assert _RECOVERY_KEY.fullmatch(world.recovery.read_text().strip())
    assert [stat.S_IMODE(path.stat().st_mode) for path in (world.key, world.recovery)] == [0o600, 0o600]
    assert stat.S_IMODE(world.storage.stat().st_mode) == 0o700
    assert world.recovery.read_text().strip() not in done.out + done.err


def test_recovery_key_is_shown_once_and_opens_the_repository(world: World) -> None:
    done = world.run("init", world.storage, "--key-file", world.key)

    (shown,) = _RECOVERY_KEY.findall(done.out)
    listed = world.run("list", world.storage, environment={"BACKUP_ADMIN_RECOVERY_KEY": shown})
    assert (done.status, listed.status) == (0, 0)


def test_json_holds_the_recovery_key_only_when_no_file_does(world: World) -> None:
    with_file = world.run(
        "init", world.storage, "--key-file", world.key, "--recovery-file", world.recovery, "--json"
    )
    without = world.run("init", world.root / "second", "--key-file", world.key, "--json")

    assert "recovery_key" not in with_file.result
    assert with_file.result["slots"] == ["application key", "recovery key"]
    assert _RECOVERY_KEY.fullmatch(without.result["recovery_key"])


def test_existing_application_key_is_used(world: World) -> None:
    world.init()
    key = world.key.read_bytes()

    done = world.run("init", world.root / "second", "--key-file", world.key)

    assert (done.status, world.key.read_bytes()) == (0, key)
    assert world.run("list", world.root / "second", "--key-file", world.key).status == 0


def test_folder_with_other_things_is_left_alone(world: World) -> None:
    (world.storage / "Letters").mkdir(parents=True)
    (world.storage / "Letters" / "to mother.txt").write_text("dear mother")
    before = describe_tree(world.root)

    done = world.run(
        "init", world.storage, "--key-file", world.key, "--recovery-file", world.recovery, "--json"
    )

    assert (done.status, done.error["code"]) == (1, "storage_not_empty")
    assert _changes(world, before) == []


def test_existing_repository_is_left_alone(repository: World) -> None:
    before = describe_tree(repository.storage)

    done = repository.run(
        "init", repository.storage, "--key-file", repository.root / "k", "--recovery-file", "r", "--json"
    )

    assert (done.status, done.error["code"]) == (1, "repository_exists")
    assert differences(before, describe_tree(repository.storage)) == []
    assert not (repository.root / "k").exists()
    assert not (repository.root / "r").exists()


@pytest.mark.parametrize("place", ["key", "recovery"])
def test_key_beside_what_it_opens_is_refused(world: World, place: str) -> None:
    files = {"key": world.key, "recovery": world.recovery} | {place: world.storage / "secret"}

    done = world.run(
        "init", world.storage, "--key-file", files["key"], "--recovery-file", files["recovery"], "--json"
    )

    assert (done.status, done.error["code"]) == (2, "usage")
    assert not world.storage.exists()
    assert not world.key.exists()


def test_recovery_file_is_never_overwritten(world: World) -> None:
    world.recovery.write_text("something dear")

    done = world.run("init", world.storage, "--key-file", world.key, "--recovery-file", world.recovery)

    assert (done.status, world.recovery.read_text()) == (2, "something dear")
    assert not world.storage.exists()


def test_key_file_that_others_can_read_is_refused(world: World) -> None:
    world.init()
    world.key.chmod(0o644)

    done = world.run("init", world.root / "second", "--key-file", world.key, "--json")

    assert (done.status, done.error["code"]) == (6, "not_permitted")
    assert not (world.root / "second").exists()


def test_recovery_file_of_a_repository_that_was_not_made_is_removed(world: World) -> None:
    world.storage.mkdir()
    (world.storage / "keys").mkdir()
    (world.storage / "keys").chmod(0o500)

    done = world.run(
        "init",
        world.storage,
        "--key-file",
        world.key,
        "--recovery-file",
        world.recovery,
        obey_permissions=True,
    )

    assert done.status == 6
    assert sorted(path.name for path in world.root.iterdir()) == [
        "app.db",
        "files",
        "key",
        "state",
        "storage",
    ]
    (world.storage / "keys").chmod(0o700)
    world.init()
    assert world.back_up().status == 0


def test_init_killed_at_any_point_is_finished_by_the_next_call(world: World) -> None:
    arguments = ["init", world.storage, "--key-file", world.key, "--recovery-file", world.recovery]

    swept = subprocess.run(
        [sys.executable, "-c", _SWEEP, str(world.root), *map(str, arguments)],
        env={**os.environ, "BACKUP_ADMIN_STATE_DIR": str(world.state)},
        capture_output=True,
        text=True,
        check=False,
    )

    ends = json.loads(swept.stdout)
    assert len(ends) > 10
    assert [end for end in ends if end[1:] != [0, 0, 0]] == [], swept.stderr
    assert not list(world.root.glob(".recovery*"))


def _changes(world: World, before: Mapping[bytes, Entry]) -> list[str]:
    after = {
        path: entry for path, entry in describe_tree(world.root).items() if path.split(b"/")[0] != b"state"
    }
    return differences(before, after)
