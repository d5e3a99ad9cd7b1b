"""The restore wizard in a browser, for an app whose database lies on a PostgreSQL server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from backup_admin import jobs
from backup_admin.core.errors import SourceError
from tests.e2e.cli.test_postgres_server_lost import running_mortal
from tests.e2e.pages.conftest import serve
from tests.e2e.pages.test_look import problems_of
from tests.e2e.pages.test_wizard import enrol
from tests.services.browser import follow
from tests.services.postgres import OWNER
from tests.services.postgres_oracle import GALLERY, dump_text
from tests.unit.web.conftest import ADMIN
from tests.unit.web.host import APP_NAME, PREFIX, create_host

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.services.browser import OpenPage
    from tests.services.postgres import PostgresServer
    from tests.unit.web.host import Host

pytestmark = pytest.mark.integration


def test_a_database_on_a_server_is_restored_and_undone(
    browser_page: OpenPage, newest_postgres: PostgresServer, tmp_path: Path
) -> None:
    server, name = newest_postgres, newest_postgres.new_database()
    with psycopg.connect(server.address(name), autocommit=True) as connection:
        connection.execute(GALLERY.encode())
    before = dump_text(server, name)
    host = create_host(tmp_path, BACKUP_ADMIN_DATABASES={"shop": server.address(name)})
    host.set_up(ADMIN)
    with serve(host) as address:
        page = browser_page(base_url=address)
        page.goto("/sign-in")
        page.goto(f"{PREFIX}/settings/sources")
        show(page, "sources")
        assert page.get_by_text(f"127.0.0.1:{server.port}/{name}").count() == 1
        page.goto(f"{PREFIX}/")
        page.get_by_role("button", name="Back up now").click()
        host.work()
        page.wait_for_selector("text=Read back from the storage")
        show(page, "backup")
        server.run("TRUNCATE photos, events CASCADE;\nCREATE TABLE newer (id int)", name, user=OWNER)
        harmed = dump_text(server, name)
        codes = enrol(page)

        page.goto(f"{PREFIX}/restore")
        page.get_by_role("button", name="Go on to the type").click()
        page.get_by_role("button", name="Go on to the components").click()
        page.get_by_role("button", name="Review what will change").click()
        host.work()
        page.wait_for_selector("h1:text('Review and confirm')")
        show(page, "review")
        assert page.get_by_text("then takes its name").count() == 1
        page.get_by_label("Reason").fill("rows are gone")
        page.get_by_label(f"Type the name of the app: {APP_NAME}").fill(APP_NAME)
        page.get_by_label("Code from your authenticator app").fill(codes[0])
        page.get_by_role("button", name=f"Restore everything of {APP_NAME}").click()
        host.work()
        page.wait_for_selector("text=The restore is done and checked")
        show(page, "verify")
        assert dump_text(server, name) == before

        page.get_by_label("Reason").fill("it was the wrong one")
        page.get_by_label("Code from your authenticator app").fill(codes[1])
        page.get_by_role("button", name="Undo this restore").click()
        host.work()
        page.wait_for_selector("text=The restore was undone")
        assert dump_text(server, name) == harmed


def show(page: Page, name: str) -> None:
    """Keep a picture where somebody wants to look at it."""
    folder = os.environ.get("BACKUP_ADMIN_TEST_PICTURES")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


LONG_NAME = "customers_of_the_shop_in_europe_with_a_name_as_long_as_can_be"


@pytest.mark.parametrize("width", [360, pytest.param(1280, marks=pytest.mark.long)])
def test_long_names_and_a_server_that_is_away_are_told_on_pages_of_every_width(
    browser_page: OpenPage, pytestconfig: pytest.Config, tmp_path: Path, width: int
) -> None:
    with running_mortal(pytestconfig) as mortal:
        server = mortal.server
        server.run(f"CREATE DATABASE {LONG_NAME} OWNER {OWNER}")
        with psycopg.connect(server.address(LONG_NAME), autocommit=True) as connection:
            connection.execute(GALLERY.encode())
            connection.execute(f"CREATE TABLE {LONG_NAME} AS SELECT 1 AS id".encode())
        host = create_host(tmp_path, BACKUP_ADMIN_DATABASES={"shop": server.address(LONG_NAME)})
        host.set_up(ADMIN)
        with serve(host) as address:
            page = browser_page(base_url=address, width=width)
            page.goto("/sign-in")
            page.goto(f"{PREFIX}/")
            page.get_by_role("button", name="Back up now").click()
            host.work()
            page.wait_for_selector("text=Read back from the storage")
            server.run("TRUNCATE photos, events CASCADE", LONG_NAME, user=OWNER)
            codes = enrol(page)
            mortal.kill()
            page.goto(f"{PREFIX}/settings/sources")
            look(page, f"sources-away-{width}")
            plan_all(host, page, width, "away-")
            look(page, f"review-away-{width}")
            assert page.get_by_text("Nothing listens there").count() >= 1
            assert page.get_by_role("button", name=f"Restore everything of {APP_NAME}").count() == 0

            mortal.start()
            plan_all(host, page, width, "")
            look(page, f"review-{width}")
            page.get_by_label("Reason").fill("rows are gone")
            page.get_by_label(f"Type the name of the app: {APP_NAME}").fill(APP_NAME)
            page.get_by_label("Code from your authenticator app").fill(codes[0])
            page.get_by_role("button", name=f"Restore everything of {APP_NAME}").click()

            def lose(_: object) -> None:
                mortal.kill()
                raise SourceError("The server does not answer.")

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("backup_admin.operations.restore._Restore._check", lose)
                host.work()
            page.wait_for_selector("text=The restore waits for its database server")
            look(page, f"waits-{width}")
            here = page.url
            mortal.start()
            with host.app.app_context():
                jobs.tick_once(host.installation)
            page.goto(here)
            look(page, f"taken-back-{width}")
            assert page.get_by_text("is kept as").count() >= 1


def plan_all(host: Host, page: Page, width: int, which: str) -> None:
    """Walk from the choice of a backup to the review, and look at each page."""
    page.goto(f"{PREFIX}/restore")
    look(page, f"select-{which}{width}")
    follow(page.get_by_role("button", name="Go on to the type"))
    look(page, f"type-{which}{width}")
    follow(page.get_by_role("button", name="Go on to the components"))
    look(page, f"components-{which}{width}")
    page.get_by_role("button", name="Review what will change").click()
    host.work()  # the worker makes the plan
    page.wait_for_selector("h1:not(:text('The plan is being made'))")


def look(page: Page, name: str) -> None:
    """Keep a picture, and refuse what is wider than the window."""
    show(page, name)
    assert problems_of(page) == [], name
