"""What `storage test` and `storage clean` say of a host that is reached by ssh."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.clock import SystemClock
from backup_admin.core.errors import BadObjectName, StorageUnavailable
from backup_admin.core.progress import QuietReporter
from backup_admin.operations.cleaning import clean, plan_cleaning
from backup_admin.storage.base import Leftover
from backup_admin.storage.examine import examine_storage
from backup_admin.storage.retrying import Retries
from backup_admin.storage.ssh import SshStorage
from backup_admin.storage.ssh_link import SshLink
from backup_admin.storage.ssh_place import parse_ssh_address
from backup_admin.storage.storage_report import Step, StepOutcome, StorageReport
from tests.services.relay import relay_before
from tests.services.ssh import SshServer

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


def open_at(address: str, tmp_path: Path, *, attempts: int = 2) -> SshStorage:
    link = SshLink(parse_ssh_address(address), tmp_path / "own", allow_private=True)
    return SshStorage(link, retries=Retries(attempts=attempts, sleep=lambda _: None))


def examine(storage: SshStorage) -> StorageReport:
    try:
        return examine_storage(storage, clock=SystemClock(), reporter=QuietReporter(), make_missing=False)
    finally:
        storage.close()


def steps(report: StorageReport, outcome: StepOutcome) -> set[Step]:
    return {finding.step for finding in report.findings if finding.outcome is outcome}


def test_a_sound_host_passes_every_step(sshd: SshServer, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()

    report = examine(open_at(sshd.address(tmp_path / "far"), tmp_path))

    assert steps(report, StepOutcome.FAILED) == set()
    assert steps(report, StepOutcome.WARNING) == set()
    assert {Step.CREDENTIALS, Step.CLOCK, Step.FREE_SPACE} <= steps(report, StepOutcome.OK)
    assert list((tmp_path / "far").iterdir()) == []


def test_each_hurdle_fails_at_its_own_step(sshd: SshServer, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    closed = SshServer(1, sshd.folder, sshd.host_key)
    cases = {
        Step.REACH: closed.address(tmp_path / "far"),
        Step.PLACE: sshd.address(tmp_path / "missing"),
        Step.CREDENTIALS: sshd.address(tmp_path / "far", identity=""),
    }

    found = {
        step: steps(examine(open_at(address, tmp_path)), StepOutcome.FAILED)
        for step, address in cases.items()
    }
    stranger = examine(open_at(sshd.address(tmp_path / "far", host_key="SHA256:" + "a" * 43), tmp_path))

    assert found == {step: {step} for step in cases}
    assert steps(stranger, StepOutcome.FAILED) == {Step.CREDENTIALS}
    assert "another key" in stranger.finding(Step.CREDENTIALS).message


def test_what_a_cut_transfer_left_is_cleared_and_nothing_else(sshd: SshServer, tmp_path: Path) -> None:
    far = tmp_path / "far"
    far.mkdir()
    (far / ".tmp-of-others").mkdir()
    (far / ".tmp-of-others" / "file").write_bytes(b"x")
    with relay_before(sshd.port) as relay:
        through = SshServer(relay.port, sshd.folder, sshd.host_key)
        cut = open_at(through.address(far), tmp_path, attempts=1)
        cut.put("config", b"kept")
        relay.cut(3_000_000)
        with pytest.raises(StorageUnavailable):
            cut.put("packs/ab/1", os.urandom(8 << 20))
        cut.close()
    storage = open_at(sshd.address(far), tmp_path)
    now = SystemClock().now()

    young = plan_cleaning(storage, now=now, older_than=timedelta(hours=24))
    plan = plan_cleaning(storage, now=now + timedelta(days=2), older_than=timedelta(hours=24))
    left = clean(storage, plan, reporter=QuietReporter())

    assert (young.remove, len(young.young)) == ((), 1)
    assert plan.size > 1_000_000
    assert left == ()
    there = sorted(str(path.relative_to(far)) for path in far.rglob("*") if path.is_file())
    assert there == [".tmp-of-others/file", "config"]
    with pytest.raises(BadObjectName):
        storage.remove_leftover(Leftover(".tmp-of-others", 1, now))
    with pytest.raises(BadObjectName):
        storage.remove_leftover(Leftover("config", 1, now))
    storage.close()
