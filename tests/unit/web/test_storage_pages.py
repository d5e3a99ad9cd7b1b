"""The pages about the storage: choosing one, its keys, its test. None of them asks the storage on a GET."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pyotp
import pytest

from backup_admin import jobs
from backup_admin.control import engine, s3_keys, storage_tests
from backup_admin.control.installation import STORAGE_TEST_JOB
from backup_admin.control.stored import read_value, write_value
from backup_admin.storage.storage_report import Step, StepOutcome
from tests.unit.web.forms import follow, get, post
from tests.unit.web.host import PREFIX, Host, create_host

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from flask.testing import FlaskClient

PAGE = "/settings/storage"
DEAD = "s3://backups/app?endpoint=http://127.0.0.1:9"
ACCESS, SECRET = "AKIA:EXAMPLE1234", "the secret of the bucket"


@pytest.fixture
def free(tmp_path: Path) -> Host:
    """A host whose storage is chosen on the page."""
    return create_host(tmp_path, BACKUP_ADMIN_STORAGE="", BACKUP_ADMIN_PRIVATE_STORAGE=True)


def make_repository(host: Host) -> FlaskClient:
    client = host.client()
    made = post(client, "/setup/repository", kind="folder", folder=str(host.folder / "first"))
    assert made.status_code == 200, made.text
    return client


def recovery_codes(client: FlaskClient) -> list[str]:
    """Enrol a second factor; return codes that may stand for it."""
    shown = post(client, "/settings/security/factor").text
    found = re.search(r"<code>([A-Z2-7]{32})</code>", shown)
    assert found is not None
    done = post(client, "/settings/security/factor/confirm", code=pyotp.TOTP(found[1]).now()).text
    return re.findall(r"<li>([A-Z2-7]{4}(?:-[A-Z2-7]{4}){3})</li>", done)


def use_bucket(host: Host, *, keys: bool = True) -> None:
    """Let the control database say that a bucket is in use which does not answer."""
    with host.app.app_context():
        session = host.installation.database.session()
        engine.keep_address(session, host.installation, DEAD, by="admin")
        given = s3_keys.parse_keys(ACCESS, SECRET)
        assert given is not None
        if keys:
            s3_keys.write_keys(session, host.installation, given, by="admin")
        session.commit()


def change_report(host: Host, step: Step, outcome: StepOutcome, message: str) -> None:
    with host.app.app_context():
        session, clock = host.installation.database.session(), host.installation.clock
        kept: Any = read_value(session, storage_tests.REPORT_KEY)
        findings = [
            {**row, "outcome": outcome.value, "message": message} if row["step"] == step.value else row
            for row in kept["report"]["findings"]
        ]
        value = {**kept, "report": {**kept["report"], "findings": findings}}
        write_value(session, clock, storage_tests.REPORT_KEY, value)
        session.commit()


def test_the_set_up_offers_each_kind_with_labelled_fields(free: Host) -> None:
    page = get(free.client(), "/setup").text

    assert re.findall(r'name="kind" value="(\w+)"', page) == ["folder", "s3", "ssh", "address"]
    for name in re.findall(r'<(?:input|select) id="ba-(\w+)"', page):
        assert f'<label for="ba-{name}"' in page


def test_a_folder_is_chosen_and_tested(free: Host) -> None:
    client = make_repository(free)

    page = get(client, PAGE).text

    assert "Tested" in page
    assert "fit for a repository" in page
    assert page.count('<th scope="row">') == len(Step)
    assert "Keys of the bucket" not in page


def test_mistakes_of_the_form_come_back_at_their_fields_without_the_secret(free: Host) -> None:
    answer = post(
        free.client(),
        "/setup/repository",
        kind="s3",
        s3_bucket="Upper",
        s3_endpoint="https://minio.example",
        s3_use_ssl="on",
        s3_access_key=ACCESS,
        s3_secret_key=SECRET,
    )

    assert answer.status_code == 422
    assert 'id="ba-s3_bucket-error"' in answer.text
    assert 'href="#ba-s3_bucket"' in answer.text
    assert 'value="https://minio.example"' in answer.text
    assert SECRET not in answer.text


def test_a_bucket_that_does_not_answer_is_not_kept_nor_are_its_keys(free: Host) -> None:
    answer = post(
        free.client(),
        "/setup/repository",
        kind="s3",
        s3_bucket="backups",
        s3_endpoint="http://127.0.0.1:9",
        s3_access_key=ACCESS,
        s3_secret_key=SECRET,
    )

    assert answer.status_code == 422
    assert 'id="ba-s3_endpoint-error"' in answer.text
    with free.app.app_context():
        session, settings = free.installation.database.session(), free.installation.settings
        assert engine.storage_address(session, settings) == ""
        assert s3_keys.look_at_keys(session, settings).source is s3_keys.KeySource.CHAIN


def test_the_page_shows_the_end_of_the_access_key_and_never_the_keys(free: Host) -> None:
    client = make_repository(free)
    recovery_codes(client)
    use_bucket(free)

    page = get(client, PAGE).text

    assert "ends in …1234" in page
    assert SECRET not in page
    assert ACCESS not in page
    assert "Remove the keys" in page


def test_without_keys_the_page_says_where_they_come_from(free: Host) -> None:
    client = make_repository(free)
    use_bucket(free, keys=False)

    assert "Those of the environment, a profile or the role of the machine" in get(client, PAGE).text


def test_keys_of_the_deployment_have_no_form(tmp_path: Path) -> None:
    host = create_host(
        tmp_path,
        BACKUP_ADMIN_STORAGE=DEAD,
        BACKUP_ADMIN_S3_ACCESS_KEY=ACCESS,
        BACKUP_ADMIN_S3_SECRET_KEY=SECRET,
    )

    page = get(host.client(), PAGE).text

    assert "Set in the configuration of the app, ends in …1234" in page
    assert f'action="{PREFIX}{PAGE}/keys"' not in page
    refused = post(host.client(), f"{PAGE}/keys", access_key="a", secret_key="b")
    assert refused.status_code == 422
    assert SECRET not in page + refused.text


def test_a_bucket_that_the_deployment_names_can_be_given_keys_before_its_repository(tmp_path: Path) -> None:
    host = create_host(tmp_path, BACKUP_ADMIN_STORAGE=DEAD)

    setup, page = get(host.client(), "/setup").text, get(host.client(), PAGE).text

    assert f'<a href="{PREFIX}{PAGE}">Settings, Storage</a>' in setup
    assert f'action="{PREFIX}{PAGE}/keys"' in page
    assert 'name="code"' not in page


def test_keys_are_removed_with_a_code_and_only_with_one(free: Host) -> None:
    client = make_repository(free)
    code = recovery_codes(client)[0]
    use_bucket(free)

    refused = post(client, f"{PAGE}/keys", act="remove", code="000000")
    done = follow(client, post(client, f"{PAGE}/keys", act="remove", code=code))

    assert refused.status_code == 422
    assert 'id="ba-keys-code-error"' in refused.text
    assert "The keys have been removed" in done.text
    assert "ends in …" not in done.text


def test_keys_that_open_nothing_change_nothing(free: Host) -> None:
    client = make_repository(free)
    code = recovery_codes(client)[0]
    use_bucket(free)

    answer = post(client, f"{PAGE}/keys", access_key="AKIAOTHER99999", secret_key="other", code=code)

    assert answer.status_code == 422
    assert "The keys are as they were" in answer.text
    assert "ends in …1234" in answer.text


def test_the_storage_is_changed_with_a_code(free: Host) -> None:
    client = make_repository(free)
    code = recovery_codes(client)[0]

    refused = post(client, PAGE, kind="folder", folder=str(free.folder / "second"), code="1")
    done = post(client, PAGE, kind="folder", folder=str(free.folder / "second"), code=code)

    assert refused.status_code == 422
    assert 'id="ba-code-error"' in refused.text
    assert "The storage has been changed" in follow(client, done).text


def test_the_same_storage_again_changes_nothing(free: Host) -> None:
    client = make_repository(free)
    code = recovery_codes(client)[0]

    done = post(client, PAGE, kind="folder", folder=str(free.folder / "first"), code=code)

    assert "Nothing has been changed" in follow(client, done).text


def test_test_now_gives_the_worker_a_job_and_the_page_says_so(free: Host) -> None:
    client = make_repository(free)

    page = follow(client, post(client, f"{PAGE}/test")).text

    assert [job for job, _ in free.queue.waiting] == [STORAGE_TEST_JOB]
    assert "A test is under way" in page
    free.work()
    assert "A test is under way" not in get(client, PAGE).text


def test_without_a_queue_it_is_tested_at_once_and_a_failure_shown(free: Host) -> None:
    client = make_repository(free)
    free.app.extensions[jobs.INSTALLATION] = replace(free.installation, queue=None)
    shutil.rmtree(free.folder / "first")
    (free.folder / "first").touch()

    page = follow(client, post(client, f"{PAGE}/test")).text

    assert "failed at" in page
    assert "<details open><summary>Each step" in page


def test_one_writer_at_a_time_is_shown_as_such(free: Host) -> None:
    client = make_repository(free)
    assert "One writer at a time" not in get(client, PAGE).text

    change_report(free, Step.PUT_IF_ABSENT, StepOutcome.WARNING, "one writer at a time: it ignores")

    page = get(client, PAGE).text
    assert "One writer at a time" in page
    assert "fit for a repository, with 1 warning." in page


def test_no_page_asks_the_storage(free: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make_repository(free)
    use_bucket(free)

    def refuse(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a page opened the storage")

    monkeypatch.setattr(engine, "open_address", refuse)

    assert [get(client, path).status_code for path in ("/", "/setup", PAGE)] == [200, 200, 200]


def test_a_viewer_sees_the_test_and_no_button(free: Host) -> None:
    make_repository(free)
    page = get(free.client("viewer"), PAGE).text

    assert "fit for a repository" in page
    assert "Test now" not in page
    assert post(free.client("viewer"), f"{PAGE}/test").status_code == 403
