"""The app without a host: sign-in, its limits, and the first administrator."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from backup_admin import jobs
from backup_admin.access.permissions import Role
from backup_admin.core.errors import UsageError
from backup_admin.records.upgrade import upgrade
from backup_admin.repository.secrets import generate_application_key
from backup_admin.web import accounts
from backup_admin.web.standalone import create_app
from tests.unit.web.host import PREFIX

if TYPE_CHECKING:
    from pathlib import Path

    from flask import Flask
    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

_TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')
PASSWORD = "correct horse battery"


def configuration(folder: Path) -> dict[str, object]:
    return {
        "BACKUP_ADMIN_APP_NAME": "Gallery",
        "BACKUP_ADMIN_STATE_DIR": str(folder / "state"),
        "BACKUP_ADMIN_STORAGE": str(folder / "backups"),
        "BACKUP_ADMIN_KEY": generate_application_key().reveal(),
        "SESSION_COOKIE_SECURE": False,
    }


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    """The standalone app, with its tables and nobody in them."""
    app = create_app(configuration(tmp_path))
    upgrade(jobs.installation_of(app).database)
    return app


@pytest.fixture
def admin(app: Flask) -> Flask:
    """The same with an administrator."""
    with app.app_context():
        installation = jobs.installation_of(app)
        accounts.create_user(installation.database.session(), installation, "anna", PASSWORD, Role.ADMIN)
    return app


def send(client: FlaskClient, path: str, **fields: str) -> TestResponse:
    """Open a page and send its form."""
    found = _TOKEN.search(client.get(path).text)
    return client.post(path, data={"csrf_token": found[1] if found else "", **fields})


def sign_in(client: FlaskClient, password: str = PASSWORD, **more: str) -> TestResponse:
    return send(client, "/sign-in", **{"name": "anna", "password": password, **more})


def test_pages_lead_to_the_sign_in_and_back(admin: Flask) -> None:
    client = admin.test_client()

    asked = client.get(f"{PREFIX}/backups?status=failed")
    answer = sign_in(client, next=f"{PREFIX}/backups?status=failed")

    assert asked.location == "/sign-in?next=/backup-admin/backups?status%3Dfailed"
    assert answer.location == f"{PREFIX}/backups?status=failed"
    assert client.get(f"{PREFIX}/").status_code == 200


@pytest.mark.parametrize("name", ["anna", "nobody"])
def test_unknown_names_and_wrong_passwords_get_the_same_answer(admin: Flask, name: str) -> None:
    answer = sign_in(admin.test_client(), "wrong password", name=name)

    assert answer.status_code == 422
    assert "Name or password is not right." in answer.text


def test_tries_are_limited_also_for_the_right_password(admin: Flask) -> None:
    client = admin.test_client()
    for _ in range(5):
        sign_in(client, "wrong password")

    answer = sign_in(client)

    assert answer.status_code == 422
    assert "Too many tries" in answer.text


@pytest.mark.parametrize("back", ["//evil.example", "https://evil.example", "/\\evil.example"])
def test_nobody_is_led_to_another_site(admin: Flask, back: str) -> None:
    assert sign_in(admin.test_client(), next=back).location == f"{PREFIX}/"


def test_nothing_of_the_session_before_the_sign_in_counts(admin: Flask) -> None:
    client = admin.test_client()
    with client.session_transaction() as data:
        data["planted"] = "yes"

    sign_in(client)

    with client.session_transaction() as data:
        assert "planted" not in data


def test_signing_out_ends_the_session(admin: Flask) -> None:
    client = admin.test_client()
    sign_in(client)
    token = _TOKEN.search(client.get(f"{PREFIX}/").text)
    assert token is not None

    client.post("/sign-out", data={"csrf_token": token[1]})

    assert client.get(f"{PREFIX}/").status_code == 302


def test_ending_the_logins_of_a_person_works_in_every_browser(admin: Flask) -> None:
    client = admin.test_client()
    sign_in(client)

    with admin.app_context():
        accounts.end_logins(jobs.installation_of(admin).database.session(), 1)

    assert client.get(f"{PREFIX}/").status_code == 302


@pytest.mark.parametrize(
    ("idle", "age", "fresh"),
    [
        (timedelta(minutes=29), timedelta(hours=11), True),
        (timedelta(minutes=31), timedelta(hours=1), False),
        (timedelta(minutes=1), timedelta(hours=13), False),
    ],
)
def test_logins_end_when_idle_or_old(admin: Flask, idle: timedelta, age: timedelta, fresh: bool) -> None:
    now = jobs.installation_of(admin).clock.now()

    assert accounts.is_fresh(now - age, now - idle, now) is fresh


def test_the_first_administrator_needs_the_token_from_the_log(
    app: Flask, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        again = create_app(dict(app.config))
    token = caplog.text.split("enter the token ")[1].split()[0]
    client = again.test_client()

    refused = send(client, "/first-admin", token="guess", name="anna", password=PASSWORD)
    made = send(client, "/first-admin", token=token, name="anna", password=PASSWORD)

    assert refused.status_code == 422
    assert made.location == "/sign-in"
    assert sign_in(client).location == f"{PREFIX}/"


def test_the_token_is_of_no_use_once_there_is_an_administrator(admin: Flask) -> None:
    assert admin.test_client().get("/first-admin").status_code == 404


def test_short_passwords_are_refused(app: Flask) -> None:
    client = app.test_client()
    with app.app_context():
        installation = jobs.installation_of(app)
        with pytest.raises(UsageError, match="at least 12 characters"):
            accounts.create_user(installation.database.session(), installation, "anna", "short", Role.ADMIN)

    assert client.get("/sign-in").location == "/first-admin"


def test_the_command_creates_an_administrator(app: Flask) -> None:
    result = app.test_cli_runner().invoke(
        args=["user", "create-admin", "anna"], input=f"{PASSWORD}\n{PASSWORD}\n"
    )

    assert result.exit_code == 0, result.output
    assert sign_in(app.test_client()).location == f"{PREFIX}/"


def test_the_key_of_the_sessions_is_kept_in_the_state_folder(app: Flask, tmp_path: Path) -> None:
    key = tmp_path / "state" / "session.key"

    assert key.stat().st_mode & 0o777 == 0o600
    assert create_app(dict(app.config) | {"SECRET_KEY": None}).secret_key == key.read_text()


def test_sign_ins_are_audited(admin: Flask) -> None:
    client = admin.test_client()
    sign_in(client, "wrong password")
    sign_in(client)

    with admin.app_context():
        entries = jobs.installation_of(admin).audit().read_page()
    assert [(entry.action, entry.outcome.value) for entry in entries] == [
        ("sign_in", "done"),
        ("sign_in", "denied"),
    ]


def test_the_sign_in_page_carries_our_headers(admin: Flask) -> None:
    answer = admin.test_client().get("/sign-in")

    assert answer.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
