"""Every page, light and dark, on a desk and on a phone: no barrier, no sideways scroll."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # publishes none

from backup_admin.records import BackupRun, RestoreStatus, RunStatus
from tests.e2e.pages.conftest import session_of
from tests.services.browser import follow
from tests.unit.web import seeds
from tests.unit.web.host import PREFIX, Host

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.services.browser import ColourScheme, OpenPage

pytestmark = pytest.mark.integration

VARIANTS = [
    ("light", 1280),
    pytest.param("dark", 1280, marks=pytest.mark.long),
    pytest.param("light", 360, marks=pytest.mark.long),
    ("dark", 360),
]
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]}
FRESH = (
    "/",
    "/backups",
    "/setup",
    "/restore",
    "/settings/schedule",
    "/settings/storage",
    "/settings/mirrors",
)
BUSY = (
    "/",
    "/backups",
    "/backups?status=skipped",
    "/backups/none",
    "/setup",
    "/settings/sources",
    "/settings/storage",
    "/settings/mirrors",
    "/settings/schedule",
    "/settings/schedule/1",
    "/settings/schedule/new",
    "/settings/security",
    "/restore",
    "/restore?at=3d",
    "/restore?at=soon",
    "/audit",
)


def problems_of(page: Page) -> list[str]:
    """Return what axe finds, and whether the page is wider than its window."""
    found = [
        f"{page.url}: {violation['id']}: {node['html'][:120]}"
        for violation in Axe().run(page, options=RULES).response["violations"]
        for node in violation["nodes"]
    ]
    if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
        found.append(f"{page.url}: scrolls sideways")
    return found


def open_signed_in(browser_page: OpenPage, address: str, scheme: ColourScheme, width: int) -> Page:
    page = browser_page(width=width, colour_scheme=scheme, base_url=address)
    page.goto("/sign-in")
    return page


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_pages_of_an_app_without_set_up(
    browser_page: OpenPage, fresh_address: str, scheme: ColourScheme, width: int
) -> None:
    page = open_signed_in(browser_page, fresh_address, scheme, width)
    found = []

    for path in FRESH:
        page.goto(PREFIX + path)
        found += problems_of(page)

    assert found == []


@pytest.mark.parametrize(("scheme", "width"), VARIANTS)
def test_pages_of_an_app_with_a_past(
    browser_page: OpenPage, busy_address: str, scheme: ColourScheme, width: int
) -> None:
    page = open_signed_in(browser_page, busy_address, scheme, width)
    found = []

    for path in BUSY:
        page.goto(PREFIX + path)
        found += problems_of(page)

    assert found == []


@pytest.mark.parametrize(("scheme", "width"), [("dark", 1280), ("light", 360)])
def test_a_run_and_a_restore_in_each_state(
    browser_page: OpenPage, busy_host: Host, busy_address: str, scheme: ColourScheme, width: int
) -> None:
    paths = [f"/backups/{run_id}" for run_id in _runs(busy_host)]
    paths += [f"/restore/{operation_id}/verify" for operation_id in _restores(busy_host)]
    page = open_signed_in(browser_page, busy_address, scheme, width)
    found = []

    for path in paths:
        page.goto(PREFIX + path)
        found += problems_of(page)

    assert len(paths) >= 9
    assert found == []


def test_the_servers_lead_to_their_base_backups_by_keyboard(
    browser_page: OpenPage, busy_address: str
) -> None:
    page = open_signed_in(browser_page, busy_address, "light", 1280)
    page.goto(f"{PREFIX}/settings/sources")
    take_picture(page, "sources")

    link = page.get_by_role("link", name=re.compile("the last base backup of main"))
    for _ in range(40):
        page.keyboard.press("Tab")
        if link.evaluate("e => e === document.activeElement"):
            break
    with page.expect_navigation():
        page.keyboard.press("Enter")
    take_picture(page, "base-backup")
    good = problems_of(page)
    command = page.get_by_text("backup-admin cluster restore main s3://my-backups/main --at TIME").count()
    page.go_back()
    follow(page.get_by_role("link", name=re.compile("the last base backup of reports")))

    assert page.get_by_text("pg_basebackup ended with 1.").count() >= 1
    assert (good, problems_of(page), command) == ([], [], 1)


def take_picture(page: Page, name: str) -> None:
    folder = os.environ.get("BACKUP_ADMIN_TEST_PICTURES")
    if folder:
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def test_the_theme_can_be_chosen(browser_page: OpenPage, busy_address: str) -> None:
    page = open_signed_in(browser_page, busy_address, "light", 1280)
    page.goto(f"{PREFIX}/")

    with page.expect_navigation():
        page.get_by_role("button", name="Dark theme").click()

    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 20, 27)"
    assert problems_of(page) == []


def test_nothing_moves_for_people_who_asked_for_it(
    browser_page: OpenPage, busy_host: Host, busy_address: str
) -> None:
    page = open_signed_in(browser_page, busy_address, "light", 1280)
    page.emulate_media(reduced_motion="reduce")

    page.goto(f"{PREFIX}/backups")

    names = "[...document.querySelectorAll('*')].map(e => getComputedStyle(e).animationName)"
    assert set(page.evaluate(names)) == {"none"}


def test_targets_are_large_enough_for_fingers(browser_page: OpenPage, busy_address: str) -> None:
    page = open_signed_in(browser_page, busy_address, "light", 360)
    kinds = "button, nav a, .ba-btn, summary, select, input:not([type=hidden])"
    small = """kinds => [...document.querySelectorAll(kinds)]
        .map(e => (e.closest('label') || e).getBoundingClientRect())
        .filter(r => r.width > 0 && r.height < 43.5).length"""

    for path in BUSY:
        page.goto(PREFIX + path)
        assert page.evaluate(small, kinds) == 0, path


def _runs(host: Host) -> list[str]:
    with host.app.app_context():
        by_status = {run.status: run.id for run in session_of(host).query(BackupRun)}
    assert RunStatus.FAILED in by_status
    return list(by_status.values())


def _restores(host: Host) -> list[str]:
    ended = (RestoreStatus.RESTORED, RestoreStatus.ROLLED_BACK, RestoreStatus.NEEDS_ATTENTION)
    with host.app.app_context():
        session, now = session_of(host), host.installation.clock.now()
        made = [seeds.add_restore(session, now, status).id for status in ended]
        session.commit()
    return made
