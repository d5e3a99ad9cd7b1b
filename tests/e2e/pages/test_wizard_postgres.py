"""The restore wizard in a browser, for an app whose database lies on a PostgreSQL server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.e2e.pages.conftest import serve
from tests.e2e.pages.test_wizard import enrol
from tests.services.postgres import OWNER
from tests.services.postgres_oracle import GALLERY, dump_text
from tests.unit.web.conftest import ADMIN
from tests.unit.web.host import APP_NAME, PREFIX, create_host

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.services.browser import OpenPage
    from tests.services.postgres import PostgresServer

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
