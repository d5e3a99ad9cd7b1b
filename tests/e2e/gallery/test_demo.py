"""The demo as a new user meets it: a real process, worker and browser, the whole wizard."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyotp
import pytest

from examples.gallery.compare import describe_gallery, gallery_differences
from examples.gallery.folders import EXCLUDED_FOLDERS, Folders
from tests.services.browser import follow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from examples.gallery.compare import GalleryState
    from tests.services.browser import OpenPage

pytestmark = pytest.mark.integration

_CHECKOUT = Path(__file__).resolve().parents[3]
_READY_SECONDS = 120
_WORK_MILLISECONDS = 90_000


@contextmanager
def _demo(data: Path) -> Iterator[tuple[str, str]]:
    """Run the demo; yield its address and the password it prints."""
    command = [sys.executable, "-u", "-m", "examples.gallery.demo", "--profile", "tiny", "--data", str(data)]
    log = data.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=_CHECKOUT, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield _invitation(process, log)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (0, 1), log.read_text()


def _invitation(process: subprocess.Popen[bytes], log: Path) -> tuple[str, str]:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        text = log.read_text()
        address = re.search(r"Gallery +(http://\S+?)/\n", text)
        password = re.search(r"Sign in +admin / (\S+)", text)
        if address and password and "Ctrl-C" in text:
            return address[1], password[1]
        time.sleep(0.2)
    raise AssertionError(f"the demo did not start:\n{log.read_text()}")


def _state(data: Path) -> GalleryState:
    folders = Folders(data)
    return describe_gallery(folders.storage, folders.database, exclude=EXCLUDED_FOLDERS)


def _sign_in(page: Page, address: str, password: str) -> None:
    page.goto(f"{address}/backup-admin/")
    page.locator("input[name=username]").fill("admin")
    page.locator("input[name=password]").fill(password)
    follow(page.get_by_role("button", name="Sign in"))
    page.goto(f"{address}/backup-admin/")


def _enrol(page: Page, address: str) -> list[str]:
    """Enrol an authenticator; return the recovery codes, each good for one act."""
    page.goto(f"{address}/backup-admin/settings/security")
    page.get_by_role("button", name="Enrol an authenticator").click()
    page.get_by_text("Cannot scan?").click()
    totp = pyotp.TOTP(page.locator(".ba-qr ~ details code").inner_text())
    page.locator("input[name=code]").fill(totp.now())
    follow(page.get_by_role("button", name="Turn it on"))
    return page.locator(".ba-codes li").all_inner_texts()


def _damage(page: Page, address: str) -> None:
    page.goto(f"{address}/counts")
    page.locator("summary", has_text="Damage this gallery").click()
    follow(page.get_by_role("button", name="Damage it"))


def test_back_up_damage_restore_undo_in_the_browser(browser_page: OpenPage, tmp_path: Path) -> None:
    data = tmp_path / "demo"
    with _demo(data) as (address, password):
        page = browser_page()
        _sign_in(page, address, password)
        assert page.get_by_text("Protected.", exact=False).first.is_visible()

        page.get_by_role("button", name="Back up now").click()
        page.get_by_text("Read back from the storage").wait_for(timeout=_WORK_MILLISECONDS)
        codes = _enrol(page, address)
        good = _state(data)
        _damage(page, address)
        damaged = _state(data)
        assert gallery_differences(good, damaged)

        page.goto(f"{address}/backup-admin/restore")
        page.get_by_role("button", name="Go on to the type").click()
        page.get_by_role("button", name="Go on to the components").click()
        page.get_by_role("button", name="Review what will change").click()
        page.get_by_label("Reason").fill("photos are gone")
        page.get_by_label("Type the name of the app").fill("Gallery")
        page.get_by_label("Code from your authenticator app").fill(codes[0])
        page.get_by_role("button", name="Restore everything of Gallery").click()
        page.get_by_text("The restore is done and checked").wait_for(timeout=_WORK_MILLISECONDS)
        assert gallery_differences(good, _state(data)) == []
        page.get_by_text("checks are as expected").click()
        assert page.get_by_text("bytes of every file").first.is_visible()

        page.get_by_label("Reason").fill("it was only a rehearsal")
        page.get_by_label("Code from your authenticator app").fill(codes[1])
        page.get_by_role("button", name="Undo this restore").click()
        page.get_by_text("The restore was undone").wait_for(timeout=_WORK_MILLISECONDS)
        assert gallery_differences(damaged, _state(data)) == []
    assert _processes_of(data) == []


def _processes_of(data: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(data) in command:
            found.append(command.decode(errors="replace"))
    return found


def test_the_rehearsal_ends_well() -> None:
    command = [sys.executable, "-m", "examples.gallery.demo", "--once", "--profile", "tiny"]

    done = subprocess.run(command, cwd=_CHECKOUT, capture_output=True, text=True, timeout=180, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "byte for byte" in done.stdout
