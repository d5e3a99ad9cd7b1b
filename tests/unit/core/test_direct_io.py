"""Large files go past the page cache where that is possible, and arrive whole where it is not."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.direct_io import aligned_buffer, read_direct
from backup_admin.core.durable import write_new
from backup_admin.storage.local import LocalStorage
from tests.factories import noise

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB = 1 << 20
SIZES = [MIB - 1, MIB, MIB + 4095, 2 * MIB + 4096]


def aligned(data: bytes) -> memoryview:
    buffer = aligned_buffer(len(data))
    buffer[:] = data
    return memoryview(buffer)


@pytest.fixture
def modes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Note for each write whether it went past the cache."""
    seen: list[bool] = []
    write = os.write

    def watched(handle: int, data: bytes) -> int:
        seen.append(bool(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_DIRECT))
        return write(handle, data)

    monkeypatch.setattr(os, "write", watched)
    return seen


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("place", [aligned, lambda data: memoryview(bytearray(b"-" + data))[1:]])
def test_every_byte_arrives_whatever_the_size_and_the_memory(
    tmp_path: Path, size: int, place: Callable[[bytes], memoryview]
) -> None:
    data = noise(size)
    assert write_new(tmp_path / "file", (place(data), b"end"))
    assert (tmp_path / "file").read_bytes() == data + b"end"


def test_aligned_memory_goes_past_the_cache_but_for_its_end(tmp_path: Path, modes: list[bool]) -> None:
    if not _can(tmp_path):
        pytest.skip("this file system knows no direct writing")
    write_new(tmp_path / "file", (aligned(noise(MIB + 5)),))
    assert modes == [True, False]


def test_small_files_are_written_as_ever(tmp_path: Path, modes: list[bool]) -> None:
    write_new(tmp_path / "file", (aligned(noise(MIB - 4096)),))
    assert modes == [False]


def test_a_real_failure_is_no_reason_to_try_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="full"):
        write_new(tmp_path / "file", (aligned(noise(MIB)),))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("offset", [0, 1, 4096])
def test_a_storage_reads_the_same_bytes_either_way(tmp_path: Path, size: int, offset: int) -> None:
    data = noise(2 * MIB)
    storage = LocalStorage(tmp_path)
    storage.put("packs/a", data)
    buffer = memoryview(aligned_buffer(size))
    count = storage.get_into("packs/a", offset, buffer)
    assert bytes(buffer[:count]) == data[offset : offset + size]


def test_a_whole_large_file_is_read_past_the_cache(tmp_path: Path) -> None:
    if not _can(tmp_path):
        pytest.skip("this file system knows no direct reading")
    data = noise(2 * MIB)
    (tmp_path / "file").write_bytes(data)
    buffer = memoryview(aligned_buffer(2 * MIB))
    with (tmp_path / "file").open("rb", buffering=0) as file:
        assert read_direct(file.fileno(), 0, buffer) == 2 * MIB
        assert read_direct(file.fileno(), 1, buffer) == 0
    assert bytes(buffer) == data


def _can(folder: Path) -> bool:
    try:
        handle = os.open(folder / "probe", os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    except OSError:
        return False
    os.close(handle)
    return True
