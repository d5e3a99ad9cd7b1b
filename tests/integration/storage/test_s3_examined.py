"""Examinations of real S3 servers: what each can, and what each mistake looks like."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from backup_admin.core.clock import SystemClock
from backup_admin.core.errors import StorageUnavailable
from backup_admin.core.progress import QuietReporter
from backup_admin.operations.cleaning import clean, plan_cleaning
from backup_admin.storage.base import Known
from backup_admin.storage.examine import examine_storage
from backup_admin.storage.open import open_storage
from backup_admin.storage.retrying import Retries
from backup_admin.storage.s3 import S3Storage
from backup_admin.storage.s3_place import parse_s3_address
from backup_admin.storage.storage_report import Step, StepOutcome, StorageReport
from tests.services.proxy import Fault, Request, proxy_before
from tests.services.s3 import KEY, SECRET, S3Server, free_ports

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

FAILED, WARNING, SKIPPED = StepOutcome.FAILED, StepOutcome.WARNING, StepOutcome.SKIPPED
DAY = timedelta(hours=24)
PACK = f"packs/ab/{'ab' * 32}"


@pytest.fixture
def full(seaweedfs: S3Server) -> S3Storage:
    storage = open_at(seaweedfs, create_bucket="true")
    storage.make()
    return storage


def open_at(server: S3Server, *, secret: str = SECRET, prefix: str = "", **options: str) -> S3Storage:
    place = parse_s3_address(server.address(prefix or f"a place/{uuid4().hex}", **options))
    return S3Storage(place, credentials=(KEY, secret), retries=Retries.quick())


def examine(storage: S3Storage, *, make_missing: bool = False) -> StorageReport:
    return examine_storage(storage, clock=SystemClock(), reporter=QuietReporter(), make_missing=make_missing)


def steps(report: StorageReport, *outcomes: StepOutcome) -> set[Step]:
    return {finding.step for finding in report.findings if finding.outcome in outcomes}


def test_a_full_server_passes_every_step_and_is_left_as_it_was(full: S3Storage) -> None:
    report = examine(full)

    assert steps(report, FAILED, WARNING, SKIPPED) == set(), report
    assert steps(report, StepOutcome.UNKNOWN) == {Step.FREE_SPACE}
    assert report.finding(Step.CHECKSUMS).value == "yes"
    assert abs(float(str(report.finding(Step.CLOCK).value))) < 3
    assert list(full.list_objects("")) == []
    assert list(full.uploads()) == []


def test_a_bucket_with_versions_and_locks_is_known(seaweedfs: S3Server) -> None:
    bucket = f"locked-{uuid4().hex}"
    storage = open_at(seaweedfs, bucket=bucket)
    storage._client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)

    report = examine(storage)

    assert report.finding(Step.VERSIONING).value == "yes"
    assert report.finding(Step.OBJECT_LOCK).value == "yes"
    assert steps(report, FAILED, WARNING) == set(), report
    assert versions(storage) == []


def test_versions_that_are_locked_are_told(seaweedfs: S3Server) -> None:
    bucket = f"locked-{uuid4().hex}"
    storage = open_at(seaweedfs, bucket=bucket)
    storage._client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    storage._client.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )

    report = examine(storage)

    assert steps(report, WARNING) == {Step.DELETE}, report
    assert versions(storage) != []


def versions(storage: S3Storage) -> list[str]:
    page = storage._client.list_object_versions(Bucket=storage.place.bucket)
    return [row["Key"] for name in ("Versions", "DeleteMarkers") for row in page.get(name, ())]


def test_a_server_that_ignores_conditions_is_for_one_writer(rclone_s3: S3Server) -> None:
    storage = open_at(rclone_s3)

    report = examine(storage)

    assert steps(report, FAILED) == set(), report
    assert Step.PUT_IF_ABSENT in steps(report, WARNING)
    assert report.exit_code == 3
    assert list(storage.list_objects("")) == []


@pytest.mark.parametrize("name", ["seaweedfs", "rclone_s3"])
def test_a_wrong_secret_fails_at_the_credentials(name: str, request: pytest.FixtureRequest) -> None:
    report = examine(open_at(request.getfixturevalue(name), secret="wrong"))

    assert steps(report, FAILED) == {Step.CREDENTIALS}, report
    assert report.finding(Step.REACH).outcome is StepOutcome.OK
    assert report.exit_code == 6


def test_a_missing_bucket_is_not_made_but_told(seaweedfs: S3Server) -> None:
    bucket = f"missing-{uuid4().hex}"

    report = examine(open_at(seaweedfs, bucket=bucket), make_missing=True)

    message = report.finding(Step.PLACE).message
    assert steps(report, FAILED) == {Step.PLACE}, report
    assert bucket in message
    assert message.endswith("`init` would not make it.")
    assert report.exit_code == 75


def test_a_missing_bucket_is_made_when_the_address_asks(seaweedfs: S3Server) -> None:
    bucket = f"wanted-{uuid4().hex}"
    storage = open_at(seaweedfs, bucket=bucket, create_bucket="true")

    would, made = examine(storage), examine(storage, make_missing=True)

    assert would.finding(Step.PLACE).message.endswith("`init` would make it.")
    assert (steps(made, FAILED), "was made" in made.finding(Step.PLACE).message) == (set(), True)


def test_http_to_a_port_that_speaks_https_is_not_reached(rclone_https: S3Server) -> None:
    report = examine(open_at(S3Server(rclone_https.endpoint.replace("https:", "http:"))))

    assert steps(report, FAILED) == {Step.REACH}, report
    assert "speaks https" in report.finding(Step.REACH).message


def test_a_certificate_nobody_vouches_for_is_not_reached(rclone_https: S3Server) -> None:
    report = examine(open_at(S3Server(rclone_https.endpoint)))

    assert steps(report, FAILED) == {Step.REACH}
    assert "certificate" in report.finding(Step.REACH).message


def test_a_server_that_is_no_s3_service_is_suspected(seaweedfs: S3Server) -> None:
    with proxy_before(seaweedfs.endpoint) as proxy:
        proxy.fail(Fault(answer=(404, "404")), times=9)
        report = examine(open_at(S3Server(proxy.endpoint)))

    assert steps(report, FAILED) == {Step.PLACE}, report
    assert "no S3 service" in report.finding(Step.PLACE).message


def test_nobody_there_is_told_soon() -> None:
    (port,) = free_ports(1)
    began = time.monotonic()

    report = examine(open_at(S3Server(f"http://127.0.0.1:{port}")))

    assert steps(report, FAILED) == {Step.REACH}
    assert "nothing listens" in report.finding(Step.REACH).message
    assert time.monotonic() - began < 5


def test_an_address_is_opened_with_little_patience_when_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    (port,) = free_ports(1)
    storage = open_storage(S3Server(f"http://127.0.0.1:{port}").address(), state=tmp_path, quick=True)
    began = time.monotonic()

    with pytest.raises(StorageUnavailable, match="nothing listens"):
        storage.stat("config")
    assert time.monotonic() - began < 5


def test_a_server_with_a_wrong_clock_is_told(seaweedfs: S3Server) -> None:
    with proxy_before(seaweedfs.endpoint) as proxy:
        proxy.fail(Fault(answer=(403, "RequestTimeTooSkewed")), times=5)
        report = examine(open_at(S3Server(proxy.endpoint)))

    assert steps(report, FAILED) == {Step.CLOCK}, report


def test_what_may_not_be_listed_is_tried_all_the_same(full: S3Storage, seaweedfs: S3Server) -> None:
    with proxy_before(seaweedfs.endpoint) as proxy:
        proxy.fail(Fault(answer=(403, "AccessDenied")), when=is_list, times=50)
        report = examine(open_at(S3Server(proxy.endpoint)))

    assert steps(report, FAILED) == {Step.LIST}, report
    assert report.finding(Step.READ).outcome is StepOutcome.OK


@pytest.mark.parametrize(
    ("status", "code", "known"),
    [
        (501, "NotImplemented", Known.NO),
        (400, "MethodNotAllowed", Known.NO),
        (403, "AccessDenied", Known.UNKNOWN),
        (500, "InternalError", Known.UNKNOWN),
    ],
)
def test_a_setting_that_is_not_known_counts_as_none(
    full: S3Storage, seaweedfs: S3Server, status: int, code: str, known: Known
) -> None:
    with proxy_before(seaweedfs.endpoint) as proxy:
        proxy.fail(Fault(answer=(status, code)), when=is_about_settings, times=2)
        facts = open_at(S3Server(proxy.endpoint)).bucket_facts("probe-1")

    assert (facts.versioning, facts.object_lock) == (known, known)


def test_what_is_cut_off_in_the_middle_leaves_nothing(full: S3Storage, seaweedfs: S3Server) -> None:
    with proxy_before(seaweedfs.endpoint) as proxy:
        storage = open_at(S3Server(proxy.endpoint), prefix=full.place.prefix)
        proxy.fail(Fault(cut_request_at=1000), when=SecondPut(), times=9)
        report = examine(storage)

    assert steps(report, FAILED) == {Step.WRITE_SPEED}, report
    assert list(full.list_objects("")) == []


def is_list(request: Request) -> bool:
    return "list-type" in request.path


def is_about_settings(request: Request) -> bool:
    return request.path.endswith(("?versioning", "?object-lock"))


class SecondPut:
    """Knows the second object that is put: the large one."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, request: Request) -> bool:
        if request.method != "PUT":
            return False
        if request.path not in self.names:
            self.names.append(request.path)
        return self.names.index(request.path) == 1


