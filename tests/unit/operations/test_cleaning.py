"""A cleaning removes what interrupted writes left, when it is old, and nothing else."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import BadObjectName, Cancelled
from backup_admin.core.ids import new_ulid, ulid_time
from backup_admin.core.progress import QuietReporter
from backup_admin.operations.cleaning import CleaningPlan, clean, plan_cleaning
from backup_admin.storage.base import Leftover
from backup_admin.storage.local import LocalStorage
from backup_admin.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.storage.base import Storage

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(hours=24)
OLD = NOW - timedelta(hours=25)
YOUNG = NOW - timedelta(hours=23)
PACK = f"packs/ab/{'ab' * 32}"


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    made = LocalStorage(tmp_path / "storage")
    made.make()
    made.put("config", b"a repository")
    made.put(PACK, b"a pack")
    return made


def leave(storage: LocalStorage, name: str, moment: datetime) -> str:
    path = storage.folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(b"half of it")
    os.utime(path, (moment.timestamp(), moment.timestamp()))
    return name


def plan(storage: Storage) -> CleaningPlan:
    return plan_cleaning(storage, now=NOW, older_than=DAY)


def names(found: tuple[Leftover, ...]) -> list[str]:
    return [leftover.name for leftover in found]


def files(storage: LocalStorage) -> set[str]:
    return {
        path.relative_to(storage.folder).as_posix() for path in storage.folder.rglob("*") if path.is_file()
    }


def test_old_temporary_files_and_probes_go_and_the_repository_stays(storage: LocalStorage) -> None:
    probe, later = f"probe-{new_ulid(OLD)}", f"probe-{new_ulid(YOUNG)}"
    storage.put(probe, b"x")
    storage.put(later, b"x")
    in_root = leave(storage, ".tmp-0123456789abcdef", OLD)
    in_packs = leave(storage, "packs/ab/.tmp-0123456789abcdef", OLD)
    young = leave(storage, "packs/ab/.tmp-0123456789abcdee", YOUNG)

    found = plan(storage)
    left = clean(storage, found, reporter=QuietReporter())

    assert names(found.remove) == [probe, in_root, in_packs]
    assert names(found.young) == [later, young]
    assert found.size == 1 + 10 + 10
    assert left == ()
    assert files(storage) == {"config", PACK, later, young}


@pytest.mark.parametrize(
    "name",
    [
        "packs/ab/.tmp-0123456789abcdef.txt",
        ".tmp-notes",
        ".tmp-0123456789ABCDEF",
        "probe-1",
        "probe-notes",
        "xprobe-01arz3ndektsv4rrffq69g5fav",
    ],
)
def test_what_only_looks_alike_is_no_leftover(storage: LocalStorage, name: str) -> None:
    leave(storage, name, OLD)

    assert plan(storage).remove == ()


def test_a_large_object_is_no_probe() -> None:
    storage = MemoryStorage()
    storage.put(f"probe-{new_ulid(OLD)}", bytes((4 << 20) + 1))

    assert plan(storage) == CleaningPlan((), (), ())


def test_temporary_files_of_others_are_left_alone(storage: LocalStorage) -> None:
    name = leave(storage, "photos/.tmp-0123456789abcdef", OLD)

    found = plan(storage)
    clean(storage, found, reporter=QuietReporter())

    assert (names(found.strange), found.remove) == ([name], ())
    assert name in files(storage)


def test_a_link_is_no_temporary_file(storage: LocalStorage) -> None:
    (storage.folder / ".tmp-0123456789abcdef").symlink_to(storage.folder / "config")

    assert list(storage.leftovers()) == []


@pytest.mark.parametrize("name", ["config", "../.tmp-0123456789abcdef", PACK, ".tmp-x"])
def test_nothing_but_a_temporary_file_is_removed_as_one(storage: LocalStorage, name: str) -> None:
    leave(storage, "../.tmp-0123456789abcdef", OLD)

    with pytest.raises(BadObjectName):
        storage.remove_leftover(Leftover(name, 1, OLD))
    assert "config" in files(storage)
    assert (storage.folder.parent / ".tmp-0123456789abcdef").exists()


def test_what_is_gone_already_is_no_error(storage: LocalStorage) -> None:
    leave(storage, ".tmp-0123456789abcdef", OLD)
    found = plan(storage)
    (storage.folder / ".tmp-0123456789abcdef").unlink()

    assert clean(storage, found, reporter=QuietReporter()) == ()


class Keeping(MemoryStorage):
    """Does not delete."""

    def delete(self, name: str) -> None:
        """Keep the object."""


def test_what_stays_is_told() -> None:
    storage = Keeping()
    name = f"probe-{new_ulid(OLD)}"
    storage.put(name, b"x")

    assert names(clean(storage, plan(storage), reporter=QuietReporter())) == [name]


def test_it_stops_when_asked() -> None:
    class Stopping(QuietReporter):
        def check_cancelled(self) -> None:
            raise Cancelled("as asked")

    storage = MemoryStorage()
    storage.put(f"probe-{new_ulid(OLD)}", b"x")

    with pytest.raises(Cancelled):
        clean(storage, plan(storage), reporter=Stopping())
    assert len(list(storage.list_objects(""))) == 1


def test_an_id_tells_when_it_was_made() -> None:
    assert ulid_time(new_ulid(NOW)) == NOW
    for text in ("", "1", "z" * 26):
        with pytest.raises(ValueError, match="is no id"):
            ulid_time(text)
    with pytest.raises(ValueError, match="no time"):
        ulid_time("7" + "z" * 25)
