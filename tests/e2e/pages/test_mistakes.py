"""A form that failed, in a browser: what is wrong has the focus, in sight, and leads to the field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.pages.test_look import problems_of, take_picture
from tests.e2e.pages.test_wizard import Keyboard, enrol
from tests.services.browser import follow
from tests.unit.web.forms import post
from tests.unit.web.host import PREFIX, Host

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.services.browser import ColourScheme, OpenPage

pytestmark = pytest.mark.integration

IN_SIGHT = "e => { const b = e.getBoundingClientRect(); return b.top >= 0 && b.top < innerHeight / 2; }"
FOCUS = "document.activeElement.id"


def to_review(page: Page, host: Host) -> list[str]:
    """Go to the review of a restore of everything; return the recovery codes."""
    post(host.client(), "/backups")
    host.work()
    page.goto("/sign-in")
    codes = enrol(page)
    page.goto(f"{PREFIX}/restore")
    for _ in range(3):
        page.locator(".ba-actions button").first.click()
    host.work()
    follow(page.get_by_role("link", name="Refresh"))
    return codes


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 400), ("dark", 400)]
)
def test_a_wrong_name_is_in_sight_at_once(
    browser_page: OpenPage, host: Host, address: str, scheme: ColourScheme, width: int
) -> None:
    page = browser_page(base_url=address, width=width, colour_scheme=scheme)
    codes = to_review(page, host)
    keyboard = Keyboard(page)
    keyboard.write("input[name=reason]", "rows are gone")
    keyboard.write("input[name=app_name]", "another")
    keyboard.write("input[name=code]", codes[0])
    keyboard.press(".ba-btn-danger", "Space")

    page.wait_for_function(f"{FOCUS} !== 'ba-root'")  # what asks for the focus gets it with the next frame
    focus, seen = page.evaluate(FOCUS), page.locator("#ba-wrong").evaluate(IN_SIGHT)
    title, problems = page.title(), problems_of(page)
    take_picture(page, f"mistakes-{scheme}-{width}")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    assert (focus, seen, problems) == ("ba-wrong", True, [])
    assert title.startswith("Error: ")
    assert page.evaluate(FOCUS) == "ba-app_name"
    assert page.locator("#ba-app_name").evaluate("e => e.getBoundingClientRect().bottom <= innerHeight")
    assert page.locator("#ba-app_name-error").inner_text() == "This is not the name of the app."


def test_without_javascript_a_wrong_code_has_the_focus_too(
    browser_page: OpenPage, host: Host, address: str
) -> None:
    page = browser_page(base_url=address, width=400, javascript=False)
    to_review(page, host)
    page.get_by_label("Reason").fill("rows are gone")
    page.locator("input[name=app_name]").fill("Gallery")
    page.locator("input[name=code]").fill("000000")
    page.locator(".ba-btn-danger").click()

    page.wait_for_selector("#ba-wrong:focus")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("#ba-code:focus").count() == 1
