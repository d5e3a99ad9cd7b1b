"""A storage chosen on the page, in a browser: a bucket with its keys, and a host met for the first time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from flask import Flask

from backup_admin import BackupAdmin, jobs
from backup_admin.records import BackupRun, RunStatus
from backup_admin.records.upgrade import upgrade
from tests.e2e.pages.conftest import serve, session_of
from tests.e2e.pages.test_look import problems_of
from tests.e2e.pages.test_wizard import Keyboard
from tests.integration.hosted import write_config
from tests.services.browser import follow
from tests.services.s3 import KEY, SECRET, kill, plain_client
from tests.services.ssh import SshServer, start_sshd
from tests.unit.web.host import PREFIX, Host, ListQueue, SessionUsers, create_host, sign_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from tests.services.browser import OpenPage
    from tests.services.s3 import S3Server

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]
WRONG = "not the secret of this key"


@pytest.fixture
def queue_name() -> str:
    return f"test-{uuid4().hex[:12]}"


@pytest.fixture
def own_sshd(pytestconfig: pytest.Config, tmp_path: Path) -> Iterator[SshServer]:
    """A host that does not know our key."""
    folder = tmp_path / "sshd"
    folder.mkdir()
    process, server = start_sshd(pytestconfig, folder)
    yield server
    kill(process)


def start_app(folder: Path) -> Host:
    """Start the app of a folder as a new process would: from its configuration and its state alone."""
    app = Flask("gallery", instance_path=str(folder))
    app.config.update(json.loads((folder / "config.json").read_text()), BACKUP_ADMIN_PRIVATE_STORAGE=True)
    BackupAdmin(app, users=SessionUsers()).permission_loader(lambda _person: ["admin"])
    app.add_url_rule("/sign-in", "sign_in", sign_in)
    upgrade(jobs.installation_of(app).database)
    return Host(app, ListQueue(), folder)


@contextmanager
def worker(folder: Path) -> Iterator[None]:
    """Run a real worker of the app, without any key of a bucket in its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"BACKUP_ADMIN_PRIVATE_STORAGE": "true", "AWS_EC2_METADATA_DISABLED": "true"}
    command = [sys.executable, "-m", "tests.integration.hosted", str(folder)]
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def open_page(browser_page: OpenPage, address: str, *, width: int = 1280) -> Page:
    page = browser_page(base_url=address, width=width)
    page.set_default_timeout(15_000)
    page.goto("/sign-in")
    return page


def fill_bucket(page: Page, server: S3Server, bucket: str) -> None:
    page.get_by_role("radio", name="S3 bucket").check()
    page.locator("#ba-s3_endpoint").fill(server.endpoint)
    page.get_by_role("checkbox", name="Use TLS").uncheck()
    page.locator("#ba-s3_bucket").fill(bucket)
    page.locator("#ba-s3_access_key").fill(KEY)


def send_secret(page: Page, secret: str) -> None:
    page.locator("#ba-s3_secret_key").fill(secret)
    follow(page.get_by_role("button", name="Make the repository"))


def confirm_recovery_key(page: Page) -> None:
    groups = page.locator("ol.ba-key li").all_inner_texts()
    for field in page.locator("input[name^=group]").all():
        number = int(str(field.get_attribute("name")).removeprefix("group"))
        field.fill(groups[number - 1].split()[-1])
    follow(page.get_by_role("button", name="Confirm the recovery key"))


def back_up(page: Page, host: Host, button: str) -> BackupRun:
    """Press the button for a backup and wait until the worker has ended it."""
    page.get_by_role("button", name=button).first.click()
    deadline = time.monotonic() + 60
    while True:
        with host.app.app_context():
            run = session_of(host).query(BackupRun).order_by(BackupRun.id.desc()).first()
            if run is not None and run.finished_at is not None:
                session_of(host).expunge(run)
                return run
        assert time.monotonic() < deadline, (host.folder / "worker.log").read_text()
        time.sleep(0.2)


def database_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted((folder / "state").rglob("state.db*")))


