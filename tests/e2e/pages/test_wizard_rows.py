"""One event comes back through the wizard, by keyboard alone and without JavaScript, on either engine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.pages.conftest import serve
from tests.e2e.pages.test_look import problems_of
from tests.e2e.pages.test_wizard import Keyboard, enrol
from tests.services.browser import follow
from tests.services.small_gallery import Database, PostgresDatabase, SqliteDatabase, fill
from tests.unit.web.conftest import ADMIN
from tests.unit.web.forms import post
from tests.unit.web.host import APP_NAME, PREFIX, Host, create_host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from tests.services.browser import ColourScheme, OpenPage

pytestmark = pytest.mark.integration

LOOKS: list[tuple[ColourScheme, int]] = [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)]


class Site:
    """An app with a gallery's database and photos, backed up once."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.database = database
        fill(database)
        if isinstance(database, PostgresDatabase):
            place = database.address
        else:
            assert isinstance(database, SqliteDatabase)
            place = str(database.path)
        self.host: Host = create_host(folder, BACKUP_ADMIN_DATABASES={"shop": place})
        self.photos = folder / "photos"
        (self.photos / "event-2").mkdir()
        for n in range(4):
            (self.photos / "event-2" / f"{n}.jpg").write_bytes(b"photo %d" % n)
        self.host.set_up(ADMIN)
        post(self.host.client(), "/backups")
        self.host.work()
        self.before = database.dump()

    def lose_event(self) -> None:
        """Let somebody delete an event with its photos."""
        self.database.run("DELETE FROM events WHERE id = 2")
        for n in range(3):
            (self.photos / "event-2" / f"{n}.jpg").unlink()


