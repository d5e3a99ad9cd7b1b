"""The restore wizard in a browser: by keyboard alone, and without JavaScript."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pyotp
import pytest

from tests.services.browser import follow
from tests.unit.web.host import APP_NAME, PREFIX, Host

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.services.browser import OpenPage

pytestmark = pytest.mark.integration


def rows(host: Host) -> int:
    """Count the photos of the app."""
    with closing(sqlite3.connect(host.folder / "gallery.db")) as database:
        return int(database.execute("SELECT count(*) FROM photos").fetchone()[0])


def lose_rows(host: Host) -> None:
    """Let the app lose what the backup has."""
    with closing(sqlite3.connect(host.folder / "gallery.db")) as database, database:
        database.execute("DELETE FROM photos WHERE id > 300")


def enrol(page: Page) -> list[str]:
    """Enrol an authenticator; return the recovery codes."""
    page.goto(f"{PREFIX}/settings/security")
    page.get_by_role("button", name="Enrol an authenticator").click()
    page.get_by_text("Cannot scan?").click()
    secret = page.locator(".ba-qr ~ details code").inner_text()
    page.locator("input[name=code]").fill(pyotp.TOTP(secret).now())
    follow(page.get_by_role("button", name="Turn it on"))
    return page.locator(".ba-codes li").all_inner_texts()


class Keyboard:
    """Somebody who has no mouse."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def reach(self, selector: str) -> None:
        """Press Tab until the element has the focus; it must be visible then."""
        for _ in range(80):
            self.page.keyboard.press("Tab")
            if self.page.evaluate("s => document.activeElement.matches(s)", selector):
                outline = "getComputedStyle(document.activeElement).outlineStyle"
                assert self.page.evaluate(outline) == "solid", selector
                return
        raise AssertionError(f"{selector} cannot be reached by keyboard on {self.page.url}")

    def write(self, selector: str, text: str) -> None:
        """Reach a field and write into it."""
        self.reach(selector)
        self.page.keyboard.type(text)

    def press(self, selector: str, key: str = "Enter") -> None:
        """Reach something and press a key on it, and wait for the page it leads to."""
        self.reach(selector)
        with self.page.expect_navigation():
            self.page.keyboard.press(key)


def test_the_wizard_by_keyboard_alone(browser_page: OpenPage, host: Host, address: str) -> None:
    page = browser_page(base_url=address)
    page.goto("/sign-in")
    page.goto(f"{PREFIX}/")
    keyboard = Keyboard(page)
    keyboard.press("form[action$='/backups'] button")
    host.work()
    page.wait_for_selector("text=Read back from the storage")  # the page noticed by itself
    lose_rows(host)
    codes = enrol(page)

    page.goto(f"{PREFIX}/restore")
    keyboard.press(".ba-actions button")
    keyboard.press(".ba-actions button")
    keyboard.press(".ba-actions button")
    assert page.locator("h1").inner_text() == "The plan is being made"
    host.work()
    page.wait_for_selector("h1:text('Review and confirm')")  # the page noticed by itself
    keyboard.write("input[name=reason]", "rows are gone")
    keyboard.write("input[name=app_name]", APP_NAME)
    keyboard.write("input[name=code]", codes[0])
    keyboard.press(".ba-btn-danger", "Space")
    assert page.locator("h1").inner_text() == "Restore in progress"
    host.work()

    page.wait_for_selector("text=The restore is done and checked")
    assert page.url.endswith("/verify")
    assert rows(host) == 340


def test_the_wizard_without_javascript(browser_page: OpenPage, host: Host, address: str) -> None:
    page = browser_page(base_url=address, javascript=False, width=360)
    page.goto("/sign-in")
    page.goto(f"{PREFIX}/")
    page.get_by_role("button", name="Back up now").click()
    host.work()
    follow(page.get_by_role("link", name="Refresh"))
    assert page.get_by_text("Read back from the storage").count() == 1
    lose_rows(host)
    codes = enrol(page)

    page.goto(f"{PREFIX}/restore")
    page.get_by_role("button", name="Go on to the type").click()
    page.get_by_role("button", name="Go on to the components").click()
    page.get_by_role("button", name="Review what will change").click()
    host.work()
    page.get_by_role("link", name="Refresh").click()
    page.get_by_label("Reason").fill("rows are gone")
    page.get_by_label(f"Type the name of the app: {APP_NAME}").fill(APP_NAME)
    page.get_by_label("Code from your authenticator app").fill(codes[0])
    page.get_by_role("button", name=f"Restore everything of {APP_NAME}").click()
    host.work()
    page.get_by_role("link", name="Refresh").click()

    assert page.locator("h1").inner_text() == "The restore is done and checked"
    assert rows(host) == 340


def test_polling_ends_with_the_work(browser_page: OpenPage, host: Host, address: str) -> None:
    page = browser_page(base_url=address)
    page.goto("/sign-in")
    page.goto(f"{PREFIX}/")
    page.get_by_role("button", name="Back up now").click()
    host.work()
    page.wait_for_selector("text=Read back from the storage")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    page.wait_for_timeout(6_000)

    assert asked == []


def test_the_skip_link_leads_past_the_navigation(browser_page: OpenPage, address: str) -> None:
    page = browser_page(base_url=address)
    page.goto("/sign-in")
    page.goto(f"{PREFIX}/backups")

    page.keyboard.press("Tab")

    assert page.evaluate("document.activeElement.textContent") == "Skip to content"


def test_no_page_breaks_its_own_policy(browser_page: OpenPage, address: str) -> None:
    page = browser_page(base_url=address)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto("/sign-in")

    for path in ("/", "/backups", "/settings/security", "/restore", "/audit"):
        page.goto(PREFIX + path)

    assert [text for text in said if "Content Security Policy" in text] == []