def test_a_bucket_is_set_up_with_its_keys_and_outlives_a_restart(
    browser_page: OpenPage, tmp_path: Path, seaweedfs: S3Server, valkey: str, queue_name: str
) -> None:
    bucket = f"page-{uuid4().hex[:12]}"
    plain_client(seaweedfs).create_bucket(Bucket=bucket)
    write_config(tmp_path, valkey, queue_name)
    host = start_app(tmp_path)
    with serve(host) as address, worker(tmp_path):
        page = open_page(browser_page, address)
        page.goto(f"{PREFIX}/setup")
        fill_bucket(page, seaweedfs, bucket)
        send_secret(page, WRONG)
        assert "its secret is wrong" in page.locator("#ba-s3_access_key-error").inner_text()
        page.wait_for_selector("#ba-wrong:focus")
        assert page.locator("#ba-s3_secret_key").input_value() == ""
        assert problems_of(page) == []

        send_secret(page, SECRET)
        confirm_recovery_key(page)
        first = back_up(page, host, "Make the first backup")
        page.goto(f"{PREFIX}/settings/storage")
        shown = page.content()

    assert (first.status, first.error_message) == (RunStatus.COMPLETED, "")
    assert "fit for a repository" in shown
    again = start_app(tmp_path)
    with serve(again) as address, worker(tmp_path):
        page = open_page(browser_page, address)
        page.goto(f"{PREFIX}/backups")
        second = back_up(page, again, "Back up now")

    assert (second.status, second.error_message) == (RunStatus.COMPLETED, "")
    for secret in (SECRET, WRONG):
        assert secret.encode() not in database_bytes(tmp_path)
        assert secret not in shown
        assert secret not in (tmp_path / "worker.log").read_text()
    assert b"backup_s3_secret_key" in database_bytes(tmp_path)


def test_a_host_is_met_confirmed_and_lets_us_in(
    browser_page: OpenPage, tmp_path: Path, own_sshd: SshServer
) -> None:
    own_sshd.authorized_keys.write_text("")
    app = tmp_path / "app"
    app.mkdir()
    host = create_host(app, BACKUP_ADMIN_STORAGE="", BACKUP_ADMIN_PRIVATE_STORAGE=True)
    with serve(host) as address:
        page = open_page(browser_page, address, width=360)
        page.goto(f"{PREFIX}/setup")
        keyboard = Keyboard(page)
        keyboard.reach("[name=kind]")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        for name, value in (
            ("host", "127.0.0.1"),
            ("port", str(own_sshd.port)),
            ("user", own_sshd.user),
            ("folder", str(tmp_path / "far")),
        ):
            keyboard.reach(f"#ba-ssh_{name}")
            page.keyboard.type(value)
        page.keyboard.press("Enter")
        page.wait_for_selector(".ba-fingerprint")
        assert page.locator(".ba-fingerprint").inner_text() == own_sshd.host_key
        assert problems_of(page) == []

        page.get_by_role("button", name="This is the right host").click()
        line = page.get_by_label("Line to add").input_value()
        assert line.startswith("restrict ssh-ed25519 ")
        assert page.locator("#ba-ssh_host_key").input_value() == own_sshd.host_key
        assert problems_of(page) == []

        own_sshd.authorized_keys.write_text(f"{line}\n")
        page.get_by_role("button", name="Make the repository").click()
        page.wait_for_selector("ol.ba-key")

    assert (tmp_path / "far" / "config").is_file()


@pytest.mark.parametrize("width", [1280, 360])
def test_the_form_has_no_barrier_whatever_the_kind(
    browser_page: OpenPage, fresh_address: str, width: int
) -> None:
    page = open_page(browser_page, fresh_address, width=width)
    page.goto(f"{PREFIX}/setup")
    found = []

    for kind in ("folder", "s3", "ssh", "address"):
        page.locator(f"[name=kind][value={kind}]").check()
        assert [one.get_attribute("class") for one in page.locator(".ba-part:visible").all()] == [
            f"ba-part ba-part-{kind}"
        ]
        found += problems_of(page)

    assert found == []
