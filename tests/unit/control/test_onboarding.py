"""Nothing counts as protected before a recovery key is really kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backup_admin.access.step_up import Purpose
from backup_admin.control import catalogue, engine, onboarding
from backup_admin.core.errors import (
    BadSecret,
    ConfigurationError,
    NotPermitted,
    RepositoryExists,
    UsageError,
)
from backup_admin.core.secret import Secret
from backup_admin.records import RunStatus, StoredSetting
from backup_admin.repository.repository import open_repository
from backup_admin.repository.secrets import generate_recovery_key, parse_recovery_key
from backup_admin.storage.open import open_storage
from tests.installations import ADMIN, Host, back_up, grant, make_host, set_up

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.orm import Session


def test_set_up_goes_step_by_step(bare_host: Host, session: Session) -> None:
    installation = bare_host.installation
    seen = onboarding.look(session, installation)
    assert (seen.key_problem, seen.has_sources, seen.storage, seen.has_repository) == ("", True, "", False)

    kept = onboarding.choose_storage(session, installation, str(bare_host.folder / "storage"), ADMIN)
    made = onboarding.make_repository(session, installation, ADMIN)
    seen = onboarding.look(session, installation)
    assert seen.storage == kept
    assert seen.has_repository
    assert seen.recovery_asked == made.asked
    assert not seen.complete

    onboarding.confirm_recovery_key(session, installation, groups(made, made.asked), ADMIN)
    seen = onboarding.look(session, installation)
    assert seen.complete
    assert seen.recovery_asked == ()
    actions = [entry.action for entry in installation.audit().read_page()]
    assert actions == ["recovery_key.confirm", "repository.make", "storage.choose"]


def test_the_probe_leaves_nothing_behind(bare_host: Host, session: Session) -> None:
    folder = bare_host.folder / "storage"
    onboarding.choose_storage(session, bare_host.installation, str(folder), ADMIN)
    assert [path for path in folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("place", ["uploads", "uploads/inside", ".", "instance/backup_admin/here"])
def test_a_storage_inside_or_around_what_it_protects_is_refused(
    bare_host: Host, session: Session, place: str
) -> None:
    with pytest.raises(ConfigurationError, match="inside each other"):
        onboarding.choose_storage(session, bare_host.installation, str(bare_host.folder / place), ADMIN)


def test_the_recovery_key_opens_the_repository_alone(bare_host: Host, session: Session) -> None:
    onboarding.choose_storage(session, bare_host.installation, str(bare_host.folder / "storage"), ADMIN)
    made = onboarding.make_repository(session, bare_host.installation, ADMIN)
    repository = open_repository(
        open_storage(str(bare_host.folder / "storage"), state=bare_host.installation.state.root),
        parse_recovery_key(made.key.reveal()),
        state=None,
        clock=bare_host.clock,
    )
    assert repository.repo_id == made.repo_id


@pytest.mark.parametrize("mistake", ["wrong", "swapped", "missing", "other groups", "too many"])
def test_wrong_groups_confirm_nothing(bare_host: Host, session: Session, mistake: str) -> None:
    onboarding.choose_storage(session, bare_host.installation, str(bare_host.folder / "storage"), ADMIN)
    made = onboarding.make_repository(session, bare_host.installation, ADMIN)
    right = groups(made, made.asked)
    others = tuple(number for number in range(1, 9) if number not in made.asked)[:2]
    typed = {
        "wrong": (right[0], "AAAAAAA"),
        "swapped": (right[1], right[0]),
        "missing": right[:1],
        "other groups": groups(made, others),
        "too many": (*right, right[0]),
    }
    with pytest.raises(BadSecret):
        onboarding.confirm_recovery_key(session, bare_host.installation, typed[mistake], ADMIN)
    assert not onboarding.is_recovery_confirmed(session)


def test_groups_may_be_typed_in_small_letters_with_spaces(bare_host: Host, session: Session) -> None:
    onboarding.choose_storage(session, bare_host.installation, str(bare_host.folder / "storage"), ADMIN)
    made = onboarding.make_repository(session, bare_host.installation, ADMIN)
    typed = tuple(f" {group.lower()} ".replace("o", "0") for group in groups(made, made.asked))
    onboarding.confirm_recovery_key(session, bare_host.installation, typed, ADMIN)
    assert onboarding.is_recovery_confirmed(session)


def test_no_group_of_the_key_lies_in_the_database(bare_host: Host, session: Session) -> None:
    onboarding.choose_storage(session, bare_host.installation, str(bare_host.folder / "storage"), ADMIN)
    made = onboarding.make_repository(session, bare_host.installation, ADMIN)
    rows = "".join(f"{row.value} {row.sealed}" for row in session.query(StoredSetting))
    assert not [group for group in made.groups if group.reveal() in rows]


def test_backups_are_refused_before_the_key_is_confirmed(bare_host: Host, session: Session) -> None:
    onboarding.choose_storage(session, bare_host.installation, str(bare_host.folder / "storage"), ADMIN)
    onboarding.make_repository(session, bare_host.installation, ADMIN)
    run = back_up(bare_host)
    assert run.status is RunStatus.FAILED
    assert "No recovery key is confirmed" in run.error_message


def test_a_second_repository_is_not_made_over_the_first(host: Host, session: Session) -> None:
    with pytest.raises(RepositoryExists):
        onboarding.make_repository(session, host.installation, ADMIN)
    assert onboarding.look(session, host.installation).complete


def test_a_lost_control_database_learns_everything_from_the_storage(tmp_path: Path) -> None:
    first = make_host(tmp_path)
    set_up(first)
    run = back_up(first, label="kept")
    key = first.installation.key().reveal()
    second = make_host(tmp_path, BACKUP_ADMIN_STATE_DIR=str(tmp_path / "new"), BACKUP_ADMIN_KEY=key)
    with second.installation.database.new_session() as session:
        onboarding.choose_storage(session, second.installation, str(tmp_path / "storage"), ADMIN)
        assert onboarding.holds_repository(session, second.installation)
        assert onboarding.adopt_repository(session, second.installation, ADMIN) == ()
        seen = onboarding.look(session, second.installation)
        assert (seen.has_repository, seen.recovery_confirmed, seen.has_verified_backup) == (
            True,
            False,
            False,
        )
        row = catalogue.find_row(session, run.snapshot_id)
        assert row is not None
        assert (row.label, row.file_count) == ("kept", 2)


def test_an_earlier_recovery_key_can_be_typed_whole(bare_host: Host, session: Session) -> None:
    installation = bare_host.installation
    onboarding.choose_storage(session, installation, str(bare_host.folder / "storage"), ADMIN)
    made = onboarding.make_repository(session, installation, ADMIN)
    with pytest.raises(Exception, match="key"):
        onboarding.confirm_whole_recovery_key(session, installation, generate_recovery_key(), ADMIN)
    assert not onboarding.is_recovery_confirmed(session)
    onboarding.confirm_whole_recovery_key(session, installation, Secret(made.key.reveal().lower()), ADMIN)
    assert onboarding.is_recovery_confirmed(session)


def test_after_set_up_another_storage_or_key_needs_a_step_up(host: Host, session: Session) -> None:
    elsewhere = str(host.folder / "elsewhere")
    with pytest.raises(NotPermitted):
        onboarding.choose_storage(session, host.installation, elsewhere, ADMIN)
    with pytest.raises(NotPermitted):
        onboarding.renew_recovery_key(session, host.installation, ADMIN)
    assert not (host.folder / "elsewhere").exists()

    grant(session, host, Purpose.STORAGE)
    onboarding.choose_storage(session, host.installation, elsewhere, ADMIN)
    seen = onboarding.look(session, host.installation)
    assert (seen.storage, seen.has_repository, seen.complete) == (elsewhere, False, False)


def test_the_same_repository_by_another_address_stays_in_use(host: Host, session: Session) -> None:
    run = back_up(host)
    grant(session, host, Purpose.STORAGE)
    same = f"file://{host.folder / 'storage'}"

    onboarding.choose_storage(session, host.installation, same, ADMIN)

    seen = onboarding.look(session, host.installation)
    assert (seen.storage, seen.complete) == (same, True)
    assert catalogue.newest_snapshot_id(session) == run.snapshot_id


def test_a_storage_set_by_the_deployment_is_not_changed_here(tmp_path: Path) -> None:
    host = make_host(tmp_path, BACKUP_ADMIN_STORAGE=str(tmp_path / "pinned"))
    with host.installation.database.new_session() as session:
        assert onboarding.look(session, host.installation).storage_pinned
        with pytest.raises(ConfigurationError, match="BACKUP_ADMIN_STORAGE"):
            onboarding.choose_storage(session, host.installation, str(tmp_path / "other"), ADMIN)


def test_read_only_changes_nothing(tmp_path: Path) -> None:
    host = make_host(tmp_path, BACKUP_ADMIN_READ_ONLY=True)
    with host.installation.database.new_session() as session, pytest.raises(ConfigurationError):
        onboarding.choose_storage(session, host.installation, str(tmp_path / "storage"), ADMIN)
    assert not (tmp_path / "storage").exists()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("postgresql://x/y?nonsense=1", "main: The address of a PostgreSQL database cannot be read"),
        ("mysql://x/y", "protects SQLite and PostgreSQL databases only"),
        ("sqlite://", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
    ],
)
def test_databases_of_other_kinds_are_refused_by_name(tmp_path: Path, address: str, words: str) -> None:
    host = make_host(tmp_path, BACKUP_ADMIN_DATABASES={"main": address})
    with host.installation.database.new_session() as session:
        with pytest.raises(ConfigurationError, match=words):
            engine.source_set(session, host.installation)
        (state, *_) = engine.describe_sources(session, host.installation)
        assert words in state.problem


def test_excludes_of_the_page_join_those_of_the_deployment(host: Host, session: Session) -> None:
    engine.set_excludes(session, host.installation, "uploads", ("*.tmp", " "))
    (source,) = engine.source_set(session, host.installation).files
    assert source.exclude == ("*.tmp",)
    with pytest.raises(UsageError):
        engine.set_excludes(session, host.installation, "nowhere", ("*.tmp",))


def groups(made: onboarding.NewRecoveryKey, numbers: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(made.groups[number - 1].reveal() for number in numbers)
