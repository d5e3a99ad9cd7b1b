"""The same life of a repository on every kind of storage, told apart by nothing but the address."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from backup_admin.storage.s3 import S3Storage
from backup_admin.storage.s3_place import parse_s3_address
from examples.gallery.compare import describe_database, describe_tree, differences
from tests.e2e.cli.command import Done, World, change

if TYPE_CHECKING:
    from tests.services.s3 import S3Server
    from tests.services.ssh import SshServer

KINDS = ("folder", "ssh", "full_s3", "poor_s3", "tls_s3")

pytestmark = pytest.mark.integration


@pytest.fixture
def folder(world: World) -> str:
    return f"file://{world.storage}"


@pytest.fixture
def ssh(world: World, sshd: SshServer) -> str:
    return sshd.address(world.root / "a far place" / "repository")


@pytest.fixture
def full_s3(world: World, seaweedfs: S3Server) -> str:
    return s3_address(world, seaweedfs)


@pytest.fixture
def poor_s3(world: World, rclone_s3: S3Server) -> str:
    return s3_address(world, rclone_s3)


@pytest.fixture
def tls_s3(world: World, rclone_https: S3Server) -> str:
    return s3_address(world, rclone_https)


def s3_address(world: World, server: S3Server) -> str:
    world.environment |= {"AWS_ACCESS_KEY_ID": server.key, "AWS_SECRET_ACCESS_KEY": server.secret}
    options = {"create_bucket": "true"} | ({"ca_file": server.ca_file} if server.ca_file else {})
    return server.address(f"a prefix/{uuid4().hex}", **options)


@pytest.fixture
def address(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


def open_storage_as(world: World, address: str) -> S3Storage:
    keys = (world.environment["AWS_ACCESS_KEY_ID"], world.environment["AWS_SECRET_ACCESS_KEY"])
    return S3Storage(parse_s3_address(address), credentials=keys)


def call(world: World, *arguments: object) -> Done:
    done = world.run(*arguments, "--json", environment={"BACKUP_ADMIN_KEY_FILE": str(world.key)}, alone=False)
    assert done.status == 0, done.err
    return done


def back_up(world: World, address: str) -> Done:
    return call(world, "run", address, "--files", f"files={world.files}", "--sqlite", f"app={world.database}")


@pytest.mark.parametrize("address", KINDS, indirect=True)
def test_a_repository_lives_its_life_wherever_it_is(world: World, address: str) -> None:
    call(world, "init", address, "--key-file", world.key, "--recovery-file", world.recovery)
    first = back_up(world, address).result
    tree, rows = describe_tree(world.files), describe_database(world.database)
    assert first["new_bytes"] > 0

    again = back_up(world, address).result
    assert again["new_bytes"] < 20_000
    assert call(world, "check", address, "--read-data").result["problems"] == []

    (world.files / "photos" / "one.jpg").unlink()
    change(world.database, "DELETE FROM item WHERE id < 50")
    back_up(world, address)
    out = world.root / "out"
    call(world, "restore", first["snapshot"]["id"], address, "--to", out)
    assert differences(tree, describe_tree(out / "files" / "files")) == []
    assert differences(rows, describe_database(out / "databases" / "app.sqlite")) == []

    call(world, "forget", address, "--keep-last", "1")
    call(world, "prune", address, "--max-unused", "0")
    assert call(world, "check", address, "--read-data").result["problems"] == []
    call(world, "restore", "latest", address, "--to", world.root / "last")
    assert differences(describe_tree(world.files), describe_tree(world.root / "last/files/files")) == []


@pytest.mark.parametrize("address", KINDS, indirect=True)
def test_a_machine_with_nothing_but_the_address_and_the_recovery_key_restores(
    world: World, address: str
) -> None:
    call(world, "init", address, "--key-file", world.key, "--recovery-file", world.recovery)
    back_up(world, address)
    tree = describe_tree(world.files)
    world.key.unlink()
    elsewhere = World(world.root, world.root / "other-state", world.environment)

    done = elsewhere.run(
        "restore", "latest", address, "--key-file", world.recovery, "--to", "out", alone=False
    )

    assert done.status == 0, done.err
    assert differences(tree, describe_tree(world.root / "out/files/files")) == []


def test_two_machines_share_a_server_that_ignores_conditions(world: World, poor_s3: str) -> None:
    made = call(world, "init", poor_s3, "--key-file", world.key, "--recovery-file", world.recovery)
    other = World(world.root, world.root / "other-state", world.environment)
    runs = ("run", poor_s3, "--files", f"files={world.files}", "--key-file", world.key)
    started = [machine.start(*runs, alone=False) for machine in (world, other) for _ in range(2)]
    ended = [(process.communicate(timeout=120)[1], process.returncode) for process in started]

    assert made.result["single_writer"] is True
    statuses = [status for _, status in ended]
    assert statuses.count(0) >= 2, ended  # one machine runs one backup at a time
    assert set(statuses) <= {0, 5}, ended
    snapshots = call(world, "list", poor_s3).result["snapshots"]
    assert len(snapshots) == statuses.count(0)
    assert call(world, "check", poor_s3, "--read-data").result["problems"] == []
    assert [info.name for info in open_storage_as(world, poor_s3).list_objects("turns/")] == []
