"""A change is made only when one of our own pages asked for it."""

from __future__ import annotations

import pytest
from flask_wtf import CSRFProtect

from tests.unit.web.forms import get, post, token
from tests.unit.web.host import PREFIX, Host


def test_a_change_without_token_is_refused(ready: Host) -> None:
    answer = ready.client().post(f"{PREFIX}/backups")

    assert answer.status_code == 400
    assert "The form has expired" in answer.text
    assert ready.queue.waiting == []


def test_a_token_of_another_session_is_refused(ready: Host) -> None:
    foreign = token(ready.client())

    answer = ready.client().post(f"{PREFIX}/backups", data={"csrf_token": foreign})

    assert answer.status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_change_from_another_site_is_refused_even_with_the_token(
    ready: Host, headers: dict[str, str]
) -> None:
    client = ready.client()

    answer = client.post(f"{PREFIX}/backups", data={"csrf_token": token(client)}, headers=headers)

    assert answer.status_code == 400
    assert ready.queue.waiting == []


def test_our_own_form_is_accepted(ready: Host) -> None:
    answer = post(ready.client(), "/backups")

    assert answer.status_code == 303
    assert len(ready.queue.waiting) == 1


def test_htmx_headers_prove_nothing(ready: Host) -> None:
    answer = ready.client().post(f"{PREFIX}/backups", headers={"HX-Request": "true"})

    assert answer.status_code == 400


def test_forms_of_the_host_are_left_alone(ready: Host) -> None:
    answer = ready.client().post("/form", data={"value": "mine"})

    assert answer.text == "Got mine"
    assert "Content-Security-Policy" not in answer.headers


def test_reading_every_page_changes_nothing(month: Host) -> None:
    client = month.client()
    with month.app.app_context():
        before = month.installation.audit().verify().entries

    for path in ("/", "/backups", "/setup", "/settings/sources", "/settings/storage", "/audit", "/restore"):
        assert get(client, path).status_code == 200

    with month.app.app_context():
        assert month.installation.audit().verify().entries == before
    assert month.queue.waiting == []


def test_our_forms_pass_the_protection_of_a_host_too(ready: Host) -> None:
    CSRFProtect(ready.app)
    client = ready.client()

    assert post(client, "/backups").status_code == 303
    assert client.post("/form", data={"value": "forged"}).status_code == 400