# --- leftovers -------------------------------------------------------------------


@pytest.fixture
def upload(full: S3Storage) -> str:
    return begin_upload(full, PACK)


def begin_upload(storage: S3Storage, name: str) -> str:
    key = storage.place.key(name)
    begun = storage._client.create_multipart_upload(Bucket=storage.place.bucket, Key=key)
    part = {"Bucket": storage.place.bucket, "Key": key, "UploadId": begun["UploadId"], "PartNumber": 1}
    storage._client.upload_part(**part, Body=os.urandom(1000))
    return str(begun["UploadId"])


def test_an_upload_nobody_completed_is_removed_when_it_is_old(full: S3Storage, upload: str) -> None:
    full.put("config", b"a repository")
    now = datetime.now(UTC)
    young = plan_cleaning(full, now=now, older_than=DAY)
    old = plan_cleaning(full, now=now + DAY + timedelta(minutes=1), older_than=DAY)

    left = clean(full, old, reporter=QuietReporter())

    assert ([one.name for one in young.young], young.remove) == ([PACK], ())
    assert [(one.name, one.size, one.id) for one in old.remove] == [(PACK, 1000, upload)]
    assert (left, list(full.uploads())) == ((), [])
    assert [info.name for info in full.list_objects("")] == ["config"]


def test_an_upload_of_somebody_else_is_left_alone(full: S3Storage) -> None:
    begin_upload(full, "films/one.mkv")

    plan = plan_cleaning(full, now=datetime.now(UTC) + DAY * 2, older_than=DAY)
    clean(full, plan, reporter=QuietReporter())

    assert ([one.name for one in plan.strange], plan.remove) == (["films/one.mkv"], ())
    assert len(list(full.uploads())) == 1


def test_an_upload_that_ended_meanwhile_is_no_error(
    full: S3Storage, upload: str, seaweedfs: S3Server
) -> None:
    with proxy_before(seaweedfs.endpoint) as proxy:
        storage = open_at(S3Server(proxy.endpoint), prefix=full.place.prefix)
        proxy.fail(Fault(answer=(404, "NoSuchUpload")), when=is_about_one_upload, times=2)

        (leftover,) = storage.leftovers()
        storage.remove_leftover(leftover)

    assert (leftover.id, leftover.size) == (upload, 0)


def is_about_one_upload(request: Request) -> bool:
    return "uploadId=" in request.path
