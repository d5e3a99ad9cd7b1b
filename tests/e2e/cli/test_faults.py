"""Wrong keys, damage, missing and full disks: a named error, and nothing lost."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from backup_admin.cli.given import parse_key
from backup_admin.core.clock import SystemClock
from backup_admin.core.errors import RepositoryError
from backup_admin.repository.repository import open_repository
from backup_admin.storage.open import open_storage
from examples.gallery.compare import describe_database, describe_tree, differences
from tests.e2e.cli.command import World, flip, make_database, objects
from tests.services.postgres import OWNER, PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.repository.secrets import RepositorySecret
    from backup_admin.storage.base import Storage
    from tests.services.postgres import PostgresServer

LOOKING = (["list"], ["show", "latest"], ["check"], ["verify", "latest"], ["diff", "latest", "latest"])


@pytest.fixture
def wrong_key(repository: World) -> Path:
    """Return the key file of another repository."""
    other = repository.root / "other-key"
    assert repository.run("init", repository.root / "other", "--key-file", other).status == 0
    return other


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", place], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mount: {done.stderr.decode()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_wrong_key_opens_nothing_and_writes_nothing(repository: World, wrong_key: Path) -> None:
    before = describe_tree(repository.storage)
    calls = [[*verb, repository.storage] for verb in LOOKING]
    calls.append(["restore", "latest", repository.storage, "--to", repository.root / "out"])
    calls.append(["run", repository.storage, "--files", f"files={repository.files}"])

    for call in calls:
        done = repository.run(*call, "--key-file", wrong_key, "--json")
        assert (done.status, done.error["code"]) == (12, "wrong_key"), call

    assert differences(before, describe_tree(repository.storage)) == []
    assert not (repository.root / "out").exists()


def test_mistyped_recovery_key_is_told_from_a_wrong_one(repository: World) -> None:
    text = repository.recovery.read_text()
    repository.recovery.write_text(text.replace(text[3], "A" if text[3] != "A" else "B", 1))

    done = repository.run("list", repository.storage, "--key-file", repository.recovery, "--json")

    assert (done.status, done.error["code"]) == (12, "bad_secret")
    assert "mistyped" in done.error["message"]


def test_key_on_the_command_line_is_refused_and_not_repeated(repository: World) -> None:
    key = repository.key.read_text().strip()

    done = repository.run("list", repository.storage, "--key-file", key)

    assert done.status == 2
    assert key not in done.out + done.err


def test_no_key_at_all_is_wrong_use(repository: World) -> None:
    done = repository.run("list", repository.storage, "--json")

    assert (done.status, done.error["code"]) == (2, "usage")
    assert "--key-file" in done.error["message"]


def test_key_file_that_others_can_read_is_refused(repository: World) -> None:
    repository.key.chmod(0o640)

    assert repository.call("list").status == 6


def test_key_given_twice_is_refused(repository: World) -> None:
    done = repository.run(
        "list",
        repository.storage,
        environment={
            "BACKUP_ADMIN_KEY": repository.key.read_text(),
            "BACKUP_ADMIN_KEY_FILE": str(repository.key),
        },
    )

    assert done.status == 2


def test_missing_storage_is_a_disk_that_is_not_mounted(repository: World) -> None:
    repository.storage.rename(repository.root / "unmounted")

    for verb in LOOKING:
        done = repository.call(*verb)
        assert (done.status, done.error["code"]) == (75, "storage_unavailable"), verb
    assert repository.back_up().status == 75

    assert not repository.storage.exists()


def test_empty_folder_is_not_taken_for_a_repository(repository: World) -> None:
    repository.storage.rename(repository.root / "unmounted")
    repository.storage.mkdir()

    for verb in LOOKING:
        done = repository.call(*verb)
        assert (done.status, done.error["code"]) == (1, "not_a_repository"), verb
    assert repository.back_up().status == 1

    assert list(repository.storage.iterdir()) == []


def test_older_copy_of_the_storage_is_noticed(repository: World) -> None:
    subprocess.run(["cp", "-a", repository.storage, repository.root / "older"], check=True)
    repository.back_up()
    repository.storage.rename(repository.root / "newer")
    (repository.root / "older").rename(repository.storage)

    listed, checked, run = repository.call("list"), repository.call("check"), repository.back_up("--json")

    assert "older copy" in listed.err
    assert (checked.status, run.status, run.error["code"]) == (4, 4, "history_changed")


def test_missing_source_fails_and_makes_no_snapshot(repository: World) -> None:
    for source in (["--files", "a=gone"], ["--sqlite", "a=gone.db"], ["--files", "a=app.db"]):
        done = repository.run("run", repository.storage, "--key-file", repository.key, *source, "--json")
        assert (done.status, done.error["code"]) == (1, "source_missing"), source
        assert done.error["message"].endswith("earlier snapshots are intact. Mend that, or run without it.")
        assert done.error["message"].count("Nothing was backed up") == 1

    assert len(repository.call("list").result["snapshots"]) == 1


def test_root_that_cannot_be_listed_fails_and_makes_no_snapshot(repository: World) -> None:
    repository.files.chmod(0o000)

    done = repository.run(
        "run",
        repository.storage,
        "--key-file",
        repository.key,
        "--files",
        f"files={repository.files}",
        "--json",
        obey_permissions=True,
    )

    repository.files.chmod(0o700)
    assert (done.status, done.error["code"]) == (1, "source_missing")
    assert len(repository.call("list").result["snapshots"]) == 1


def test_unreadable_entries_make_the_run_degraded_and_are_named(repository: World) -> None:
    (repository.files / "secret\n.txt").write_text("secret")
    (repository.files / "secret\n.txt").chmod(0o000)
    (repository.files / "closed").mkdir(mode=0o000)

    done = repository.back_up("--json", obey_permissions=True)
    shown = repository.back_up(obey_permissions=True)

    assert (done.status, done.result["outcome"]) == (3, "degraded")
    named = "\n".join(done.result["warnings"])
    assert "secret\\n.txt" in named
    assert "closed" in named
    assert shown.status == 3
    assert "secret\\n.txt" in shown.err
    assert [one["outcome"] for one in repository.call("list").result["snapshots"]] == [
        "completed",
        "degraded",
        "degraded",
    ]


def test_nothing_to_back_up_is_wrong_use(repository: World) -> None:
    done = repository.run("run", repository.storage, "--key-file", repository.key, "--json")

    assert (done.status, done.error["code"]) == (2, "usage")


@pytest.mark.parametrize(
    "source",
    [
        ["--files", "files"],
        ["--files", "=x"],
        ["--files", "a/b=files"],
        ["--sqlite", "..=app.db"],
        ["--files", "a=files", "--files", "a=files"],
        ["--files", "a=files", "--exclude", "!no"],
        ["--files", "a=files", "--exclude", b"\xff*"],
        ["--files", "a=files", "--label", b"\xff"],
    ],
)
def test_source_that_makes_no_sense_is_wrong_use(repository: World, source: list[str | bytes]) -> None:
    done = repository.run("run", repository.storage, "--key-file", repository.key, *source)

    assert done.status == 2, done.err
    assert "Traceback" not in done.err
    assert "unexpected" not in done.err


def test_repository_inside_a_source_is_refused(repository: World) -> None:
    before = describe_tree(repository.storage)

    for source in (repository.root, repository.storage, repository.storage / "packs"):
        done = repository.run(
            "run", repository.storage, "--key-file", repository.key, "--files", f"all={source}", "--json"
        )
        assert (done.status, done.error["code"]) == (2, "usage"), source

    assert differences(before, describe_tree(repository.storage)) == []


def test_state_folder_in_the_storage_is_refused(repository: World) -> None:
    done = repository.call("list", "--state-dir", repository.storage / "state")

    assert done.status == 2
    assert not (repository.storage / "state").exists()


def test_state_folder_that_cannot_be_made_is_named(repository: World) -> None:
    (repository.root / "file").write_text("")

    done = repository.call("list", "--state-dir", repository.root / "file" / "state")

    assert (done.status, done.error["code"]) == (6, "not_permitted")
    assert "--state-dir" in done.error["message"]


@pytest.mark.parametrize("prefix", ["packs/", "index/", "manifests/", "chain/", "config"])
def test_flipped_bit_is_found_and_named(repository: World, prefix: str) -> None:
    found = objects(repository.storage, prefix)
    assert found, [path.name for path in objects(repository.storage, "")]
    flip(found[0])

    done = repository.call("check", "--read-data")

    said = str(done.result["problems"] if done.document["result"] else done.error["message"])
    assert done.status == 4, done.out
    assert "Traceback" not in done.err
    assert "unexpected" not in done.out
    assert found[0].name[:12] in said or "configuration" in said, said


def test_damaged_pack_spoils_only_what_lies_in_it(repository: World) -> None:
    before = describe_tree(repository.files)
    (repository.files / "later.bin").write_bytes(os.urandom(400_000))
    repository.back_up()
    first, second = (one["id"] for one in repository.call("list").result["snapshots"])
    newest = max(objects(repository.storage, "packs/"), key=lambda path: path.stat().st_mtime_ns)
    flip(newest)

    good, bad = repository.call("verify", first), repository.call("verify", second)
    partly = repository.restore(repository.root / "partly", snapshot=second)
    whole = repository.restore(repository.root / "whole", snapshot=first)

    assert (good.status, bad.status, partly.status, whole.status) == (0, 4, 3, 0)
    assert "later.bin" in str(bad.result["problems"])
    assert "later.bin" in str(partly.result["problems"])
    assert differences(before, describe_tree(repository.root / "whole/files/files")) == []


def test_damaged_slot_leaves_the_other_key_working(repository: World) -> None:
    secrets = [parse_key(path.read_text(), "") for path in (repository.key, repository.recovery)]
    storage = open_storage(str(repository.storage), state=repository.root)
    for slot in objects(repository.storage, "keys/"):
        whole = slot.read_bytes()
        for position in range(len(whole)):
            flip(slot, position)
            opened = [secret for secret in secrets if _opens(storage, secret)]
            slot.write_bytes(whole)
            assert opened, (slot.name, position)
        slot.write_bytes(b"")
        assert [secret for secret in secrets if _opens(storage, secret)], slot.name
        slot.write_bytes(whole)


def _opens(storage: Storage, secret: RepositorySecret) -> bool:
    try:
        open_repository(storage, secret, state=None, clock=SystemClock())
    except RepositoryError:
        return False
    return True


def test_truncated_objects_are_found(repository: World) -> None:
    for prefix in ("packs/", "index/", "manifests/"):
        (damaged, *_) = objects(repository.storage, prefix)
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[:-1])
        done = repository.call("check")
        damaged.write_bytes(whole)
        assert done.status == 4, prefix


def test_removed_objects_are_found(repository: World) -> None:
    for prefix in ("packs/", "index/", "manifests/", "chain/"):
        (damaged, *_) = objects(repository.storage, prefix)
        whole = damaged.read_bytes()
        damaged.unlink()
        done = repository.call("check")
        damaged.write_bytes(whole)
        assert done.status == 4, prefix


def test_full_disk_is_told_and_spoils_nothing(world: World, small_disk: Path) -> None:
    storage = small_disk / "storage"
    key = ["--key-file", world.key]
    files = ["--files", f"files={world.files}"]
    assert world.run("init", storage, *key).status == 0
    assert world.run("run", storage, *key, *files).status == 0
    tree = describe_tree(world.files)
    (world.files / "big").write_bytes(os.urandom(5_000_000))

    full = world.run("run", storage, *key, *files, "--json")

    assert (full.status, full.error["code"]) == (1, "storage_full")
    assert "Free space" not in full.error["message"]
    assert [path for path in storage.rglob("*") if path.name.startswith(".tmp-")] == []
    assert world.run("restore", "latest", storage, *key, "--to", "out").status == 0
    assert differences(tree, describe_tree(world.root / "out/files/files")) == []
    assert list((world.state / "scratch").iterdir()) == []


@pytest.mark.parametrize("kind", ["json", "sql", "compact"])
@pytest.mark.parametrize("given", ["a snapshot", "in use", "large with its copy"])
def test_export_to_a_full_disk_is_told_with_its_room_and_is_no_damage(
    repository: World, small_disk: Path, kind: str, given: str
) -> None:
    with closing(sqlite3.connect(repository.database)) as database, database:
        size = 1_600_000 if given == "large with its copy" else 4_000_000
        database.execute("CREATE TABLE large AS SELECT zeroblob(?) AS x", (size,))
    repository.back_up()
    source = ["--sqlite", repository.database]
    if given == "a snapshot":
        source = ["latest", repository.storage, "--key-file", repository.key]

    done = repository.run("export", *source, "--format", kind, "--to", small_disk / "out", "--json")

    assert (done.status, done.error["code"]) == (1, "local_disk")
    assert "3.1 MB were free when the export began" in done.error["message"]
    assert "Nothing was exported" in done.error["message"]
    assert list(small_disk.iterdir()) == []


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["json", "sql"])
def test_export_of_a_postgresql_snapshot_to_a_full_disk_is_no_damage(
    world: World, small_disk: Path, postgres: PostgresServer, kind: str
) -> None:
    world.environment |= {"BACKUP_ADMIN_KEY_FILE": str(world.key), "PGPASSWORD": PASSWORD}
    name = postgres.new_database()
    postgres.run("CREATE TABLE large AS SELECT repeat('x', 1000) FROM generate_series(1, 5000)", name)
    postgres.run(f"ALTER TABLE large OWNER TO {OWNER}", name)
    world.init()
    source = f"app={postgres.address(name, password=None)}"
    assert world.run("run", world.storage, "--postgres", source, alone=False).status == 0

    to = ["--format", kind, "--to", small_disk / "out", "--json"]
    done = world.run("export", "latest", world.storage, *to, alone=False)

    assert (done.status, done.error["code"]) == (1, "local_disk"), done.out
    assert "3.1 MB were free when the export began" in done.error["message"]
    assert list(small_disk.iterdir()) == []


def test_full_target_is_told_before_anything_is_written(repository: World, small_disk: Path) -> None:
    (repository.files / "big").write_bytes(bytes(5_000_000))
    repository.back_up()

    dry = repository.restore(small_disk / "deep/out", "--dry-run")
    assert list(small_disk.iterdir()) == []
    done = repository.restore(small_disk / "out")

    for refused in (dry, done):
        assert (refused.status, refused.error["code"]) == (1, "restore_refused")
        assert "MB" in refused.error["message"]


def test_full_state_folder_is_told(repository: World, small_disk: Path) -> None:
    repository.database.unlink()
    make_database(repository.database, rows=5_000, payload=1000)

    done = repository.back_up("--state-dir", small_disk / "state", "--json")

    assert done.status == 1, done.out
    assert done.error["code"] != "unexpected", done.error
    assert len(repository.call("list").result["snapshots"]) == 1


def test_answer_that_cannot_be_written_is_an_error(repository: World) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123
        process = repository.start(
            "list", repository.storage, "--key-file", repository.key, stdout=full.fileno()
        )
        _, err = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "could not be written" in err


def test_unexpected_error_is_one_line_and_a_log(repository: World) -> None:
    (repository.state / "heads").rename(repository.state / "elsewhere")
    (repository.state / "heads").symlink_to(repository.state / "locks" / "nothing")

    done = repository.call("list", json=False)

    assert done.status in (1, 6)
    assert len(done.err.splitlines()) == 1
    assert "Traceback" not in done.err


def test_database_of_another_kind_of_file_is_refused(repository: World) -> None:
    (repository.root / "no.db").write_text("this is not a database, whatever its name says")

    done = repository.run(
        "run", repository.storage, "--key-file", repository.key, "--sqlite", "no=no.db", "--json"
    )

    assert (done.status, done.error["code"]) == (1, "source_missing")


def test_damaged_database_makes_no_snapshot(repository: World) -> None:
    repository.database.unlink()
    make_database(repository.database, rows=1000)
    with repository.database.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 4096)

    done = repository.back_up("--json")

    assert (done.status, done.error["code"]) == (1, "source_invalid")
    assert len(repository.call("list").result["snapshots"]) == 1


def test_snapshot_survives_beside_a_failed_one(repository: World) -> None:
    rows = describe_database(repository.database)
    repository.run("run", repository.storage, "--key-file", repository.key, "--files", "a=gone")

    assert repository.restore(repository.root / "out").status == 0

    assert differences(rows, describe_database(repository.root / "out/databases/app.sqlite")) == []
