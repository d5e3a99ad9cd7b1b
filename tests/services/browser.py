"""Headless Chromium from the system, driven by Playwright."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from tests.services.report import announce, missing

if TYPE_CHECKING:
    from collections.abc import Iterator

ColourScheme: TypeAlias = Literal["light", "dark"]
ADVICE = "apt install chromium-headless-shell"
PROGRAMS = ("chromium-headless-shell", "chromium")
ARGUMENTS = (
    "--no-sandbox",  # its sandbox refuses root, and CI is root
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
)


def follow(target: Locator) -> None:
    """Click what leads to another page, and wait until that page is there as a whole.

    A click alone returns when the next page has begun, and may find nothing on it yet.
    """
    with target.page.expect_navigation():
        target.click()


class OpenPage(Protocol):
    """Open a page in a context of its own: no cookie of another page is in it."""

    def __call__(
        self,
        *,
        width: int = 1280,
        height: int = 800,
        colour_scheme: ColourScheme = "light",
        javascript: bool = True,
        base_url: str | None = None,
    ) -> Page: ...


@pytest.fixture(scope="session")
def chromium(pytestconfig: pytest.Config) -> Iterator[Browser]:
    """One browser for the session; take `browser_page` to open pages in it."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        missing(pytestconfig, "browser", ADVICE)
    began = time.monotonic()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        took = time.monotonic() - began
        announce(pytestconfig, "browser", browser.version, program, took)
        yield browser
        browser.close()


@pytest.fixture
def browser_page(chromium: Browser) -> Iterator[OpenPage]:
    """Open pages with a size, a colour scheme, with or without JavaScript."""
    contexts = []

    def open_page(
        *,
        width: int = 1280,
        height: int = 800,
        colour_scheme: ColourScheme = "light",
        javascript: bool = True,
        base_url: str | None = None,
    ) -> Page:
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme=colour_scheme,
            java_script_enabled=javascript,
            base_url=base_url,
        )
        contexts.append(context)
        return context.new_page()

    yield open_page
    for context in contexts:
        context.close()
