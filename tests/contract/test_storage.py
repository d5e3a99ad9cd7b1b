"""What every storage promises, run on each of them.

To add one: write a fixture that gives it, empty, and add its name to `STORAGES`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from backup_admin.core.errors import BadObjectName, ObjectMissing
from backup_admin.storage.base import MAX_NAME_LENGTH, ObjectInfo, PutResult, Storage, get_into
from backup_admin.storage.local import LocalStorage
from backup_admin.storage.memory import MemoryStorage
from backup_admin.storage.s3 import S3Storage
from backup_admin.storage.s3_place import parse_s3_address
from backup_admin.storage.ssh import SshStorage
from backup_admin.storage.ssh_link import SshLink
from backup_admin.storage.ssh_place import parse_ssh_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.services.s3 import S3Server
    from tests.services.ssh import SshServer

THREADS = 8


STORAGES = ("local", "memory", "ssh", "full_s3", "poor_s3")
ONE_WRITER = ("poor_s3",)
"""Those that ignore conditions: two writers at once overwrite each other."""
BAD_NAMES = [
    "",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "a/.b",
    ".tmp-1",
    "A",
    "a b",
    "a_b",
    "a\n",
    "a\0",
    "ä",
    "-a",
    "a\\b",
    "a" * (MAX_NAME_LENGTH + 1),
]


@pytest.fixture
def local(tmp_path: Path) -> Storage:
    storage = LocalStorage(tmp_path / "objects")
    storage.make()
    return storage


@pytest.fixture
def memory() -> Storage:
    return MemoryStorage()


@pytest.fixture
def ssh(sshd: SshServer, tmp_path: Path) -> Iterator[Storage]:
    folder = tmp_path / "it's a folder; $HOME"
    folder.mkdir()
    storage = SshStorage(SshLink(parse_ssh_address(sshd.address(folder)), tmp_path, allow_private=True))
    yield storage
    storage.close()


@pytest.fixture
def full_s3(seaweedfs: S3Server) -> Storage:
    return open_s3(seaweedfs)


@pytest.fixture
def poor_s3(rclone_s3: S3Server) -> Storage:
    return open_s3(rclone_s3)


def open_s3(server: S3Server) -> Storage:
    place = parse_s3_address(server.address(f"a folder of its own/{uuid4().hex}", create_bucket="true"))
    storage = S3Storage(place, credentials=(server.key, server.secret))
    storage.make()
    return storage


@pytest.fixture(params=STORAGES)
def storage(request: pytest.FixtureRequest) -> Storage:
    found: Storage = request.getfixturevalue(request.param)
    return found


def names(storage: Storage, prefix: str = "") -> list[str]:
    return [info.name for info in storage.list_objects(prefix)]


def test_what_was_put_is_got(storage: Storage) -> None:
    result = storage.put("packs/ab/cd", b"content")

    assert result is PutResult.STORED
    assert storage.get("packs/ab/cd") == b"content"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_buffer_is_stored(storage: Storage, kind: Callable[[bytes], bytes]) -> None:
    storage.put("a", kind(b"content"))

    assert storage.get("a") == b"content"


def test_a_buffer_may_be_used_again_after_a_put(storage: Storage) -> None:
    buffer = bytearray(b"first")
    storage.put("a", buffer)

    buffer[:] = b"other"

    assert storage.get("a") == b"first"


@pytest.mark.parametrize("data", [b"", b"first"])
def test_a_taken_name_is_never_overwritten(storage: Storage, data: bytes) -> None:
    storage.put("a", data)

    again = storage.put("a", data)
    other = storage.put("a", b"second")

    assert (again, other) == (PutResult.EXISTS, PutResult.EXISTS)
    assert storage.get("a") == data


def test_a_put_that_may_overwrite_does(storage: Storage) -> None:
    storage.put("a", b"first and longer")

    result = storage.put("a", b"second", if_absent=False)

    assert result is PutResult.STORED
    assert storage.get("a") == b"second"


def test_an_empty_object_is_an_object(storage: Storage) -> None:
    storage.put("a", b"")

    assert storage.get("a") == b""
    assert storage.stat("a") == ObjectInfo("a", 0)
    assert names(storage) == ["a"]


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, None, b"0123456789"),
        (0, 4, b"0123"),
        (3, 4, b"3456"),
        (3, None, b"3456789"),
        (8, 4, b"89"),
        (10, 4, b""),
        (10, None, b""),
        (99, 4, b""),
        (99, None, b""),
        (3, 0, b""),
        (0, 1 << 40, b"0123456789"),
    ],
)
def test_a_range_is_cut_where_the_object_ends(
    storage: Storage, offset: int, length: int | None, expected: bytes
) -> None:
    storage.put("a", b"0123456789")

    assert storage.get("a", offset, length) == expected


@pytest.mark.parametrize(("offset", "size"), [(0, 10), (2, 3), (8, 10), (10, 1), (50, 5), (0, 0)])
def test_reading_into_a_buffer_fills_what_is_there(storage: Storage, offset: int, size: int) -> None:
    storage.put("a", b"0123456789")
    buffer = bytearray(b"." * size)

    count = get_into(storage, "a", offset, buffer)

    expected = b"0123456789"[offset : offset + size]
    assert (count, bytes(buffer)) == (len(expected), expected.ljust(size, b"."))


def test_a_missing_object_is_told_apart(storage: Storage) -> None:
    storage.put("a", b"content")

    assert storage.stat("b") is None
    for name in ("b", "b/c", "a/c"):
        with pytest.raises(ObjectMissing):
            storage.get(name)
        with pytest.raises(ObjectMissing):
            get_into(storage, name, 0, bytearray(1))
        assert storage.stat(name) is None


def test_the_beginning_of_a_name_is_no_object(storage: Storage) -> None:
    storage.put("packs/ab/cd", b"content")

    for name in ("packs", "packs/ab"):
        assert storage.stat(name) is None
        with pytest.raises(ObjectMissing):
            storage.get(name)
    assert storage.get("packs/ab/cd") == b"content"


@pytest.mark.parametrize("storage", [name for name in STORAGES if name != "poor_s3"], indirect=True)
def test_deleting_the_beginning_of_a_name_deletes_nothing(storage: Storage) -> None:
    storage.put("packs/ab/cd", b"content")

    for name in ("packs", "packs/ab"):
        storage.delete(name)

    assert names(storage) == ["packs/ab/cd"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_is_refused_at_the_door(storage: Storage, name: str) -> None:
    for act in (
        lambda: storage.put(name, b"x"),
        lambda: storage.get(name),
        lambda: storage.stat(name),
        lambda: storage.delete(name),
        lambda: get_into(storage, name, 0, bytearray(1)),
    ):
        with pytest.raises(BadObjectName):
            act()
    assert names(storage) == []


def test_the_longest_name_is_kept(storage: Storage) -> None:
    name = "a" * MAX_NAME_LENGTH

    storage.put(name, b"x")

    assert names(storage) == [name]


def test_objects_are_listed_in_order_of_name_with_their_sizes(storage: Storage) -> None:
    stored = ["b", "a/b", "a-b", "a.b", "a/b.c", "a0", "chain/00000000000000000002", "a/c/d", "config"]
    for size, name in enumerate(stored):
        storage.put(name, b"x" * size)

    found = list(storage.list_objects(""))

    assert found == [ObjectInfo(name, stored.index(name)) for name in sorted(stored)]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("packs/", ["packs/ab/one", "packs/ab/two", "packs/cd/one"]),
        ("packs/a", ["packs/ab/one", "packs/ab/two"]),
        ("packs/ab/t", ["packs/ab/two"]),
        ("packs/ab/two", ["packs/ab/two"]),
        ("pa", ["packs/ab/one", "packs/ab/two", "packs/cd/one"]),
        ("p", ["packs/ab/one", "packs/ab/two", "packs/cd/one", "pins"]),
        ("packs/ab/two/more", []),
        ("x", []),
        ("packs//", []),
    ],
)
def test_a_prefix_need_not_end_at_a_slash(storage: Storage, prefix: str, expected: list[str]) -> None:
    for name in ("packs/ab/one", "packs/ab/two", "packs/cd/one", "pins", "config"):
        storage.put(name, b"x")

    assert names(storage, prefix) == expected


def test_a_deleted_object_is_gone_and_its_name_free(storage: Storage) -> None:
    storage.put("a", b"first")

    storage.delete("a")
    storage.delete("a")

    assert storage.stat("a") is None
    assert names(storage) == []
    assert storage.put("a", b"second") is PutResult.STORED


def test_deleting_what_never_was_is_no_error(storage: Storage) -> None:
    storage.delete("a/b/c")

    assert names(storage) == []


@pytest.mark.parametrize("storage", [name for name in STORAGES if name not in ONE_WRITER], indirect=True)
@pytest.mark.parametrize("size", [10, 300_000])
def test_of_many_puts_of_one_name_exactly_one_is_stored_and_it_is_whole(storage: Storage, size: int) -> None:
    contents = [bytes([number]) * size for number in range(THREADS)]
    results: list[PutResult] = [PutResult.EXISTS] * THREADS
    start = threading.Barrier(THREADS)

    def put(number: int) -> None:
        start.wait()
        results[number] = storage.put("chain/1", contents[number])

    threads = [threading.Thread(target=put, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    winners = [number for number, result in enumerate(results) if result is PutResult.STORED]
    assert len(winners) == 1
    assert storage.get("chain/1") == contents[winners[0]]
    assert names(storage) == ["chain/1"]


def test_listing_goes_on_while_others_put_and_delete(storage: Storage) -> None:
    for number in range(50):
        storage.put(f"stays/{number:02d}", b"x")
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            storage.put("stays/comes-and-goes", b"x")
            storage.delete("stays/comes-and-goes")

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        listings = [names(storage, "stays/") for _ in range(60)]
    finally:
        stop.set()
        thread.join()

    lasting = [f"stays/{number:02d}" for number in range(50)]
    assert all([name for name in listing if "comes" not in name] == lasting for listing in listings)
