"""Which of several storages is written to: never another repository, never two histories, no copy twice."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from backup_admin.control import destinations, engine, restore_here
from backup_admin.control.copies import count_copies
from backup_admin.control.destinations import PlaceState, read_states
from backup_admin.control.restore_from import open_for_restore
from backup_admin.control.stored import write_value
from backup_admin.core.errors import HistoryChanged, UsageError
from backup_admin.core.ids import SnapshotId
from backup_admin.operations.mirror_copy import Copier
from backup_admin.operations.pinning import pin_snapshot
from backup_admin.operations.plans import Selection
from backup_admin.records import BackupManifest, BackupRun, RunStatus
from backup_admin.repository.repository import Repository, open_repository
from backup_admin.repository.secrets import parse_application_key
from backup_admin.repository.seen import is_of_mirror
from backup_admin.storage.local import LocalStorage
from tests.installations import ADMIN, Host, back_up, make_host, set_up

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """An app with a mirror beside its storage."""
    host = make_host(tmp_path, BACKUP_ADMIN_MIRRORS=[str(tmp_path / "mirror")])
    set_up(host)
    return host


def states(host: Host) -> tuple[PlaceState, ...]:
    with host.installation.database.new_session() as session:
        return read_states(session)


def snapshots(host: Host, name: str) -> list[str]:
    secret = parse_application_key(host.installation.key().reveal())
    storage = LocalStorage(host.folder / name)
    return list(open_repository(storage, secret, state=None, clock=host.clock).snapshot_ids())


def opened(host: Host) -> Repository:
    """Open what restores, checks and pages open."""
    with host.installation.database.new_session() as session:
        return engine.open_repository(session, host.installation)


def change(host: Host, text: str) -> None:
    (host.uploads / f"{text}.txt").write_text(text)
    host.clock.advance(minutes=10)


def back_up_while_the_storage_is_away(host: Host) -> BackupRun:
    storage, away = host.folder / "storage", host.folder / "storage.away"
    storage.rename(away)
    change(host, "while it is away")
    run = back_up(host)
    away.rename(storage)
    return run


@pytest.mark.parametrize("is_same_key", [True, False])
def test_a_mirror_with_another_repository_is_named_and_never_written_to(
    tmp_path: Path, is_same_key: bool
) -> None:
    other = make_host(tmp_path / "other")
    set_up(other)
    for text in ("a", "b", "c"):  # further than ours
        change(other, text)
        back_up(other)
    theirs = snapshots(other, "storage")
    key = {"BACKUP_ADMIN_KEY": other.installation.key().reveal()} if is_same_key else {}
    mirrors = [str(other.folder / "storage")]
    host = make_host(tmp_path / "mine", BACKUP_ADMIN_MIRRORS=mirrors, **key)
    set_up(host)

    run = back_up(host)

    assert run.status is RunStatus.DEGRADED
    assert "1 of 2 storages lacks it" in run.error_message
    assert "holds another repository; it was not touched" in run.storages[1]["problem"]
    assert snapshots(host, "storage") == [run.snapshot_id]
    assert snapshots(other, "storage") == theirs


def test_another_repository_is_not_written_to_while_the_storage_is_away(tmp_path: Path) -> None:
    other = make_host(tmp_path / "other")
    set_up(other)
    back_up(other)
    theirs = snapshots(other, "storage")
    host = make_host(
        tmp_path / "mine",
        BACKUP_ADMIN_MIRRORS=[str(other.folder / "storage")],
        BACKUP_ADMIN_KEY=other.installation.key().reveal(),
    )
    set_up(host)

    run = back_up_while_the_storage_is_away(host)

    assert run.status is RunStatus.FAILED
    assert "storage is not there" in run.error_message
    assert "another repository" in run.error_message
    assert snapshots(other, "storage") == theirs


def test_a_storage_that_was_away_takes_no_commit_before_it_is_up_to_date(host: Host) -> None:
    first = back_up(host)
    away = back_up_while_the_storage_is_away(host)
    repository = opened(host)

    with pytest.raises(HistoryChanged, match="No longer there"):
        pin_snapshot(repository, SnapshotId(first.snapshot_id), until=None, reason="a restore", actor="Ada")

    change(host, "after it came back")
    back = back_up(host)
    assert back.status is RunStatus.COMPLETED, back.error_message
    every = [first.snapshot_id, away.snapshot_id, back.snapshot_id]
    assert snapshots(host, "storage") == snapshots(host, "mirror") == every


def test_a_mirror_that_became_the_storage_is_no_mirror_any_more(host: Host) -> None:
    first = back_up(host)
    promoted = replace(host.installation.settings, storage=str(host.folder / "mirror"), mirrors=())
    host = replace(host, installation=replace(host.installation, settings=promoted))

    repository = opened(host)

    assert not is_of_mirror(repository.state_name)
    pin_snapshot(repository, SnapshotId(first.snapshot_id), until=None, reason="a restore", actor="Ada")
    assert not repository.history_warning


def test_one_place_under_several_names_is_one_copy(tmp_path: Path) -> None:
    place, link = tmp_path / "mirror", tmp_path / "link"
    link.symlink_to(place)
    host = make_host(tmp_path, BACKUP_ADMIN_MIRRORS=[str(place), place.as_uri(), str(link)])
    set_up(host)

    for _ in range(2):
        run = back_up(host)

        assert run.status is RunStatus.DEGRADED
        assert [bool(state.problem) for state in states(host)] == [False, False, True, True]
        assert "are one place" in states(host)[2].problem
        assert count_copies(states(host)).copies == 3
        assert snapshots(host, "mirror") == snapshots(host, "storage")
        change(host, "more")


def test_one_place_under_two_names_is_refused_on_the_page(bare_host: Host) -> None:
    set_up(bare_host)
    place = bare_host.folder / "mirror"
    with (
        bare_host.installation.database.new_session() as session,
        pytest.raises(UsageError, match="are one place"),
    ):
        destinations.set_mirrors(session, bare_host.installation, [str(place), place.as_uri()], ADMIN)


def test_a_state_folder_that_fails_while_mirroring_fails_no_backup(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("backup_admin.operations.mirror.note_mirror", broken)

    run = back_up(host)

    assert run.status is RunStatus.DEGRADED
    assert "Input/output error" in run.storages[1]["problem"]
    assert snapshots(host, "storage") == [run.snapshot_id]


def test_a_mirror_that_is_the_storage_by_another_name_is_no_copy(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(host)
    shutil.rmtree(host.folder / "mirror")
    (host.folder / "mirror").symlink_to(host.folder / "storage")
    # As with a host that is this machine: the addresses do not tell.
    monkeypatch.setattr("backup_admin.operations.mirror_place.local_folder", lambda _: None)
    change(host, "more")

    run = back_up(host)

    assert run.status is RunStatus.DEGRADED
    assert "are one place" in run.storages[1]["problem"]
    assert count_copies(states(host)).copies == 2
    assert not [path for path in (host.folder / "storage").iterdir() if path.name.startswith("probe-")]


@pytest.mark.parametrize("ended_by", [KeyboardInterrupt, ValueError])
def test_a_backup_is_known_also_when_its_process_ends_while_it_mirrors(
    host: Host, monkeypatch: pytest.MonkeyPatch, ended_by: type[BaseException]
) -> None:
    def end(*_: object) -> None:
        raise ended_by

    monkeypatch.setattr(Copier, "copy", end)

    with suppress(KeyboardInterrupt):
        back_up(host)

    with host.installation.database.new_session() as session:
        assert list(session.scalars(select(BackupManifest.snapshot_id))) == snapshots(host, "storage")
        assert session.scalars(select(BackupManifest.verified_at)).one() is not None
        assert session.scalars(select(BackupRun.status)).one() is not RunStatus.COMPLETED


ODD: list[object] = [None, "x", {}, [1], [{"label": "x"}], [{"label": "x", "role": "of a later version"}]]


@pytest.mark.parametrize("odd", ODD)
def test_what_cannot_be_read_of_a_run_is_no_copy_and_stops_nothing(host: Host, odd: object) -> None:
    run = back_up(host)
    run.storages = odd  # type: ignore[assignment]  # as another version may have left it
    with host.installation.database.new_session() as session:
        write_value(session, host.clock, destinations.STATES_KEY, odd)
        session.commit()
    change(host, "more")

    assert destinations.states_of(run) == states(host) == ()
    assert back_up(host).status is RunStatus.COMPLETED


def test_what_a_restore_from_a_mirror_commits_is_missed_in_the_storage_that_comes_back(host: Host) -> None:
    first = SnapshotId(back_up(host).snapshot_id)
    storage, away = host.folder / "storage", host.folder / "storage.away"
    storage.rename(away)
    with host.installation.database.new_session() as session:
        repository, _ = open_for_restore(session, host.installation)
        review = restore_here.plan_here(session, host.installation, repository, first, Selection((), ()))
        report = restore_here.carry_out_here(session, host.installation, repository, review, ADMIN)
    assert report.safety_snapshot
    away.rename(storage)

    with pytest.raises(HistoryChanged, match="No longer there"):
        pin_snapshot(opened(host), first, until=None, reason="a restore", actor="Ada")

    change(host, "after it came back")
    run = back_up(host)
    assert run.status is RunStatus.COMPLETED, run.error_message
    assert report.safety_snapshot in snapshots(host, "storage")
