"""WAL objects: what goes in comes out, and nothing else ever does."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from backup_admin.core.errors import Damaged, NewerVersion
from backup_admin.operations.object_kinds import kind_of
from backup_admin.repository.wal import open_wal, parse_wal_name, read_head, seal_wal, wal_name
from backup_admin.storage.base import is_name
from tests.factories import make_keys, noise, prose

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SYSTEM = "6b095dbd928dd2ac"
FILES = (
    "000000010000000A000000FE",
    "00000002000000000000000B.partial",
    "00000001000000000000000C.00000028.backup",
    "0000000A.history",
)
SEGMENT = FILES[0]


def sealed(data: bytes, file: str = SEGMENT) -> bytes:
    return seal_wal(make_keys(), SYSTEM, file, data, now=NOW, level=1)


@pytest.mark.parametrize("data", [b"", b"x", prose(9 << 20), noise(5 << 20)])
def test_a_file_comes_back_as_it_was(data: bytes) -> None:
    name = wal_name(SYSTEM, SEGMENT)

    head, back = open_wal(make_keys(), name, sealed(data))

    assert back == data
    assert (head.system, head.file, head.size, head.archived_at) == (SYSTEM, SEGMENT, len(data), NOW)
    assert read_head(make_keys(), name, sealed(data)) == head


def test_what_compresses_takes_less() -> None:
    assert len(sealed(prose(4 << 20))) < 2 << 20
    assert len(sealed(noise(4 << 20))) < (4 << 20) + 1024


@pytest.mark.parametrize("file", FILES)
def test_names_lead_there_and_back_and_every_storage_keeps_them(file: str) -> None:
    name = wal_name(SYSTEM, file)

    assert parse_wal_name(name) == (SYSTEM, file)
    assert is_name(name)
    kind = kind_of(name)
    assert kind is not None
    assert kind.prefix == "wal/"


@pytest.mark.parametrize(
    "file",
    ["", "000000010000000A000000F", "../config", "000000010000000A000000FE.gz", "00000001.History",
     "0000000G.history", "000000010000000a000000fe"],
)  # fmt: skip
def test_what_no_server_archives_gets_no_name(file: str) -> None:
    with pytest.raises(ValueError, match="is no file of a WAL archive"):
        wal_name(SYSTEM, file)


@pytest.mark.parametrize(
    "name", ["wal/x/00000002.history", f"wal/{SYSTEM}/notes", f"packs/{SYSTEM}/00000002.history"]
)
def test_other_objects_are_not_taken_for_files(name: str) -> None:
    assert parse_wal_name(name) is None


def test_every_changed_byte_is_noticed() -> None:
    data = sealed(prose(3000))
    name = wal_name(SYSTEM, SEGMENT)

    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 1
        with pytest.raises((Damaged, NewerVersion)):
            open_wal(make_keys(), name, bytes(broken))


@pytest.mark.parametrize("cut", [1, 100, 2000])
def test_a_cut_is_noticed(cut: int) -> None:
    with pytest.raises(Damaged):
        open_wal(make_keys(), wal_name(SYSTEM, SEGMENT), sealed(noise(5000))[:-cut])


def test_a_file_under_the_name_of_another_is_refused() -> None:
    for other in (wal_name(SYSTEM, FILES[3]), wal_name("0" * 16, SEGMENT)):
        with pytest.raises(Damaged):
            open_wal(make_keys(), other, sealed(b"data"))
