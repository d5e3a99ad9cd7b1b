"""With a new application key authenticators go on working and no audit entry is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyotp
import pytest

from backup_admin.access import second_factor
from backup_admin.access.audit import AuditFailed, AuditLog
from backup_admin.access.secrets_at_rest import derive_key
from backup_admin.control.key_change import take_new_key
from backup_admin.core.errors import BadSecret, UsageError
from backup_admin.repository.secrets import generate_application_key
from tests.installations import ADMIN

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from backup_admin.control.installation import Installation
    from backup_admin.core.secret import Secret
    from tests.installations import Host


def enrol(session: Session, host: Host) -> pyotp.TOTP:
    tools = host.installation.authenticators()
    made = second_factor.begin_enrolment(session, tools, user_id="7", account="ada", issuer="gallery")
    totp = pyotp.TOTP(made.secret.reveal())
    second_factor.confirm_enrolment(session, tools, user_id="7", address="a", code=totp.at(host.clock.now()))
    host.clock.advance(minutes=1)
    return totp


def with_new_key(host: Host) -> tuple[Installation, Secret]:
    old = host.installation.key()
    settings = replace(host.installation.settings, key=generate_application_key(), key_file=None)
    return replace(host.installation, settings=settings), old


def test_an_authenticator_goes_on_working(session: Session, bare_host: Host) -> None:
    totp = enrol(session, bare_host)
    changed, old = with_new_key(bare_host)

    assert take_new_key(session, changed, old, ADMIN).secrets == 1

    second_factor.check_code(
        session,
        changed.authenticators(),
        user_id="7",
        address="a",
        code=totp.at(bare_host.clock.now()),
    )
    bare_host.clock.advance(minutes=1)
    with pytest.raises(BadSecret):
        second_factor.check_code(
            session,
            bare_host.installation.authenticators(),
            user_id="7",
            address="a",
            code=totp.at(bare_host.clock.now()),
        )


def test_the_audit_log_begins_anew_and_the_old_one_stays_whole(session: Session, bare_host: Host) -> None:
    bare_host.installation.audit().append(ADMIN, "something", target="x")
    changed, old = with_new_key(bare_host)

    change = take_new_key(session, changed, old, ADMIN)

    before = AuditLog(
        changed.audit().path.with_name(change.old_log), derive_key(old, "audit"), bare_host.clock
    )
    assert (before.verify().ok, before.verify().entries) == (True, 1)
    assert (changed.audit().verify().ok, changed.audit().verify().entries) == (True, 1)
    changed.audit().append(ADMIN, "something else", target="y")
    assert changed.audit().verify().entries == 2


def test_it_is_safe_to_repeat(session: Session, bare_host: Host) -> None:
    enrol(session, bare_host)
    bare_host.installation.audit().append(ADMIN, "something", target="x")
    changed, old = with_new_key(bare_host)
    take_new_key(session, changed, old, ADMIN)

    again = take_new_key(session, changed, old, ADMIN)

    assert (again.secrets, again.old_log) == (0, "")
    assert changed.audit().verify().ok


def test_a_wrong_old_key_changes_nothing(session: Session, bare_host: Host) -> None:
    totp = enrol(session, bare_host)
    changed, old = with_new_key(bare_host)

    with pytest.raises(BadSecret):
        take_new_key(session, changed, generate_application_key(), ADMIN)
    session.rollback()
    with pytest.raises(UsageError):
        take_new_key(session, bare_host.installation, old, ADMIN)

    tools = bare_host.installation.authenticators()
    code = totp.at(bare_host.clock.now())
    second_factor.check_code(session, tools, user_id="7", address="a", code=code)


def test_a_log_that_was_tampered_with_is_left_alone(session: Session, bare_host: Host) -> None:
    bare_host.installation.audit().append(ADMIN, "something", target="x")
    path = bare_host.installation.audit().path
    path.write_bytes(path.read_bytes().replace(b"something", b"sometimes"))
    changed, old = with_new_key(bare_host)

    with pytest.raises(AuditFailed, match="was left alone"):
        take_new_key(session, changed, old, ADMIN)

    assert path.exists()
