"""Files of a WAL archive: stored once and for all, and kept as long as a base backup needs them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import BackupAdminError, Busy, Damaged, KeyRefused, RestoreRefused
from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations.base_backups import Base, Timelines, obsolete_files, walk
from backup_admin.operations.check import check_repository
from backup_admin.operations.cluster_plan import choose_base
from backup_admin.operations.prune import PruneOptions, prune
from backup_admin.operations.rekeying import RetireOptions, retire
from backup_admin.operations.wal_archive import (
    ArchivedCluster,
    OtherWal,
    archive_file,
    archived_cluster,
    read_archived,
)
from backup_admin.repository.wal import wal_name
from backup_admin.sources.postgres.wal_files import Switch
from backup_admin.storage.memory import MemoryStorage
from tests.factories import CLOCK, SECRET, make_storage, noise, open_test_repository
from tests.fakes import Act, Fault, FaultyStorage

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.operations.wal_archive import Archived
    from backup_admin.storage.base import Storage

SYSTEM = "6b095dbd928dd2ac"
FILE = "000000010000000000000003"
MIB = 1 << 20
SIZE = 16 * MIB
ENDED = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def storage() -> Storage:
    return make_storage()


def push(storage: Storage, state: Path, data: bytes, file: str = FILE) -> Archived:
    return archive_file(open_test_repository(storage, state), SYSTEM, file, data, clock=CLOCK)


def read(storage: Storage, state: Path, file: str = FILE) -> bytes:
    return read_archived(open_test_repository(storage, state), SYSTEM, file)


def base(first: int, last: int, *, timeline: int = 1, name: str = "main", hours: int = 0) -> Base:
    ended = ENDED + timedelta(hours=hours)
    return Base(
        "snapshot", name, SYSTEM, timeline, first * SIZE + 40, last * SIZE + 256, SIZE, ended, "15.18"
    )


def segments(*numbers: int, timeline: int = 1) -> dict[str, int]:
    return {f"{timeline:08X}{0:08X}{number:08X}": 100 for number in numbers}


def test_a_file_is_stored_once_and_comes_back(storage: Storage, tmp_path: Path) -> None:
    first = push(storage, tmp_path, noise(50_000))
    again = push(storage, tmp_path, noise(50_000))

    assert (first.was_there, again.was_there) == (False, True)
    assert read(storage, tmp_path) == noise(50_000)


def test_other_bytes_of_the_name_are_refused_and_the_first_stay(storage: Storage, tmp_path: Path) -> None:
    push(storage, tmp_path, b"the first")

    with pytest.raises(OtherWal, match="Nothing was overwritten"):
        push(storage, tmp_path, b"another")

    assert read(storage, tmp_path) == b"the first"


@pytest.mark.parametrize("act", list(Act))
@pytest.mark.parametrize("method", ["put", "get"])
def test_whatever_the_storage_does_success_means_that_it_is_there(
    tmp_path: Path, method: str, act: Act
) -> None:
    inner = make_storage(MemoryStorage())
    repository = open_test_repository(faulty := FaultyStorage(inner), tmp_path)
    faulty.reset(Fault(method, 1, act))
    try:
        archive_file(repository, SYSTEM, FILE, noise(90_000), clock=CLOCK)
    except BackupAdminError:
        # The server tries again, and the storage is well by then, or says what is wrong with it.
        try:
            push(inner, tmp_path, noise(90_000))
        except Damaged as error:
            assert act in {Act.TEAR, Act.LIE_TORN}, act
            assert "is damaged, and is never overwritten" in str(error)  # noqa: PT017 - one of two good ends
            return

    assert read(inner, tmp_path) == noise(90_000)


def test_what_a_prune_deletes_just_now_is_not_taken_for_archived(storage: Storage, tmp_path: Path) -> None:
    push(storage, tmp_path, b"data")
    repository = open_test_repository(storage, tmp_path)
    repository.record("gc-delete", {"packs": [], "objects": [wal_name(SYSTEM, FILE)]}, actor="test")

    with pytest.raises(Busy, match="the server tries again"):
        archive_file(repository, SYSTEM, FILE, b"data", clock=CLOCK)
    assert archived_cluster(repository, SYSTEM).files == {}


def test_prune_leaves_an_archive_without_a_base_backup_alone(storage: Storage, tmp_path: Path) -> None:
    push(storage, tmp_path, b"data")
    repository = open_test_repository(storage, tmp_path)

    report = prune(
        repository,
        PruneOptions(every_unknown=True),
        actor="test",
        state=StateFolder(tmp_path),
        reporter=QuietReporter(),
        clock=CLOCK,
    )

    assert report.wal_files == 0
    assert read(storage, tmp_path) == b"data"


def test_check_reads_each_file_and_names_a_damaged_one(storage: Storage, tmp_path: Path) -> None:
    push(storage, tmp_path, noise(5000))
    name = wal_name(SYSTEM, FILE)
    sound = check_repository(
        open_test_repository(storage, tmp_path), read_data=True, reporter=QuietReporter()
    )
    broken = bytearray(storage.get(name))
    broken[-40] ^= 1
    storage.put(name, bytes(broken), if_absent=False)

    report = check_repository(
        open_test_repository(storage, tmp_path), read_data=True, reporter=QuietReporter()
    )

    assert sound.ok
    assert any("is of no use without a base backup" in notice for notice in sound.notices)
    assert [problem for problem in report.problems if name in problem]


def test_a_key_with_archived_files_under_it_is_not_retired(storage: Storage, tmp_path: Path) -> None:
    push(storage, tmp_path, b"data")
    repository = open_test_repository(storage, tmp_path)
    repository.keys.add_epoch(2, bytes(32))
    repository.keys.follow(2, ())

    with pytest.raises(KeyRefused, match="1 archived WAL file"):
        retire(
            repository,
            RetireOptions(1, [SECRET]),
            actor="test",
            state=StateFolder(tmp_path),
            reporter=QuietReporter(),
            clock=CLOCK,
        )
    assert read(storage, tmp_path) == b"data"


def test_only_what_is_older_than_every_base_backup_is_obsolete() -> None:
    files = segments(1, 2, 3, 4) | segments(1, 4, timeline=2)
    files |= {"000000010000000000000002.00000028.backup": 9, "00000002.history": 9}
    cluster = ArchivedCluster(SYSTEM, files)

    gone = obsolete_files(cluster, [base(5, 5), base(3, 3, timeline=2)])

    assert sorted(gone) == sorted(
        [*segments(1, 2), *segments(1, timeline=2), "000000010000000000000002.00000028.backup"]
    )
    assert obsolete_files(cluster, []) == {}


def test_a_server_that_went_back_in_time_keeps_its_wal_until_its_own_base_backup() -> None:
    files = segments(98, 99, 100, 101) | segments(5, 6, 7, 8, timeline=2)
    cluster = ArchivedCluster(SYSTEM, files)

    before = obsolete_files(cluster, [base(100, 100)])
    after = obsolete_files(cluster, [base(100, 100), base(7, 7, timeline=2)])

    assert list(before) == list(segments(98, 99))
    assert list(after) == list(segments(5, 6, timeline=2))


def test_the_way_goes_on_as_far_as_there_is_no_gap() -> None:
    whole = walk(base(3, 4), Timelines(), 1, segments(1, 2, 3, 4, 5, 6))
    torn = walk(base(3, 4), Timelines(), 1, segments(3, 4, 5, 7))
    only_in_base = walk(base(3, 4), Timelines(), 1, segments(5))

    assert (list(whole.files), whole.missing) == (list(segments(3, 4, 5, 6)), "")
    assert (list(torn.files), torn.missing) == (list(segments(3, 4, 5)), "000000010000000000000006")
    assert (list(only_in_base.files), only_in_base.missing) == (list(segments(5)), "")


def test_the_way_changes_the_timeline_where_the_history_says() -> None:
    timelines = Timelines({2: (Switch(1, 5 * SIZE + 99),), 3: (Switch(1, 2 * SIZE),)})
    files = segments(3, 4, 5, 6, 7) | segments(5, 6, timeline=2)

    assert timelines.after(base(3, 4)) == (1, 2)
    way = walk(base(3, 4), timelines, 2, files)
    assert list(way.files) == [*segments(3, 4), *segments(5, 6, timeline=2)]
    assert list(walk(base(3, 4), timelines, 1, files).files) == list(segments(3, 4, 5, 6, 7))


def test_the_newest_base_backup_that_had_ended_is_taken() -> None:
    bases = [base(9, 9, hours=5), base(3, 3), base(5, 5, name="other", hours=1)]

    assert choose_base(bases, "main", ENDED + timedelta(hours=4)).first == 3
    assert choose_base(bases, "main", ENDED + timedelta(hours=5)).first == 9
    assert choose_base(bases, "main", None).first == 9
    with pytest.raises(RestoreRefused, match="is too early"):
        choose_base(bases, "main", ENDED - timedelta(seconds=1))
    with pytest.raises(RestoreRefused, match="there are: main, other"):
        choose_base(bases, "third", None)
