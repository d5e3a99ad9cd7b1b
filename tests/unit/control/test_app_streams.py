"""Streams as the verdict and the pages see them: by what was noted, and when."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from backup_admin.control import app_streams, verdict
from backup_admin.control.app_streams import StreamState, StreamView
from backup_admin.control.examination import Health, examine
from backup_admin.control.stored import write_value
from backup_admin.control.verdict import Protection
from tests.installations import START, Host, back_up, make_host, set_up

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.orm import Session

GOOD = StreamState("main", noted_at=START, good_at=START, began_at=START, newest=START)


@pytest.fixture
def bare_host(tmp_path: Path) -> Host:
    """An app whose database is to be streamed."""
    return make_host(tmp_path, BACKUP_ADMIN_STREAMS=["main"])


def risks(session: Session, host: Host) -> list[str]:
    return list(app_streams.risks(session, host.installation))


def note(session: Session, host: Host, state: StreamState) -> None:
    app_streams.write_states(session, host.installation, [state])


def test_a_stream_that_never_ran_is_a_risk(host: Host, session: Session) -> None:
    (risk,) = risks(session, host)

    assert risk.startswith("the changes of main are not streamed: nothing keeps it running")
    assert app_streams.views(session, host.installation)[0].newest is None
    back_up(host)
    found = verdict.judge(session, host.installation)
    assert (found.state, risk in found.details) == (Protection.AT_RISK, True)


def test_one_that_follows_is_none(host: Host, session: Session) -> None:
    note(session, host, GOOD)

    assert risks(session, host) == []
    assert app_streams.views(session, host.installation) == (StreamView("main", "", START, None),)


def test_one_that_is_started_again_at_once_is_none_but_is_within_five_minutes(
    host: Host, session: Session
) -> None:
    def told_after(**parts: float) -> list[str]:
        later = START + timedelta(**parts)
        host.clock.moment = later
        note(session, host, StreamState("main", later, START, START, START, "litestream ended with status 1"))
        return risks(session, host)

    assert told_after(seconds=100) == []
    assert told_after(minutes=4) == [
        "the changes of main are not streamed since 2026-03-10 12:00:00 UTC: litestream ended with status 1."
    ]


def test_one_that_nobody_notes_any_more_is_a_risk_within_five_minutes(host: Host, session: Session) -> None:
    note(session, host, GOOD)
    host.clock.advance(minutes=4)

    assert [risk.partition(": ")[2] for risk in risks(session, host)] == [
        "nothing keeps it running; `flask backup worker` does."
    ]
    topics = {found.topic: found.health for found in examine(session, host.installation)}
    assert topics["stream main"] is Health.FAIL


def test_what_is_in_a_backup_is_told_only_after_one_that_read_the_stream(
    host: Host, session: Session
) -> None:
    note(session, host, GOOD)
    before = app_streams.views(session, host.installation)[0].sealed_to
    back_up(host)
    host.clock.advance(minutes=1)
    began_later = StreamState("main", host.clock.now(), None, began_at=START + timedelta(days=36_500))

    sealed = app_streams.views(session, host.installation)[0].sealed_to
    note(session, host, began_later)
    after = app_streams.views(session, host.installation)[0].sealed_to

    assert before is None
    assert sealed is not None  # by the clock of the machine, which reads the folder
    assert after is None


def test_without_the_setting_nothing_is_said_and_nothing_is_read(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    set_up(host)
    with host.installation.database.new_session() as session:
        assert risks(session, host) == []
        assert app_streams.views(session, host.installation) == ()
    assert app_streams.stream_sources(host.installation) == ()
    assert not (host.installation.settings.state_dir / "streams").exists()


def test_what_another_version_noted_counts_as_not_noted(host: Host, session: Session) -> None:
    for odd in ("text", [1], [{"name": "main"}], [{"name": "main", "noted_at": "soon", "problem": ""}]):
        write_value(session, host.clock, app_streams.STATE_KEY, odd)
        assert app_streams.read_states(session) == {}
