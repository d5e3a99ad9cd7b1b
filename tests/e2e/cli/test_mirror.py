"""A second copy over the command: made, kept up to date, and the only one that is left."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from examples.gallery.compare import describe_database, describe_tree, differences
from tests.e2e.cli.command import Done, World, change, flip, objects
from tests.e2e.cli.test_kinds_of_storage import s3_address

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.s3 import S3Server
    from tests.services.ssh import SshServer


def mirror(world: World, source: object, target: object, *more: object, alone: bool = False) -> Done:
    """Mirror with no key at hand."""
    return world.run("mirror", source, "--to", target, "--json", *more, alone=alone)


def with_key(world: World, *arguments: object) -> Done:
    done = world.run(*arguments, "--key-file", world.recovery, "--json", alone=False)
    assert done.status == 0, done.err
    return done


def trees_differ(one: Path, other: Path) -> str:
    return subprocess.run(["diff", "-r", one, other], capture_output=True, text=True, check=False).stdout


@pytest.mark.integration
def test_a_mirror_in_a_bucket_is_all_that_is_needed_when_the_folder_is_gone(
    repository: World, seaweedfs: S3Server
) -> None:
    address = s3_address(repository, seaweedfs)
    first = mirror(repository, repository.storage, address)
    assert first.status == 0, first.err
    (repository.files / "photos" / "new.jpg").write_bytes(bytes(range(256)) * 900)
    change(repository.database, "DELETE FROM item WHERE id < 50")
    assert repository.back_up().status == 0
    second = mirror(repository, repository.storage, address, "--read-back")
    assert second.status == 0, second.err
    assert (second.result["entries_behind"], second.result["problems"]) == (1, [])
    assert 0 < second.result["objects"] < first.result["objects"] + 3
    tree, rows = describe_tree(repository.files), describe_database(repository.database)
    kept = repository.root / "kept"
    repository.storage.rename(kept)
    elsewhere = World(repository.root, repository.root / "other-state", repository.environment)

    assert with_key(elsewhere, "check", address, "--read-data").result["problems"] == []
    assert len(with_key(elsewhere, "list", address).result["snapshots"]) == 2
    with_key(elsewhere, "restore", "latest", address, "--to", "out", "--no-pin")
    back = mirror(elsewhere, address, repository.storage)

    out = repository.root / "out"
    assert differences(tree, describe_tree(out / "files" / "files")) == []
    assert differences(rows, describe_database(out / "databases" / "app.sqlite")) == []
    assert back.status == 0, back.err
    assert trees_differ(kept, repository.storage) == ""


@pytest.mark.integration
def test_a_server_that_ignores_conditions_can_hold_a_mirror(repository: World, rclone_s3: S3Server) -> None:
    address = s3_address(repository, rclone_s3)

    done = mirror(repository, repository.storage, address)

    assert done.status == 0, done.err
    assert mirror(repository, repository.storage, address).result["objects"] == 0
    with_key(repository, "restore", "latest", address, "--to", "out")
    restored = describe_tree(repository.root / "out" / "files" / "files")
    assert differences(describe_tree(repository.files), restored) == []


def test_a_mirror_follows_forget_and_prune(repository: World) -> None:
    target = repository.root / "mirror"
    (repository.files / "photos" / "one.jpg").unlink()
    assert repository.back_up().status == 0
    assert mirror(repository, repository.storage, target, alone=True).status == 0
    assert repository.call("forget", json=False).status == 2
    key = ("--key-file", repository.key)
    assert repository.run("forget", repository.storage, "--keep-last", 1, *key).status == 0
    assert repository.run("prune", repository.storage, "--max-unused", 0, *key).status == 0

    would = mirror(repository, repository.storage, target, "--dry-run", alone=True)
    done = mirror(repository, repository.storage, target, alone=True)

    assert (would.status, done.status) == (0, 0)
    assert done.result["deleted"] == would.result["deleted"] > 0
    assert done.result["bytes"] == would.result["bytes"] > 0
    assert trees_differ(repository.storage, target) == ""


def test_a_dry_run_makes_nothing(repository: World) -> None:
    target = repository.root / "mirror"

    done = repository.run("mirror", repository.storage, "--to", target, "--dry-run")

    assert done.status == 0, done.err
    assert "would be made as a mirror" in done.out
    assert not target.exists()


def test_a_damaged_pack_is_named_and_the_mirror_still_restores_as_before(repository: World) -> None:
    target = repository.root / "mirror"
    assert mirror(repository, repository.storage, target, alone=True).status == 0
    before = set(objects(repository.storage, "packs/"))
    (repository.files / "photos" / "new.jpg").write_bytes(bytes(range(255)) * 999)
    assert repository.back_up().status == 0
    bad = next(path for path in objects(repository.storage, "packs/") if path not in before)
    flip(bad)

    done = repository.run("mirror", repository.storage, "--to", target)

    assert done.status == 3
    assert f"packs/{bad.parent.name}/{bad.name} in {repository.storage} is damaged" in done.err
    assert "stays at entry 1 of 2" in done.err
    elsewhere = World(repository.root, repository.root / "other-state")
    assert len(with_key(elsewhere, "list", target).result["snapshots"]) == 1
    assert with_key(elsewhere, "check", target, "--read-data").result["problems"] == []


def test_a_backup_into_the_mirror_is_told_apart(repository: World) -> None:
    target = repository.root / "mirror"
    assert mirror(repository, repository.storage, target, alone=True).status == 0
    files = ("--files", f"files={repository.files}", "--key-file", repository.key)
    assert repository.run("run", target, *files).status == 0

    done = mirror(repository, repository.storage, target, alone=True)

    assert (done.status, done.error["code"]) == (4, "history_changed")
    assert "is ahead" in done.error["message"]


def test_a_folder_with_other_things_is_not_touched(repository: World) -> None:
    target = repository.root / "mirror"
    shutil.copytree(repository.files, target)

    done = mirror(repository, repository.storage, target, alone=True)

    assert (done.status, done.error["code"]) == (1, "storage_not_empty")
    assert trees_differ(repository.files, target) == ""


def test_a_restore_from_the_mirror_keeps_neither_it_nor_the_source_from_going_on(repository: World) -> None:
    target = repository.root / "mirror"
    assert mirror(repository, repository.storage, target, alone=True).status == 0

    with_key(repository, "restore", "latest", target, "--to", "out")

    assert trees_differ(repository.storage, target) == ""
    assert repository.back_up().status == 0
    assert with_key(repository, "check", target).result["problems"] == []
    assert mirror(repository, repository.storage, target, alone=True).status == 0
    assert trees_differ(repository.storage, target) == ""


def test_what_was_read_of_the_mirror_does_not_count_as_read_of_the_source(repository: World) -> None:
    target = repository.root / "mirror"
    assert mirror(repository, repository.storage, target, alone=True).status == 0

    with_key(repository, "check", target, "--sample", "1/30")
    with_key(repository, "verify", "latest", target)

    notes = [path.name for path in (repository.state / "heads").iterdir()]
    read = [name for name in notes if name.endswith(("scrub.json", "verified.json"))]
    assert len(read) == 2
    assert all(".mirror-" in name for name in read)


def test_a_restore_in_place_writes_a_safety_backup_and_so_knows_no_such_option(repository: World) -> None:
    done = repository.call(
        "restore", "latest", "--in-place", "--no-pin", "--files", f"files={repository.files}"
    )

    assert done.status == 2
    assert "--no-pin has no meaning with --in-place" in done.error["message"]


@pytest.mark.integration
def test_one_run_goes_to_several_storages_and_on_where_one_fails(repository: World, sshd: SshServer) -> None:
    far = sshd.address(repository.root / "far")
    refused = repository.root / "refused"
    refused.mkdir()
    (refused / "somebody's").write_text("theirs")

    done = repository.back_up("--mirror", refused, "--mirror", far, "--json")

    assert done.status == 3
    first, second = done.result["mirrors"]
    assert "holds other things" in first["problem"]
    assert second["problem"] == ""
    assert done.result["outcome"] == "completed"
    assert [path.name for path in refused.iterdir()] == ["somebody's"]
    with_key(repository, "restore", "latest", far, "--to", repository.root / "out", "--no-pin")
    assert (
        differences(describe_tree(repository.files), describe_tree(repository.root / "out/files/files")) == []
    )
