"""An app whose worker takes base backups of a server, and says how far the server could be brought back."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from backup_admin.control import app_clusters, engine, overview, perform, verdict
from backup_admin.jobs import tick_once
from backup_admin.records import BackupRun, RunKind, RunStatus, Trigger
from tests.installations import START, Host, back_up, find_run, make_host, set_up
from tests.services.postgres import DEBIAN
from tests.services.postgres_archiving import NAME, archiving, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from tests.services.postgres_archiving import Archiving

pytestmark = pytest.mark.integration


@pytest.fixture
def site(pytestconfig: pytest.Config) -> Iterator[Archiving]:
    """A server that archives into a repository of its own."""
    with archiving(pytestconfig, DEBIAN, archive_timeout="60s") as made:
        yield made


def host_of(folder: Path, site: Archiving, **more: Any) -> Host:
    """An app that takes base backups of the server, into a repository that is its user's."""
    folder.mkdir()
    key = folder / "server.key"
    key.write_bytes((site.folder / "key").read_bytes())
    key.chmod(0o600)
    setting = {
        "address": f"host={site.server.folder} port={site.server.port} user=postgres dbname=postgres",
        "storage": str(site.folder / "own"),
        "key_file": str(key),
        **more,
    }
    arguments = ["init", setting["storage"], "--key-file", str(key), "--recovery-file", str(folder / "paper")]
    if setting["storage"] == str(site.folder / "own"):
        done = subprocess.run(
            [*site.python, "-m", "backup_admin.cli", *arguments],
            env={**site.environment, "BACKUP_ADMIN_STATE_DIR": str(folder / "init")},
            capture_output=True,
            check=False,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    host = make_host(folder, BACKUP_ADMIN_POSTGRES_CLUSTERS={NAME: setting})
    set_up(host)
    return host


def tick(host: Host) -> list[BackupRun]:
    """Do what the scheduler does, and what it started as a worker does; return the runs."""
    with host.installation.database.new_session() as session:
        started = app_clusters.tick(session, host.installation)
    for run_id in started:
        perform.perform_cluster(host.installation, run_id)
    return [find_run(host, run_id) for run_id in started]


def view(host: Host) -> app_clusters.ClusterView:
    with host.installation.database.new_session() as session:
        (found,) = app_clusters.views(session, host.installation)
        return found


def said(host: Host) -> list[str]:
    with host.installation.database.new_session() as session:
        return list(app_clusters.risks(session, host.installation))


def test_base_backups_are_taken_when_they_are_due_and_bring_the_server_back(
    site: Archiving, tmp_path: Path
) -> None:
    host = host_of(tmp_path / "app", site)
    site.sql("INSERT INTO kept VALUES (1)")

    (run,) = tick(host)
    early = tick(host)
    host.clock.advance(hours=24)
    site.sql("INSERT INTO kept VALUES (2)")
    (second,) = tick(host)
    site.sql("INSERT INTO kept VALUES (3)")
    own = site.folder / "own"
    owner = site.data.stat()
    for path in (own, *own.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    site.repository.rename(site.folder / "away")
    own.rename(site.repository)
    restored = site.restore("--no-pin")

    assert (run.status, run.error_message, run.kind) == (RunStatus.COMPLETED, "", RunKind.CLUSTER)
    assert (run.trigger, run.label, run.bytes_read > 0) == (Trigger.SCHEDULED, NAME, True)
    assert early == []
    assert second.status is RunStatus.COMPLETED
    assert site.values(restored) == [1, 2]
    assert restored.result["base"]["snapshot"] == second.snapshot_id
    with host.installation.database.new_session() as session:
        assert [line.title for line in overview.recent(session)] == [f"Base backup of {NAME}"] * 2
        assert overview.backups(session).rows == ()
        assert overview.dashboard(session, now=START, zone="UTC").newest_good is None


def test_what_is_archived_is_told_as_the_server_tells_it(site: Archiving, tmp_path: Path) -> None:
    host = host_of(tmp_path / "app", site)
    site.switch_and_wait()
    tick(host)
    good, risks = view(host), said(host)
    site.repository.rename(site.folder / "away")
    site.sql("INSERT INTO kept VALUES (1)")
    site.switch()
    wait_for(lambda: bool(site.sql("SELECT failed_count > 0 FROM pg_stat_archiver")))
    host.clock.advance(minutes=2)
    tick(host)

    assert (good.problem, good.timeout_seconds, risks) == ("", 60, [])
    assert good.archived_at is not None
    assert "its archive_command fails" in view(host).problem
    assert f"the server {NAME} is not followed: its archive_command fails" in said(host)[0]
    host.clock.advance(minutes=5)
    assert "nobody looks at it" in said(host)[0]


def test_one_that_fails_is_told_and_tried_again_within_the_hour(site: Archiving, tmp_path: Path) -> None:
    host = host_of(tmp_path / "app", site, address="postgresql://postgres:hunter2@127.0.0.1:1/postgres")
    (run,) = tick(host)
    at_once = tick(host)
    host.clock.advance(hours=1)
    (again,) = tick(host)

    assert (run.status, again.status, at_once) == (RunStatus.FAILED, RunStatus.FAILED, [])
    assert "cannot be reached" in run.error_message
    risks = said(host)
    assert any(risk.startswith(f"the last base backup of {NAME} was failed: ") for risk in risks), risks
    with host.installation.database.new_session() as session:
        assert not any("hunter2" in line for line in verdict.judge(session, host.installation).details)
    assert "hunter2" not in run.error_message + run.log + repr(view(host))


def test_the_repository_of_the_app_is_refused(site: Archiving, tmp_path: Path) -> None:
    host = host_of(tmp_path / "app", site, storage=str(tmp_path / "app/storage"), key_file="")

    (run,) = tick(host)
    before = back_up(host)

    assert run.status is RunStatus.FAILED
    assert "names the repository of the app" in run.error_message
    with host.installation.database.new_session() as session:
        assert engine.open_repository(session, host.installation).snapshot_ids() == (before.snapshot_id,)


def test_the_loop_beside_a_worker_starts_them(site: Archiving, tmp_path: Path) -> None:
    host = host_of(tmp_path / "app", site)
    with host.app.app_context():
        started = tick_once(host.installation)

    assert host.queue.jobs == dict.fromkeys(started, "backup_admin.jobs.run_cluster")
    assert [find_run(host, run_id).kind for run_id in started] == [RunKind.CLUSTER]


def test_a_folder_of_another_user_is_left_alone(site: Archiving, tmp_path: Path) -> None:
    if site.repository.stat().st_uid == os.geteuid():
        pytest.skip("the server runs as who runs the tests")
    host = host_of(tmp_path / "app", site, storage=str(site.repository))

    (run,) = tick(host)

    assert run.status is RunStatus.FAILED
    assert "belongs to another user than the one this worker runs as" in run.error_message
    assert site.switch_and_wait()
