"""One backup to several storages: each has its own state, and a run goes on where one of them fails."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from backup_admin.access.step_up import Purpose
from backup_admin.control import copies, destinations
from backup_admin.control.copies import Copies, Medium
from backup_admin.control.destinations import PlaceState, Role, read_states
from backup_admin.control.verdict import Protection, judge
from backup_admin.core.errors import ConfigurationError, NotPermitted, UsageError
from backup_admin.records import BackupRun, RunStatus
from backup_admin.repository.repository import open_repository
from backup_admin.repository.secrets import parse_application_key
from backup_admin.storage.local import LocalStorage
from tests.installations import ADMIN, START, Host, back_up, grant, make_host, set_up

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.orm import Session

    from backup_admin.storage.base import Buffer, PutResult


ALL = ("storage", "first-mirror", "second-mirror")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """An app with two mirrors beside its storage."""
    mirrors = [str(tmp_path / "first-mirror"), str(tmp_path / "second-mirror")]
    host = make_host(tmp_path, BACKUP_ADMIN_MIRRORS=mirrors)
    set_up(host)
    return host


def states(host: Host) -> list[PlaceState]:
    with host.installation.database.new_session() as session:
        return list(read_states(session))


def snapshots(host: Host, name: str) -> list[str]:
    secret = parse_application_key(host.installation.key().reveal())
    storage = LocalStorage(host.folder / name)
    return list(open_repository(storage, secret, state=None, clock=host.clock).snapshot_ids())


def change(host: Host, text: str) -> None:
    (host.uploads / f"{text}.txt").write_text(text)
    host.clock.advance(minutes=10)


def hide(host: Host, name: str) -> None:
    (host.folder / name).rename(host.folder / f"{name}.away")


def show(host: Host, name: str) -> None:
    (host.folder / f"{name}.away").rename(host.folder / name)


def test_a_run_reaches_every_storage(host: Host) -> None:
    run = back_up(host)

    assert run.status is RunStatus.COMPLETED
    assert [row["label"].rpartition("/")[2] for row in run.storages] == [
        "storage",
        "first-mirror",
        "second-mirror",
    ]
    assert {(state.problem, state.good_at) for state in states(host)} == {("", host.clock.now())}
    for name in ALL:
        assert snapshots(host, name) == [run.snapshot_id]


def test_a_mirror_that_fails_makes_the_run_degraded_and_nothing_else(host: Host) -> None:
    good = back_up(host)
    (host.folder / "first-mirror" / "config").write_bytes(b"something else")
    change(host, "more")

    run = back_up(host)

    assert run.status is RunStatus.DEGRADED
    assert "This backup is good, but 1 of 3 storages lacks it." in run.error_message
    assert (
        snapshots(host, "storage") == snapshots(host, "second-mirror") == [good.snapshot_id, run.snapshot_id]
    )
    first = states(host)[1]
    assert "first-mirror" in first.problem
    assert first.good_at == START
    with host.installation.database.new_session() as session:
        verdict = judge(session, host.installation)
    assert verdict.state is not Protection.PROTECTED


def test_a_run_goes_on_in_a_mirror_while_the_storage_is_away_and_comes_back(host: Host) -> None:
    first = back_up(host)
    hide(host, "storage")
    change(host, "while it is away")
    away = back_up(host)
    show(host, "storage")
    change(host, "after it came back")
    back = back_up(host)

    assert (first.status, away.status, back.status) == (
        RunStatus.COMPLETED,
        RunStatus.DEGRADED,
        RunStatus.COMPLETED,
    ), (away.error_message, back.error_message)
    assert "storage is not there" in away.error_message
    every = [run.snapshot_id for run in (first, away, back)]
    for name in ALL:
        assert snapshots(host, name) == every


def test_a_storage_that_lacks_what_one_that_is_away_has_is_not_written_to(host: Host) -> None:
    back_up(host)
    hide(host, "storage")
    hide(host, "second-mirror")
    change(host, "in the first mirror alone")
    back_up(host)
    hide(host, "first-mirror")
    show(host, "storage")
    show(host, "second-mirror")
    before = snapshots(host, "storage")
    change(host, "more")

    run = back_up(host)

    assert run.status is RunStatus.FAILED
    assert "No longer there" in run.error_message
    assert snapshots(host, "storage") == snapshots(host, "second-mirror") == before
    show(host, "first-mirror")
    healed = back_up(host)
    assert healed.status is RunStatus.COMPLETED, healed.error_message
    assert len(snapshots(host, "storage")) == 3


def test_with_every_storage_away_the_run_says_what_is_wrong_with_each(host: Host) -> None:
    back_up(host)
    for name in ALL:
        hide(host, name)

    run = back_up(host)

    assert run.status is RunStatus.FAILED
    assert "storage is not there" in run.error_message
    assert not (host.folder / "storage").exists()


def test_an_empty_place_is_not_taken_for_the_storage(host: Host) -> None:
    back_up(host)
    shutil.rmtree(host.folder / "storage")
    (host.folder / "storage").mkdir()
    change(host, "more")

    run = back_up(host)

    assert run.status is RunStatus.DEGRADED
    assert "holds no repository" in run.error_message
    assert list((host.folder / "storage").iterdir()) == []
    assert run.snapshot_id in snapshots(host, "first-mirror")


def test_a_mirror_whose_disk_is_unplugged_is_not_made_anew(host: Host) -> None:
    back_up(host)
    hide(host, "first-mirror")
    change(host, "more")

    run = back_up(host)

    assert run.status is RunStatus.DEGRADED
    assert "first-mirror is not there. Is the right disk" in run.error_message
    assert not (host.folder / "first-mirror").exists()


def test_mirrors_are_set_with_a_second_factor_and_audited(tmp_path: Path, session: Session) -> None:
    host = make_host(tmp_path)
    set_up(host)
    with host.installation.database.new_session() as session:
        with pytest.raises(NotPermitted):
            destinations.set_mirrors(session, host.installation, [str(tmp_path / "m")], ADMIN)
        grant(session, host, Purpose.STORAGE)
        kept = destinations.set_mirrors(session, host.installation, [f" {tmp_path / 'm'} ", ""], ADMIN)
        assert (
            destinations.mirror_addresses(session, host.installation.settings)
            == kept
            == (str(tmp_path / "m"),)
        )
    assert host.installation.audit().read_page()[0].action == "storage.mirrors"
    run = back_up(host)
    assert (run.status, len(run.storages)) == (RunStatus.COMPLETED, 2)


@pytest.mark.parametrize("address", ["storage", "uploads/inside", "ftp://host/x"])
def test_a_mirror_in_an_unfit_place_is_refused(bare_host: Host, address: str) -> None:
    set_up(bare_host)
    place = address if "://" in address else str(bare_host.folder / address)
    with (
        bare_host.installation.database.new_session() as session,
        pytest.raises((UsageError, ConfigurationError)),
    ):
        destinations.set_mirrors(session, bare_host.installation, [place], ADMIN)


def test_pinned_mirrors_are_not_changed_on_a_page(host: Host) -> None:
    with (
        host.installation.database.new_session() as session,
        pytest.raises(ConfigurationError, match="MIRRORS"),
    ):
        destinations.set_mirrors(session, host.installation, [], ADMIN)


def state(medium: Medium, *, is_away: bool, problem: str = "") -> PlaceState:
    return PlaceState("x", Role.MIRROR, medium, is_away, START, START, 1, problem)


@pytest.mark.parametrize(
    ("found", "expected", "kept"),
    [
        ([], Copies(1, 1, 0), False),
        ([state(Medium.SAME_DISK, is_away=False)], Copies(2, 1, 0), False),
        (
            [state(Medium.OTHER_DISK, is_away=False), state(Medium.BUCKET, is_away=True)],
            Copies(3, 3, 1),
            True,
        ),
        (
            [state(Medium.OTHER_DISK, is_away=False), state(Medium.BUCKET, is_away=True, problem="away")],
            Copies(2, 2, 0),
            False,
        ),
        ([state(Medium.OTHER_DISK, is_away=False)] * 2, Copies(3, 2, 0), False),
        ([state(Medium.BUCKET, is_away=True)], Copies(2, 2, 1), False),
    ],
)
def test_the_rule_counts_only_copies_that_are_there(
    found: list[PlaceState], expected: Copies, kept: bool
) -> None:
    counted = copies.count_copies(found)

    assert (counted, counted.is_kept) == (expected, kept)
    assert counted.sentence.startswith("The 3-2-1 rule is kept" if kept else "The 3-2-1 rule is not kept")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("s3://bucket/app", (Medium.BUCKET, True)),
        ("s3://bucket/app?endpoint=http://127.0.0.1:9000", (Medium.BUCKET, False)),
        ("ssh://nas.example/srv/b", (Medium.HOST, True)),
        ("ssh://localhost/srv/b", (Medium.HOST, False)),
        ("ftp://host/b", (Medium.UNKNOWN, False)),
    ],
)
def test_where_a_copy_lies_is_told_by_its_address(
    bare_host: Host, address: str, expected: tuple[Medium, bool]
) -> None:
    assert copies.medium_of(address, bare_host.installation.settings) == expected


def test_a_folder_beside_the_data_lies_on_the_same_disk(bare_host: Host) -> None:
    settings = bare_host.installation.settings

    assert copies.medium_of(str(bare_host.folder / "not" / "yet"), settings) == (Medium.SAME_DISK, False)
    assert copies.medium_of("/proc/self", settings) == (Medium.OTHER_DISK, False)


def test_a_run_of_one_storage_says_what_it_came_to_as_well(bare_host: Host) -> None:
    set_up(bare_host)
    run: BackupRun = back_up(bare_host)

    assert [row["role"] for row in run.storages] == ["storage"]
    assert run.status is RunStatus.COMPLETED


def test_a_mirror_that_keeps_other_bytes_of_a_pack_is_not_called_complete(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = LocalStorage.put

    def put_other(storage: LocalStorage, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        if storage.folder.name == "first-mirror" and name.startswith("packs/"):
            data = bytes(data[:-1]) + bytes([data[-1] ^ 1])
        return put(storage, name, data, if_absent=if_absent)

    monkeypatch.setattr(LocalStorage, "put", put_other)

    run = back_up(host)

    assert run.status is RunStatus.DEGRADED
    assert [bool(state.problem) for state in states(host)] == [False, True, False]
