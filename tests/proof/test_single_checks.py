"""Checks that no larger test would miss: each is looked at by itself."""

from __future__ import annotations

import errno
import hashlib
import os
import time
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import zstandard

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.durable import make_folders
from backup_admin.core.errors import Damaged, NotDurable, StorageError
from backup_admin.operations.captured import check_content
from backup_admin.repository import manifests
from backup_admin.repository.keys import sha256
from backup_admin.repository.objects import ObjectType, seal_object
from backup_admin.repository.store import put_object
from backup_admin.repository.types import Content
from backup_admin.sources.base import FoundEntry
from backup_admin.sources.files import FileSource
from backup_admin.storage.local import LocalStorage
from backup_admin.storage.memory import MemoryStorage
from tests.proof.parsers import FRAMES, IDS, MANIFEST, reader, ref
from tests.proof.site import Site, make_site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BODY_LIMIT = 64 << 20


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site", snapshots=2, database=False)


def fail_syncs_below(folder: Path) -> Callable[[int], None]:
    """Return an fsync that fails for a folder and what is in it."""

    def sync(handle: int) -> None:
        if os.readlink(f"/proc/self/fd/{handle}").startswith(str(folder)):  # noqa: PTH115
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    return sync


def test_an_entry_whose_folder_cannot_be_synced_is_no_success(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = site.open()
    real, chain = os.fsync, site.objects / "chain"
    fails = fail_syncs_below(chain)

    def fail_for_the_folder(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):  # noqa: PTH112
            fails(handle)
        real(handle)

    monkeypatch.setattr(os, "fsync", fail_for_the_folder)

    with pytest.raises(NotDurable, match="power cut"):
        repository.record("forget", {"ids": [repository.snapshot_ids()[0]]}, actor="proof")


def test_a_folder_that_could_not_be_synced_is_made_again_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_syncs_below(tmp_path))
        with pytest.raises(OSError, match="Input/output"):
            make_folders(tmp_path / "a/b")
    assert not (tmp_path / "a").exists()
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)

    make_folders(tmp_path / "a/b")

    assert len(synced) == 2


def test_a_sealed_manifest_that_the_chain_does_not_name_is_refused(site: Site) -> None:
    repository = site.open()
    snapshot = repository.snapshot_ids()[0]
    manifest = repository.manifest(snapshot)
    name = f"manifests/{snapshot}"
    frames = manifests.manifest_frames(replace(manifest, warnings=("another",)))
    forged = seal_object(repository.keys, ObjectType.MANIFEST, name, frames)
    LocalStorage(site.objects).put(name, forged, if_absent=False)

    with pytest.raises(Damaged, match="not the manifest the chain names"):
        site.open().manifest(snapshot)


def test_a_body_larger_than_allowed_costs_no_memory() -> None:
    packer = zstandard.ZstdCompressor(level=1).compressobj(size=BODY_LIMIT + 1)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.compress(b"x")
    block = b"\x01" + (BODY_LIMIT + 1).to_bytes(4, "big") + packed + packer.flush()
    header = dump_canonical(load_strict(FRAMES[0]) | {"body": sha256(block).hex()})
    tracemalloc.start()
    try:
        with pytest.raises(Damaged, match="unknown kind or size"):
            manifests.parse_manifest([header, block])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 4 << 20
    assert MANIFEST.snapshot.id in header.decode()


def test_whole_chunks_of_another_file_are_not_taken_for_this_one() -> None:
    data = b"bytes of another file"
    content = Content(len(data), hashlib.sha256(b"bytes of this one ...").hexdigest(), (ref(4, len(data)),))

    with pytest.raises(Damaged, match="digest"):
        check_content(reader(_4=data), content)
    assert IDS[3] == ref(4).id


def test_a_change_that_keeps_size_and_mtime_is_noticed_while_reading(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    source = FileSource("files", tmp_path)
    (entry,) = [found for found in source.walk() if isinstance(found, FoundEntry)]
    before = path.stat()

    with source.open(entry) as file:
        deadline = time.monotonic() + 5
        while path.stat().st_ctime_ns == before.st_ctime_ns and time.monotonic() < deadline:
            path.write_bytes(b"new")
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_mtime_ns == before.st_mtime_ns
        assert not file.unchanged()


def test_a_name_taken_by_other_bytes_is_told_and_not_overwritten() -> None:
    storage = MemoryStorage()
    storage.put("index/0", b"other bytes")

    with pytest.raises(StorageError, match="exists with other bytes"):
        put_object(storage, "index/0", b"these bytes")

    assert storage.get("index/0") == b"other bytes"
    put_object(storage, "index/0", b"other bytes")
