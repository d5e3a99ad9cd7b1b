"""What a form says when it failed: first on the page, with a way to each field."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.unit.web.forms import get, post
from tests.unit.web.test_restore_pages import backed_up, enrol, plan

if TYPE_CHECKING:
    from werkzeug.test import TestResponse

    from tests.unit.web.host import Host

__all__ = ["backed_up"]

_FORMS: list[tuple[str, dict[str, str], list[str]]] = [
    ("/settings/schedule/new", {"name": "", "cron": "0 1 * * *", "timezone": "UTC"}, ["ba-name"]),
    ("/settings/schedule/new", {"name": "n", "cron": "soon", "timezone": "UTC"}, ["ba-cron"]),
    ("/settings/schedule/new", {"name": "n", "cron": "0 1 * * *", "timezone": "Mars"}, ["ba-timezone"]),
    ("/settings/mirrors", {"mirrors": "/x", "code": "000000"}, ["ba-code"]),
    ("/settings/security/factor", {"code": "000000"}, ["ba-code"]),
]


def mistakes(answer: TestResponse) -> list[str]:
    """Return the fields to which the page leads; each is there, marked, and described by what is wrong."""
    page = answer.text
    assert answer.status_code == 422
    assert "<title>Error: " in page
    found = re.findall(r'<section[^>]* id="ba-wrong" tabindex="-1" autofocus .*?</section>', page, re.DOTALL)
    assert len(found) == 1
    assert page.count(" autofocus") == 1
    assert page.index('id="ba-wrong"') < page.index("<h1")
    fields = re.findall(r'<a href="#([^"]+)">', found[0])
    for field in fields:
        tag = re.search(rf'<(?:input|textarea|select)\b[^>]* id="{field}"[^>]*>', page)
        assert tag is not None, field
        assert 'aria-invalid="true"' in tag[0], field
        described = re.search(r'aria-describedby="([^"]*)"', tag[0])
        assert described is not None, field
        assert all(f'id="{one}"' in page for one in described[1].split()), described[1]
        assert described[1].split()[-1].endswith("-error")
    return fields


def test_a_confirmation_that_fails_leads_to_each_wrong_field(backed_up: Host) -> None:
    client = backed_up.client()
    enrol(client)
    path = plan(client)
    digest = re.search(r'name="digest" value="([0-9a-f]{64})"', get(client, f"{path}/review").text)
    assert digest is not None

    nothing = post(client, f"{path}/review", digest=digest[1])
    wrong = post(client, f"{path}/review", digest=digest[1], reason="r", app_name="Gallery", code="000000")

    assert mistakes(nothing) == ["ba-reason", "ba-app_name", "ba-code"]
    assert mistakes(wrong) == ["ba-code"]


def test_a_review_without_a_mistake_says_none(backed_up: Host) -> None:
    client = backed_up.client()

    page = get(client, f"{plan(client)}/review").text

    assert 'id="ba-wrong"' not in page
    assert "<title>Restore" in page


@pytest.mark.parametrize(("step", "field"), [("type", "ba-type"), ("components", "ba-part")])
def test_a_choice_that_was_not_made_leads_to_the_first_to_choose(
    backed_up: Host, step: str, field: str
) -> None:
    client = backed_up.client()
    path = plan(client)
    post(client, f"{path}/type", restore_type="partial")

    assert mistakes(post(client, f"{path}/{step}")) == [field]


@pytest.mark.parametrize(("path", "fields", "wrong"), _FORMS)
def test_every_form_leads_to_what_is_wrong(
    ready: Host, path: str, fields: dict[str, str], wrong: list[str]
) -> None:
    client = ready.client()
    enrol(client)

    assert mistakes(post(client, path, **fields)) == wrong
