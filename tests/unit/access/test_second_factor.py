"""Codes count once, guesses are counted, secrets open nowhere else."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pyotp
import pytest
from sqlalchemy import text

from backup_admin.access import second_factor, step_up
from backup_admin.access.audit import AuditOutcome
from backup_admin.access.permissions import Actor, Permission, Role, require, role_permissions
from backup_admin.access.second_factor import Proof
from backup_admin.access.secrets_at_rest import Place, application_key, seal, unseal
from backup_admin.access.step_up import Act, Purpose, login_id
from backup_admin.core.errors import BadSecret, ConfigurationError, NotPermitted
from backup_admin.core.secret import Secret
from backup_admin.repository.secrets import generate_application_key
from tests.installations import ADMIN, Host, make_host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.orm import Session

PLAN = "d" * 64


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return make_host(tmp_path)


@pytest.fixture
def session(host: Host) -> Iterator[Session]:
    with host.installation.database.new_session() as session:
        yield session


def enrol(session: Session, host: Host) -> tuple[pyotp.TOTP, tuple[Secret, ...]]:
    tools = host.installation.authenticators()
    made = second_factor.begin_enrolment(session, tools, user_id="7", account="ada", issuer="gallery")
    totp = pyotp.TOTP(made.secret.reveal())
    codes = second_factor.confirm_enrolment(
        session, tools, user_id="7", address="a", code=totp.at(host.clock.now())
    )
    host.clock.advance(minutes=1)
    return totp, codes


def check(session: Session, host: Host, code: str, address: str = "a") -> Proof:
    tools = host.installation.authenticators()
    return second_factor.check_code(session, tools, user_id="7", address=address, code=code)


def test_an_authenticator_counts_only_after_its_first_code(session: Session, host: Host) -> None:
    tools = host.installation.authenticators()
    made = second_factor.begin_enrolment(session, tools, user_id="7", account="ada", issuer="gallery")
    assert "otpauth://totp/gallery:ada" in made.address.reveal()
    assert made.qr_svg.reveal().startswith("<svg")
    assert not second_factor.is_enrolled(session, "7")
    with pytest.raises(NotPermitted, match="Set up"):
        check(session, host, pyotp.TOTP(made.secret.reveal()).at(host.clock.now()))
    with pytest.raises(NotPermitted):
        second_factor.confirm_enrolment(session, tools, user_id="7", address="a", code="000000")
    assert not second_factor.is_enrolled(session, "7")


def test_a_code_works_once(session: Session, host: Host) -> None:
    totp, _ = enrol(session, host)
    code = totp.at(host.clock.now())
    assert check(session, host, code) is Proof.AUTHENTICATOR
    with pytest.raises(NotPermitted):
        check(session, host, code)


def test_the_code_of_the_enrolment_does_not_work_again(session: Session, host: Host) -> None:
    tools = host.installation.authenticators()
    made = second_factor.begin_enrolment(session, tools, user_id="7", account="ada", issuer="gallery")
    code = pyotp.TOTP(made.secret.reveal()).at(host.clock.now())
    second_factor.confirm_enrolment(session, tools, user_id="7", address="a", code=code)
    with pytest.raises(NotPermitted):
        check(session, host, code)


@pytest.mark.parametrize(("offset", "good"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_one_step_of_clock_difference_is_borne(
    session: Session,
    host: Host,
    offset: int,
    good: bool,
) -> None:
    totp, _ = enrol(session, host)
    code = totp.at(host.clock.now(), counter_offset=offset)
    if good:
        check(session, host, code)
    else:
        with pytest.raises(NotPermitted):
            check(session, host, code)


def test_an_older_step_is_refused_after_a_newer_one(session: Session, host: Host) -> None:
    totp, _ = enrol(session, host)
    check(session, host, totp.at(host.clock.now(), counter_offset=1))
    with pytest.raises(NotPermitted):
        check(session, host, totp.at(host.clock.now()))


@pytest.mark.parametrize("shape", ["full width", "spaced", "seven", "five", "empty", "letters", "newline"])
def test_only_six_plain_digits_are_a_code(session: Session, host: Host, shape: str) -> None:
    totp, _ = enrol(session, host)
    good = totp.at(host.clock.now())
    shaped = {
        "full width": "".join(chr(ord(digit) - ord("0") + 0xFF10) for digit in good),
        "spaced": f"{good[:3]} {good[3:]}",
        "seven": good + "0",
        "five": good[:5],
        "empty": "",
        "letters": "abcdef",
        "newline": good[:3] + "\n" + good[3:],
    }
    with pytest.raises(NotPermitted):
        check(session, host, shaped[shape])
    assert check(session, host, good) is Proof.AUTHENTICATOR


def test_of_two_requests_with_one_code_one_wins(session: Session, host: Host) -> None:
    totp, _ = enrol(session, host)
    code = totp.at(host.clock.now())
    results: list[str] = []
    gate = threading.Barrier(4)

    def race() -> None:
        with host.installation.database.new_session() as own:
            gate.wait()
            try:
                results.append(check(own, host, code).value)
            except NotPermitted:
                results.append("refused")

    threads = [threading.Thread(target=race) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["authenticator", "refused", "refused", "refused"]


def test_five_wrong_codes_lock_even_the_right_one(session: Session, host: Host) -> None:
    totp, _ = enrol(session, host)
    for _ in range(5):
        with pytest.raises(NotPermitted, match="not right"):
            check(session, host, "000000")
    with pytest.raises(NotPermitted, match="Too many"):
        check(session, host, totp.at(host.clock.now()))


def test_twenty_tries_from_one_address_lock_it_for_all_people(session: Session, host: Host) -> None:
    enrol(session, host)
    attempts = host.installation.attempts
    for number in range(20):
        attempts.take(f"person {number}", "b")
    with pytest.raises(NotPermitted, match="Too many"):
        attempts.take("somebody else", "b")
    attempts.take("somebody else", "c")


def test_a_recovery_code_works_once_and_only_for_its_owner(session: Session, host: Host) -> None:
    _, codes = enrol(session, host)
    assert len({code.reveal() for code in codes}) == 10
    assert second_factor.recovery_codes_left(session, "7") == 10
    assert check(session, host, codes[0].reveal().lower().replace("-", " ")) is Proof.RECOVERY_CODE
    with pytest.raises(NotPermitted):
        check(session, host, codes[0].reveal())
    assert second_factor.recovery_codes_left(session, "7") == 9
    tools = host.installation.authenticators()
    with pytest.raises(NotPermitted):
        second_factor.check_code(session, tools, user_id="8", address="a", code=codes[1].reveal())


def test_a_new_authenticator_replaces_the_old_one_only_when_confirmed(session: Session, host: Host) -> None:
    old, old_codes = enrol(session, host)
    tools = host.installation.authenticators()
    made = second_factor.begin_enrolment(session, tools, user_id="7", account="ada", issuer="gallery")
    check(session, host, old.at(host.clock.now()))
    host.clock.advance(minutes=1)
    new = pyotp.TOTP(made.secret.reveal())
    second_factor.confirm_enrolment(session, tools, user_id="7", address="a", code=new.at(host.clock.now()))
    host.clock.advance(minutes=1)
    with pytest.raises(NotPermitted):
        check(session, host, old.at(host.clock.now()))
    with pytest.raises(NotPermitted):
        check(session, host, old_codes[0].reveal())
    assert check(session, host, new.at(host.clock.now())) is Proof.AUTHENTICATOR


def test_nothing_readable_lies_in_the_database(session: Session, host: Host) -> None:
    totp, codes = enrol(session, host)
    dump = "".join(
        str(row)
        for table in ("second_factors", "recovery_codes")
        for row in session.execute(text(f"SELECT * FROM backup_{table}"))
    )
    assert totp.secret not in dump
    assert codes[0].reveal().replace("-", "") not in dump
    assert "v1." in dump


def test_a_sealed_secret_opens_only_at_its_place_and_with_its_key() -> None:
    key = generate_application_key()
    place = Place("t", "c", "7")
    sealed = seal(key, Secret("hidden"), place)
    assert unseal(key, sealed, place).reveal() == "hidden"
    for other in (Place("t", "c", "8"), Place("t", "d", "7"), Place("u", "c", "7")):
        with pytest.raises(BadSecret):
            unseal(key, sealed, other)
    with pytest.raises(BadSecret):
        unseal(generate_application_key(), sealed, place)
    with pytest.raises(BadSecret):
        unseal(key, sealed[:-4] + "AAAA", place)
    with pytest.raises(BadSecret):
        unseal(key, "v9.AAAA", place)


def test_the_application_key_is_refused_when_missing_or_the_hosts(tmp_path: Path) -> None:
    missing = make_host(tmp_path / "a", BACKUP_ADMIN_KEY=None)
    with pytest.raises(ConfigurationError, match="no application key"):
        application_key(missing.installation.settings)
    same = generate_application_key().reveal()
    file = tmp_path / "key"
    file.write_text(same)
    file.chmod(0o600)
    hosts = make_host(tmp_path / "b", BACKUP_ADMIN_KEY=None, BACKUP_ADMIN_KEY_FILE=str(file), SECRET_KEY=same)
    with pytest.raises(ConfigurationError, match="SECRET_KEY"):
        application_key(hosts.installation.settings)
    file.chmod(0o644)
    with pytest.raises(NotPermitted, match="chmod 600"):
        application_key(hosts.installation.settings)


def prove(session: Session, host: Host, actor: Actor, act: Act, code: str) -> None:
    tools, audit = host.installation.authenticators(), host.installation.audit()
    step_up.prove(session, tools, audit, actor=actor, act=act, code=code)


def test_a_step_up_is_used_once(session: Session, host: Host) -> None:
    totp, _ = enrol(session, host)
    act = Act(Purpose.RESTORE, PLAN)
    prove(session, host, ADMIN, act, totp.at(host.clock.now()))
    assert step_up.is_proved(session, host.clock, actor=ADMIN, act=act)
    step_up.consume(session, host.clock, actor=ADMIN, act=act)
    with pytest.raises(NotPermitted, match="fresh code"):
        step_up.consume(session, host.clock, actor=ADMIN, act=act)
    (entry,) = host.installation.audit().read_page()
    assert (entry.action, entry.outcome, entry.details["with"]) == (
        "step_up.prove",
        AuditOutcome.DONE,
        "authenticator",
    )


@pytest.mark.parametrize("difference", ["plan", "purpose", "person", "login", "late"])
def test_a_step_up_serves_nothing_else(session: Session, host: Host, difference: str) -> None:
    totp, _ = enrol(session, host)
    prove(session, host, ADMIN, Act(Purpose.RESTORE, PLAN), totp.at(host.clock.now()))
    actor, act = ADMIN, Act(Purpose.RESTORE, PLAN)
    if difference == "plan":
        act = Act(Purpose.RESTORE, "e" * 64)
    elif difference == "purpose":
        act = Act(Purpose.UNDO, PLAN)
    elif difference == "person":
        actor = Actor("8", "Bob", login_id=ADMIN.login_id)
    elif difference == "login":
        actor = Actor("7", "Ada", login_id=login_id("another browser"))
    else:
        host.clock.advance(minutes=5)
    with pytest.raises(NotPermitted):
        step_up.consume(session, host.clock, actor=actor, act=act)


def test_a_wrong_code_is_audited_and_grants_nothing(session: Session, host: Host) -> None:
    enrol(session, host)
    act = Act(Purpose.RESTORE, PLAN)
    with pytest.raises(NotPermitted):
        prove(session, host, ADMIN, act, "000000")
    (entry,) = host.installation.audit().read_page()
    assert (entry.action, entry.outcome) == ("step_up.prove", AuditOutcome.DENIED)
    assert not step_up.is_proved(session, host.clock, actor=ADMIN, act=act)


def test_without_a_login_there_is_no_step_up(session: Session, host: Host) -> None:
    totp, _ = enrol(session, host)
    with pytest.raises(NotPermitted, match="sign in"):
        prove(session, host, Actor("7", "Ada"), Act(Purpose.RESTORE, PLAN), totp.at(host.clock.now()))


def test_roles_are_denied_what_they_do_not_name() -> None:
    assert Permission.RESTORE not in role_permissions(Role.OPERATOR)
    assert Permission.CONFIGURE not in role_permissions(Role.RESTORER)
    assert role_permissions("owner") == frozenset()
    with pytest.raises(NotPermitted, match=r"restore\.execute"):
        require(Actor("7", "Ada", granted=role_permissions(Role.OPERATOR)), Permission.RESTORE)
