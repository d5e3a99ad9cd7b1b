"""Files appear whole or not at all, and say so."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.durable import exchange, make_folders, rename_new, replace_file, write_new

if TYPE_CHECKING:
    from pathlib import Path


def test_a_new_file_has_all_pieces_and_is_private(tmp_path: Path) -> None:
    assert write_new(tmp_path / "a", (b"one ", bytearray(b"two "), memoryview(b"three")))

    assert (tmp_path / "a").read_bytes() == b"one two three"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_a_taken_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"first")

    assert not write_new(tmp_path / "a", (b"second",))

    assert (tmp_path / "a").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_replaced_file_is_never_half(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0" * 50_000)
    stop = threading.Event()

    def rewrite() -> None:
        for number in range(1, 12):
            replace_file(path, bytes([48 + number % 10]) * 50_000)
        stop.set()

    thread = threading.Thread(target=rewrite)
    thread.start()
    seen = []
    while not stop.is_set():
        seen.append(path.read_bytes())
    thread.join()

    assert all(len(set(data)) == 1 and len(data) == 50_000 for data in seen)


@pytest.mark.parametrize("call", ["fsync", "write"])
def test_a_failed_replacement_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(5, "told to")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(OSError, match="told to"):
            replace_file(path, b"new")

    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_folders_are_made_with_their_parents_by_many_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a/b/c"
    errors: list[BaseException] = []

    def make() -> None:
        try:
            make_folders(path)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert path.is_dir()
    assert path.stat().st_mode & 0o777 == 0o700


def test_an_exchange_swaps_a_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()

    exchange(tmp_path / "file", tmp_path / "folder")

    assert (tmp_path / "file").is_dir()
    assert (tmp_path / "folder").read_bytes() == b"x"


def test_a_rename_to_a_taken_name_changes_nothing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)

    with pytest.raises(FileExistsError):
        rename_new(tmp_path / "a", tmp_path / "b")

    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("a", "b")


def test_a_rename_to_a_free_name_moves(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")

    rename_new(tmp_path / "a", tmp_path / "c")

    assert [path.name for path in tmp_path.iterdir()] == ["c"]
