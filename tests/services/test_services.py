"""The services the other tests build on are real and do what their fixtures say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from examples.services.valkey import start_valkey

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.browser import ColourScheme, OpenPage

PAGE = """<p id=who>static</p>
<script>document.getElementById("who").textContent = "script"</script>"""

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("server", ["valkey", "redis_server"])
def test_server_keeps_what_it_is_given(server: str, request: pytest.FixtureRequest) -> None:
    with redis.Redis.from_url(request.getfixturevalue(server)) as client:
        client.set("house:key", "value")

        assert client.get("house:key") == b"value"


def test_persistent_server_remembers_after_a_restart(tmp_path: Path) -> None:
    server = start_valkey(tmp_path, persistent=True)
    with redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
    server.stop()

    again = start_valkey(tmp_path, persistent=True)

    with redis.Redis.from_url(again.url) as client:
        assert client.get("key") == b"value"
    again.stop()


def test_second_start_in_one_folder_uses_the_running_server(tmp_path: Path) -> None:
    server = start_valkey(tmp_path, persistent=True)

    second = start_valkey(tmp_path, persistent=True)
    second.stop()

    assert (second.process, second.url) == (None, server.url)
    with redis.Redis.from_url(server.url) as client:
        assert client.ping()
    server.stop()


@pytest.mark.parametrize(("javascript", "expected"), [(True, "script"), (False, "static")])
def test_browser_page_runs_scripts_only_when_asked(
    browser_page: OpenPage, *, javascript: bool, expected: str
) -> None:
    page = browser_page(javascript=javascript)

    page.set_content(PAGE)

    assert page.locator("#who").text_content() == expected


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_browser_page_has_the_wanted_size_and_scheme(browser_page: OpenPage, scheme: ColourScheme) -> None:
    page = browser_page(width=360, height=640, colour_scheme=scheme)
    dark = "matchMedia('(prefers-color-scheme: dark)').matches"

    assert page.evaluate(f"[innerWidth, {dark}]") == [360, scheme == "dark"]
