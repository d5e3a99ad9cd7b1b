"""Three keys for one bucket: who backs up cannot destroy, who prunes is elsewhere, who restores reads."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from examples.gallery.compare import describe_tree, differences
from tests.services.s3 import (
    KEY,
    READER,
    SECRET,
    WRITER,
    forbid_deletes,
    make_locking_bucket,
    plain_client,
)

if TYPE_CHECKING:
    from tests.e2e.cli.command import Done, World
    from tests.services.s3 import S3Server

PRUNER = (KEY, SECRET)

pytestmark = pytest.mark.integration


class Bucket:
    """A bucket and a machine whose command is called with one credential or another."""

    def __init__(self, world: World, server: S3Server, name: str, **options: str) -> None:
        self.world = world
        self.address = server.address(f"app/{uuid4().hex}", bucket=name, **options)
        self.name = name
        self._client = plain_client(server)

    def call(
        self,
        keys: tuple[str, str],
        verb: str,
        *before: object,
        more: tuple[object, ...] = (),
        json: bool = True,
    ) -> Done:
        environment = {
            "AWS_ACCESS_KEY_ID": keys[0],
            "AWS_SECRET_ACCESS_KEY": keys[1],
            "BACKUP_ADMIN_KEY_FILE": str(self.world.key),
        }
        form = ("--json",) if json else ()
        return self.world.run(verb, *before, self.address, *more, *form, environment=environment, alone=False)

    def init(self, keys: tuple[str, str]) -> Done:
        files = ("--key-file", self.world.key, "--recovery-file", self.world.recovery)
        done = self.call(keys, "init", more=files)
        assert done.status == 0, done.err
        return done

    def back_up(self, keys: tuple[str, str]) -> Done:
        return self.call(keys, "run", more=("--files", f"files={self.world.files}"))

    def objects(self) -> dict[str, datetime]:
        """Return until when each object is locked, for ever ago when it is not."""
        listed = self._client.list_objects_v2(Bucket=self.name).get("Contents", [])
        none = datetime(1970, 1, 1, tzinfo=UTC)
        return {
            row["Key"]: self._client.head_object(Bucket=self.name, Key=row["Key"]).get(
                "ObjectLockRetainUntilDate", none
            )
            for row in listed
        }

    def versions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._client.list_object_versions(Bucket=self.name).get("Versions", [])
        return found


def good(done: Done) -> dict[str, Any]:
    assert done.status == 0, done.err
    return done.result


def test_a_key_that_may_not_delete_does_all_but_prune_and_another_finishes(
    world: World, seaweedfs: S3Server
) -> None:
    bucket = Bucket(world, seaweedfs, make_plain_bucket(seaweedfs))
    made = bucket.init(WRITER)
    assert "may not delete in the storage, which is the safer way" in made.err
    first = good(bucket.back_up(WRITER))["snapshot"]["id"]
    tree = describe_tree(world.files)
    (world.files / "photos" / "one.jpg").unlink()
    second = good(bucket.back_up(WRITER))["snapshot"]["id"]
    assert good(bucket.call(WRITER, "check", more=("--read-data",)))["problems"] == []
    good(bucket.call(WRITER, "restore", first, more=("--to", world.root / "out")))
    assert differences(tree, describe_tree(world.root / "out/files/files")) == []

    good(bucket.call(WRITER, "forget", more=(first,)))
    before = set(bucket.objects())
    refused = bucket.call(WRITER, "prune", more=("--max-unused", "0", "--unknown-now"))

    assert refused.status == 6
    assert refused.result["objects_deleted"] == 0
    assert refused.result["objects_left"] > 1
    assert "could not be deleted" in refused.result["notices"][0]
    assert "a prune that may delete finishes" in refused.result["notices"][0]
    assert before.issubset(bucket.objects())
    assert good(bucket.call(WRITER, "check", more=("--read-data",)))["problems"] == []

    pruned = good(bucket.call(PRUNER, "prune", more=("--max-unused", "0", "--unknown-now")))

    assert pruned["objects_deleted"] >= refused.result["objects_left"]
    assert [name for name in bucket.objects() if "/probe-" in name] == []
    assert good(bucket.call(PRUNER, "check", more=("--read-data",)))["problems"] == []
    good(bucket.call(READER, "restore", second, more=("--to", world.root / "last")))
    assert differences(describe_tree(world.files), describe_tree(world.root / "last/files/files")) == []


def test_a_key_that_only_reads_restores_and_can_do_no_more(world: World, seaweedfs: S3Server) -> None:
    bucket = Bucket(world, seaweedfs, make_plain_bucket(seaweedfs))
    bucket.init(WRITER)
    first = good(bucket.back_up(WRITER))["snapshot"]["id"]
    before = bucket.objects()

    good(bucket.call(READER, "list"))
    good(bucket.call(READER, "check", more=("--read-data",)))
    good(bucket.call(READER, "verify", "latest"))
    restored = bucket.call(READER, "restore", first, more=("--to", world.root / "out"))
    good(restored)
    assert "could not be pinned while it is read" in "".join(restored.result["notices"])
    refused = [bucket.back_up(READER), bucket.call(READER, "forget", more=(first, "--force"))]

    assert [(done.status, done.error["code"]) for done in refused] == [(6, "storage_denied")] * 2
    assert bucket.objects() == before


def test_what_a_new_snapshot_reuses_is_locked_anew_and_prune_tells_what_stays(
    world: World, seaweedfs: S3Server
) -> None:
    bucket = Bucket(world, seaweedfs, make_locking_bucket(seaweedfs), lock_days="2")
    bucket.init(WRITER)
    first = good(bucket.back_up(WRITER))["snapshot"]["id"]
    before = bucket.objects()
    assert min(before.values()) > datetime.now(UTC) + timedelta(days=1.9)
    bucket.address = bucket.address.replace("lock_days=2", "lock_days=9")
    (world.files / "photos" / "one.jpg").unlink()

    assert good(bucket.back_up(WRITER))["lock_problems"] == []

    after = bucket.objects()
    kept = {name: end for name, end in after.items() if "/probe-" not in name}
    assert set(before) <= set(after)
    assert min(kept.values()) > datetime.now(UTC) + timedelta(days=8.9)

    good(bucket.call(WRITER, "forget", more=(first,)))
    versions = {row["VersionId"] for row in bucket.versions()}
    foreseen = bucket.call(WRITER, "prune", more=("--max-unused", "0", "--dry-run"), json=False)
    refused = bucket.call(WRITER, "prune", more=("--max-unused", "0"))
    pruned = bucket.call(PRUNER, "prune", more=("--max-unused", "0"))
    again = bucket.call(PRUNER, "prune", json=False)

    assert refused.status == 6
    assert "Nothing was to be deleted" in again.out
    assert "Still locked" not in again.out
    end = datetime.now(UTC) + timedelta(days=9)
    assert re.search(
        rf"Still locked: \d+ objects? of what goes, .*, the last until {end:%Y-%m}", foreseen.out
    )
    result = good(pruned)
    assert result["objects_locked"] == result["objects_deleted"] > 1
    assert result["bytes_locked"] > 0
    assert datetime.fromisoformat(result["locked_until"]) > datetime.now(UTC) + timedelta(days=8.9)
    assert versions <= {row["VersionId"] for row in bucket.versions()}
    assert good(bucket.call(PRUNER, "check", more=("--read-data",)))["problems"] == []


def make_plain_bucket(server: S3Server) -> str:
    bucket = f"plain-{uuid4().hex[:12]}"
    plain_client(server).create_bucket(Bucket=bucket)
    forbid_deletes(server, bucket)
    return bucket
