"""A large file holds what was appended, whatever its pieces, and says when it could not be written."""

from __future__ import annotations

import errno
import os
import random
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from backup_admin.core import large_file
from backup_admin.core.large_file import LargeFileWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20


@pytest.fixture
def writer() -> Iterator[LargeFileWriter]:
    with closing(LargeFileWriter()) as made:
        yield made


def write(writer: LargeFileWriter, path: Path, pieces: list[bytes]) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        writer.begin(handle)
        for piece in pieces:
            writer.write(piece)
        writer.finish()
    finally:
        writer.abandon()
        os.close(handle)


@pytest.mark.parametrize("size", [0, 1, 4095, MIB, MIB + 1, 4 * MIB, 4 * MIB + 1, 9 * MIB + 777])
def test_a_file_holds_every_piece(writer: LargeFileWriter, tmp_path: Path, size: int) -> None:
    generator = random.Random(size)
    data = generator.randbytes(size)
    cuts = sorted(generator.randrange(size + 1) for _ in range(20))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, size], strict=True)]

    write(writer, tmp_path / "one", pieces)
    write(writer, tmp_path / "two", [data])

    assert (tmp_path / "one").read_bytes() == data
    assert (tmp_path / "two").read_bytes() == data


def test_what_the_thread_could_not_write_is_an_error(
    writer: LargeFileWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int, _data: memoryview) -> int:
        if threading.current_thread() is threading.main_thread():
            return 0
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(large_file, "write_direct", full)

    with pytest.raises(OSError, match="No space left"):
        write(writer, tmp_path / "file", [bytes(4 * MIB), b"rest"])


def test_a_file_that_is_given_up_is_left_before_it_is_closed(
    writer: LargeFileWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def slow(_handle: int, data: memoryview) -> int:
        begun.set()
        go_on.wait(10)
        ended.set()
        return len(data)

    monkeypatch.setattr(large_file, "write_direct", slow)
    with (tmp_path / "file").open("wb") as file:
        writer.begin(file.fileno())
        writer.write(bytes(4 * MIB))
        begun.wait(10)
        threading.Timer(0.05, go_on.set).start()

        writer.abandon()

    assert ended.is_set()


def test_the_next_file_begins_empty(writer: LargeFileWriter, tmp_path: Path) -> None:
    with (tmp_path / "left").open("wb") as left:
        writer.begin(left.fileno())
        writer.write(b"never finished")
        writer.abandon()

    write(writer, tmp_path / "next", [b"next"])

    assert (tmp_path / "next").read_bytes() == b"next"