@pytest.fixture(params=["sqlite", "newest_postgres"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    folder = tmp_path / "host"
    folder.mkdir()
    if request.param == "sqlite":
        return Site(folder, SqliteDatabase(tmp_path / "live.db"))
    server = request.getfixturevalue(request.param)
    return Site(folder, PostgresDatabase(server, server.new_database()))


@pytest.mark.parametrize(
    "site", ["sqlite", pytest.param("newest_postgres", marks=pytest.mark.long(minutes=1))], indirect=True
)
def test_one_event_comes_back_by_keyboard_alone(browser_page: OpenPage, site: Site) -> None:
    site.lose_event()
    with serve(site.host) as address:
        page = browser_page(base_url=address)
        page.goto("/sign-in")
        codes = enrol(page)
        keyboard = Keyboard(page)
        page.goto(f"{PREFIX}/restore")
        keyboard.press(".ba-actions button")
        look(page, "type")
        keyboard.reach("input[name=restore_type]")
        for _ in range(4):
            page.keyboard.press("ArrowDown")
        keyboard.press(".ba-actions button")
        assert page.locator("h1").inner_text() == "Which tables or rows?"
        look(page, "rows")
        keyboard.write("textarea[name=rows]", "event:2")
        keyboard.write("textarea[name=linked]", "photos.path=photos")
        keyboard.press(".ba-actions button")
        site.host.work()  # which tables PostgreSQL has only the trial finds out
        page.wait_for_selector("text=table 'event'")
        look(page, "rows-refused")
        keyboard.reach("textarea[name=rows]")
        page.keyboard.press("Control+A")
        page.keyboard.type("events:99")
        keyboard.press(".ba-actions button")
        assert page.locator("h1").inner_text() == "The plan is being made"
        look(page, "planning")
        site.host.work()
        page.wait_for_selector("text=The snapshot has no row of events with the key '99'")
        look(page, "rows-impossible")
        keyboard.reach("textarea[name=rows]")
        page.keyboard.press("Control+A")
        page.keyboard.type("events:2")
        keyboard.press(".ba-actions button")
        assert page.locator("h1").inner_text() == "The plan is being made"
        site.host.work()
        page.wait_for_selector("h1:text('Review and confirm')")  # the page noticed by itself
        look(page, "review")
        keyboard.write("input[name=reason]", "an event is gone")
        keyboard.write("input[name=app_name]", APP_NAME)
        keyboard.write("input[name=code]", codes[0])
        keyboard.press(".ba-btn-danger", "Space")
        assert page.locator("h1").inner_text() == "Restore in progress"
        look(page, "monitor")
        site.host.work()
        page.wait_for_selector("text=The rows are restored")
        look(page, "verify")
        assert site.database.dump() == site.before
        assert site.database.rows("SELECT hero_photo_id FROM events WHERE id = 2") == [(201,)]
        assert (site.photos / "event-2" / "0.jpg").read_bytes() == b"photo 0"
        keyboard.write("input[name=reason]", "it was the wrong one")
        keyboard.write("input[name=code]", codes[1])
        keyboard.press(".ba-btn-danger", "Space")
        assert page.locator("h1").inner_text() == "Undo in progress"
        look(page, "undo")
        site.host.work()
        page.wait_for_selector("text=The restore was undone")
        look(page, "undone")

    assert site.database.rows("SELECT count(*) FROM photos WHERE event_id = 2") == [(0,)]
    assert sorted(path.name for path in (site.photos / "event-2").iterdir()) == ["3.jpg"]
    site.database.run("INSERT INTO event_types (slug, name, emoji) VALUES ('new', 'New', 'x')")
    assert site.database.rows("SELECT max(id) FROM event_types") == [(2,)]


def test_one_event_comes_back_without_javascript_and_over_what_is_live(
    browser_page: OpenPage, site: Site
) -> None:
    site.database.run(
        "UPDATE events SET title = 'changed' WHERE id = 2",
        "DELETE FROM photos WHERE id = 203",
        "UPDATE events SET title = 'mine' WHERE id = 3",
    )
    with serve(site.host) as address:
        page = browser_page(base_url=address, javascript=False, width=360)
        page.goto("/sign-in")
        codes = enrol(page)
        page.goto(f"{PREFIX}/restore")
        page.get_by_role("button", name="Go on to the type").click()
        page.get_by_label("Tables or rows of one database").check()
        page.get_by_role("button", name="Go on to the components").click()
        page.get_by_label("Rows, one on each line").fill("events 2")
        page.get_by_label("Overwrite it").check()
        follow(page.get_by_role("button", name="Review what will change"))
        assert page.get_by_label("Rows, one on each line").input_value() == "events 2"
        assert page.get_by_label("Overwrite it").is_checked()
        picture(page, "rows-wrong")
        page.get_by_label("Rows, one on each line").fill("events:2")
        follow(page.get_by_role("button", name="Review what will change"))
        picture(page, "planning-without-javascript")
        site.host.work()
        follow(page.get_by_role("link", name="Refresh"))
        picture(page, "review-losses")
        page.get_by_label("Reason").fill("it was better before")
        page.get_by_label(f"Type the name of the app: {APP_NAME}").fill(APP_NAME)
        page.get_by_label("Code from your authenticator app").fill(codes[0])
        page.get_by_role("button", name=f"Restore these rows of {APP_NAME}").click()
        site.host.work()
        page.get_by_role("link", name="Refresh").click()
        assert page.locator("h1").inner_text() == "The rows are restored"
        picture(page, "verify-overwritten")

    assert site.database.rows("SELECT title FROM events ORDER BY id") == [
        ("Event 1 ü",),
        ("Event 2 ü",),
        ("mine",),
    ]
    assert site.database.rows("SELECT count(*) FROM photos") == [(12,)]


def test_a_row_whose_key_nobody_knows_is_found_by_its_name(browser_page: OpenPage, site: Site) -> None:
    site.lose_event()
    with serve(site.host) as address:
        page = browser_page(base_url=address)
        page.goto("/sign-in")
        page.goto(f"{PREFIX}/restore")
        keyboard = Keyboard(page)
        keyboard.press(".ba-actions button")
        page.get_by_label("Tables or rows of one database").check()
        page.get_by_role("button", name="Go on to the components").click()
        page.get_by_text("Search the backup for a row").click()
        page.get_by_label("Table to search").select_option(label="events")
        keyboard.write("#ba-look_text", "EVENT 2")
        with page.expect_navigation():
            page.keyboard.press("Enter")
        where = page.evaluate("document.activeElement.id")
        look(page, "found")
        shown = page.locator("#ba-look-found ~ table tbody tr").all_inner_texts()
        keyboard.press("button[name=take]")
        look(page, "taken")

        assert where == "ba-look-found"
        assert len(shown) == 1
        assert "Event 2 ü" in shown[0]
        assert page.evaluate("document.activeElement.value") == "events:2"
        page.get_by_role("button", name="Review what will change").click()
        site.host.work()
        page.wait_for_selector("h1:text('Review and confirm')")
        assert page.get_by_role("rowheader", name="events", exact=True).count() == 1


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize(("key", "lines"), [("10", range(1, 2)), ("7" * 200, range(2, 20))])
def test_a_found_key_breaks_only_when_it_is_long_and_widens_no_page(
    browser_page: OpenPage, tmp_path: Path, width: int, key: str, lines: range
) -> None:
    folder = tmp_path / "host"
    folder.mkdir()
    database = SqliteDatabase(tmp_path / "live.db")
    database.run(
        "CREATE TABLE codes (id TEXT PRIMARY KEY, a TEXT, b TEXT, c TEXT, d TEXT)",
        f"INSERT INTO codes SELECT '{key}', words, words, words, words "
        "FROM (SELECT replace(hex(zeroblob(10)), '00', 'words ') AS words)",
    )
    with serve(Site(folder, database).host) as address:
        page = browser_page(base_url=address, width=width)
        page.goto("/sign-in")
        page.goto(f"{PREFIX}/restore")
        page.get_by_role("button", name="Go on to the type").click()
        page.get_by_label("Tables or rows of one database").check()
        page.get_by_role("button", name="Go on to the components").click()
        page.get_by_text("Search the backup for a row").click()
        page.get_by_label("Table to search").select_option(label="codes")
        follow(page.get_by_role("button", name="Search", exact=True))
        picture(page, f"found-key-of-{len(key)}")
        shown = page.locator("tbody th code")
        box = shown.bounding_box()

        assert shown.inner_text() == key
        assert box is not None
        assert round(box["height"] / 22) in lines
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def look(page: Page, name: str) -> None:
    """Find no barrier in any look of a page; needs JavaScript."""
    found = [problem for _ in each_look(page, name) for problem in problems_of(page)]
    assert found == []


def picture(page: Page, name: str) -> None:
    """Keep pictures of a page where somebody wants to see them."""
    for _ in each_look(page, name):
        pass


def each_look(page: Page, name: str) -> Iterator[None]:
    """Show a page light and dark, on a desk and on a phone."""
    folder, before = os.environ.get("BACKUP_ADMIN_TEST_PICTURES"), page.viewport_size
    assert before is not None
    for scheme, width in LOOKS:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 800})
        if folder:
            page.screenshot(path=Path(folder) / f"rows-{name}-{width}-{scheme}.png", full_page=True)
        yield
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(before)
