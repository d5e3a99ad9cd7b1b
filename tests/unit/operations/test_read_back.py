"""Nothing a backup stored is called good before every frame of it was opened."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from blake3 import blake3

from backup_admin.core.errors import Damaged, StorageUnavailable
from backup_admin.core.progress import QuietReporter
from backup_admin.operations.read_back import read_back
from backup_admin.repository.index import PackInfo, encode_record, seal_index
from tests.factories import file_sources, make_storage, open_test_repository, run_backup, write_tree
from tests.fakes import FaultyStorage

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.repository.store import ChunkStore


def test_an_index_whose_records_do_not_open_is_damaged(tmp_path: Path) -> None:
    storage = make_storage()
    repository = open_test_repository(storage, tmp_path)
    record = encode_record(bytes(32), 0, (48, 1, 999, 5), (0, 10))
    _, data = seal_index(repository.keys, [PackInfo(bytes(32), bytes(44), 1000)], [record])
    spoilt = data[:-1] + bytes([data[-1] ^ 1])
    name = f"index/{blake3(spoilt).hexdigest()}"
    storage.put(name, spoilt)
    proof = SimpleNamespace(packs_read=0, bytes_read=0)
    store = cast("ChunkStore", SimpleNamespace(new_indexes=[name], proof=proof))

    with pytest.raises(Damaged, match="valid seal"):
        read_back(repository, store, reporter=QuietReporter())


def test_a_repository_that_went_away_during_a_run_gets_no_snapshot(tmp_path: Path) -> None:
    storage = make_storage()
    faulty = FaultyStorage(storage)
    repository = open_test_repository(faulty, tmp_path / "state")
    write_tree(tmp_path / "files")

    def take_away(method: str, name: str) -> None:
        if method == "put" and name.startswith("packs/"):
            storage.delete("config")

    faulty.before = take_away

    with pytest.raises(StorageUnavailable, match="went away during the work"):
        run_backup(repository, file_sources(tmp_path / "files"), tmp_path / "state")

    assert list(storage.list_objects("chain/")) == []
    assert list(storage.list_objects("manifests/")) == []
