"""Use the pages as a browser without JavaScript does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.unit.web.host import PREFIX

if TYPE_CHECKING:
    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

_TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')


def get(client: FlaskClient, path: str = "/") -> TestResponse:
    """Open one of our pages."""
    return client.get(PREFIX + path)


def token(client: FlaskClient) -> str:
    """Return the token that our forms carry."""
    found = _TOKEN.search(get(client, "/backups/none").text)
    assert found is not None
    return found[1]


def post(client: FlaskClient, path: str, **fields: Any) -> TestResponse:
    """Send one of our forms."""
    return client.post(PREFIX + path, data={"csrf_token": token(client), **fields})


def follow(client: FlaskClient, response: TestResponse) -> TestResponse:
    """Go where an answer leads."""
    assert response.status_code in (302, 303), response.text
    return client.get(str(response.location))


def title(response: TestResponse) -> str:
    """Return the one heading of a page, without its markup."""
    found = re.findall(r"<h1[^>]*>(.*?)</h1>", response.text, re.DOTALL)
    assert len(found) == 1, found
    return " ".join(re.sub(r"<[^>]+>", "", found[0]).split())
