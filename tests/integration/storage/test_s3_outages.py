"""Whole backups while the bucket or the server goes away, and buckets that are not ours, on a real server."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from backup_admin.core.errors import StorageError
from backup_admin.storage.retrying import Retries
from backup_admin.storage.s3 import S3Storage
from backup_admin.storage.s3_place import parse_s3_address
from examples.gallery.compare import describe_tree, differences
from tests.e2e.cli.command import Done, World
from tests.factories import file_sources, make_storage, noise, open_test_repository, run_backup, write_tree
from tests.fakes import FaultyStorage
from tests.services.s3 import KEY, SECRET, WRITER, S3Server, free_ports, kill, plain_client, start_seaweedfs

if TYPE_CHECKING:
    from pathlib import Path

FOREIGN = {"letter.txt": b"Dear all,", "app/config": b"not a repository", "app/keys/one": os.urandom(900)}
MANY, SIZE = 150, 1 << 20

pytestmark = pytest.mark.integration


def make_world(root: Path) -> World:
    world = World(root, root / "state")
    world.environment = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    write_tree(world.files, {f"{number}.jpg": noise(SIZE, seed=number) for number in range(4)})
    return world


def call(world: World, address: str, verb: str, *before: object, more: tuple[object, ...] = ()) -> Done:
    key = {"BACKUP_ADMIN_KEY_FILE": str(world.key)}
    return world.run(verb, *before, address, *more, "--json", environment=key, alone=False, timeout=300)


def good(done: Done) -> dict[str, Any]:
    assert done.status == 0, done.err
    return done.result


def init(world: World, address: str) -> None:
    good(call(world, address, "init", more=("--key-file", world.key, "--recovery-file", world.recovery)))


@pytest.mark.long(minutes=1)
def test_a_server_that_is_killed_in_the_middle_of_a_run_loses_nothing(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """The run waits for the server or ends; this server needs up to half a minute to come back."""
    world, folder, ports = make_world(tmp_path), tmp_path / "server", free_ports(8)
    folder.mkdir()
    server = start_seaweedfs(pytestconfig, folder, ports=ports)
    s3 = S3Server(server.url)
    address = s3.address("app", create_bucket="true")
    try:
        init(world, address)
        first = good(call(world, address, "run", more=("--files", f"files={world.files}")))["snapshot"]["id"]
        small = describe_tree(world.files)
        write_tree(world.files, {f"more/{number}.jpg": os.urandom(SIZE) for number in range(MANY)})
        before = count_packs(s3)
        # Slow enough to be met at work.
        run = start_run(world, s3.address("app", bandwidth="10"))
        wait_for(lambda: count_packs(s3) > before)

        kill(server)

        assert run.poll() is None
        server = start_seaweedfs(pytestconfig, folder, ports=ports)
        _, said = run.communicate(timeout=300)
        assert run.returncode in (0, 75), said
        assert run.returncode == 0 or "nothing listens at 127.0.0.1" in said or "did not recover" in said
        latest = good(call(world, address, "run", more=("--files", f"files={world.files}")))["snapshot"]["id"]
        assert good(call(world, address, "check", more=("--read-data",)))["problems"] == []
        for snapshot, tree in ((first, small), (latest, describe_tree(world.files))):
            good(call(world, address, "restore", snapshot, more=("--to", tmp_path / snapshot)))
            assert differences(tree, describe_tree(tmp_path / snapshot / "files/files")) == []
    finally:
        kill(server)


def start_run(world: World, address: str) -> Any:
    key = {"BACKUP_ADMIN_KEY_FILE": str(world.key)}
    return world.start("run", address, "--files", f"files={world.files}", environment=key, alone=False)


def count_packs(server: S3Server) -> int:
    listed = plain_client(server).list_objects_v2(Bucket="backups", Prefix="app/packs/")
    return int(listed["KeyCount"])


def wait_for(holds: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        pytest.param(WRITER, "there is no bucket|may not do that", id="which stays away"),
        pytest.param((KEY, SECRET), "went away during the work", id="which the server makes anew"),
    ],
)
def test_a_bucket_that_is_deleted_in_the_middle_of_a_run_is_told(
    seaweedfs: S3Server, tmp_path: Path, keys: tuple[str, str], said: str
) -> None:
    client, bucket = plain_client(seaweedfs), f"gone-{uuid4().hex[:8]}"
    client.create_bucket(Bucket=bucket)
    place = parse_s3_address(seaweedfs.address("app", bucket=bucket))
    storage = S3Storage(place, credentials=keys, retries=Retries(attempts=3, sleep=lambda _: None))
    make_storage(storage)
    write_tree(tmp_path / "files")
    packs: list[str] = []

    def delete_the_bucket(method: str, name: str) -> None:
        if method == "put" and name.startswith("packs/"):
            packs.append(name)
            if len(packs) == 2:
                remove_bucket(client, bucket)

    repository = open_test_repository(FaultyStorage(storage, before=delete_the_bucket), tmp_path / "state")

    with pytest.raises(StorageError, match=said):
        run_backup(repository, file_sources(tmp_path / "files"), tmp_path / "state")

    assert len(packs) > 1
    assert not [info for info in listed(client, bucket) if "/chain/" in info]


def listed(client: Any, bucket: str) -> list[str]:
    try:
        return [row["Key"] for row in client.list_objects_v2(Bucket=bucket).get("Contents", [])]
    except ClientError:
        return []


def remove_bucket(client: Any, bucket: str) -> None:
    for row in client.list_objects_v2(Bucket=bucket).get("Contents", []):
        client.delete_object(Bucket=bucket, Key=row["Key"])
    client.delete_bucket(Bucket=bucket)


@pytest.mark.parametrize("prefix", ["", "app"], ids=["the whole bucket", "a prefix"])
def test_a_bucket_with_other_things_is_refused_and_stays_as_it_was(
    seaweedfs: S3Server, tmp_path: Path, prefix: str
) -> None:
    world, client, bucket = make_world(tmp_path), plain_client(seaweedfs), f"theirs-{uuid4().hex[:8]}"
    client.create_bucket(Bucket=bucket)
    for key, data in FOREIGN.items():
        client.put_object(Bucket=bucket, Key=key, Body=data)
    before = everything_in(client, bucket)
    address = seaweedfs.address(prefix, bucket=bucket)
    files = ("--key-file", world.key, "--recovery-file", world.recovery)

    refused = call(world, address, "init", more=files)
    # A key of another repository: with it every other verb gets as far as it can.
    init(world, seaweedfs.address(uuid4().hex, create_bucket="true"))
    others = [
        call(world, address, "run", more=("--files", f"files={world.files}")),
        call(world, address, "prune", more=("--unknown-now",)),
        call(world, address, "check"),
    ]

    assert refused.status != 0
    assert "not touched" in refused.err or "Nothing was touched" in refused.err
    assert all(done.status != 0 and done.error["message"] for done in others)
    assert everything_in(client, bucket) == before


def everything_in(client: Any, bucket: str) -> dict[str, tuple[bytes, object]]:
    found = client.list_objects_v2(Bucket=bucket)["Contents"]
    return {
        row["Key"]: (client.get_object(Bucket=bucket, Key=row["Key"])["Body"].read(), row["LastModified"])
        for row in found
    }


def test_two_repositories_and_other_things_live_in_one_bucket(seaweedfs: S3Server, tmp_path: Path) -> None:
    client, bucket = plain_client(seaweedfs), f"shared-{uuid4().hex[:8]}"
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="app", Body=b"a name that ours begin with")
    client.put_object(Bucket=bucket, Key="application/notes", Body=b"theirs")
    world = make_world(tmp_path)
    address = seaweedfs.address("app", bucket=bucket)

    init(world, address)
    good(call(world, address, "run", more=("--files", f"files={world.files}")))
    good(call(world, address, "prune", more=("--unknown-now",)))

    assert client.get_object(Bucket=bucket, Key="app")["Body"].read() == b"a name that ours begin with"
    assert client.get_object(Bucket=bucket, Key="application/notes")["Body"].read() == b"theirs"
    assert good(call(world, address, "check", more=("--read-data",)))["problems"] == []
