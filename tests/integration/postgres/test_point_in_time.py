"""A whole PostgreSQL server, back at a time between two commits; and what stands in the way of that."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from backup_admin.sources.postgres.server_programs import PROGRAMS
from tests.proof.mounts import mounted, skip_unless_mounts_work
from tests.services.postgres import DEBIAN, EVERY_KIND, PASSWORD, as_server
from tests.services.postgres_archiving import NAME, ROOT, archiving, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.postgres_archiving import Archiving

pytestmark = pytest.mark.integration

KILL_AT = """
import os, sys
from pathlib import Path
import backup_admin.core.durable as durable
real = os.link
def link(source, target, **options):
    if "/wal/" in str(target):
        if {after}:
            real(source, target, **options)
        os.kill(os.getpid(), 9)
    return real(source, target, **options)
os.link = link
from backup_admin.cli.main import main
main()
"""


@pytest.fixture
def site(pytestconfig: pytest.Config) -> Iterator[Archiving]:
    """A server of Debian that archives."""
    with archiving(pytestconfig, DEBIAN) as made:
        yield made


@pytest.fixture(params=EVERY_KIND)
def every_site(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> Iterator[Archiving]:
    """A server of each version that archives; one whose package brings the server alone is skipped."""
    folder = Path(request.param)
    if folder.is_absolute() and not all((folder / name).exists() for name in PROGRAMS):
        pytest.skip(f"{folder} has not all of {', '.join(PROGRAMS)}")
    with archiving(pytestconfig, request.param) as made:
        yield made


def test_a_time_between_two_commits_is_reached_exactly(every_site: Archiving) -> None:
    site = every_site
    site.sql("INSERT INTO kept VALUES (1)")
    site.take_base()
    site.sql("INSERT INTO kept VALUES (2)")
    moment = site.now()
    site.sql("INSERT INTO kept VALUES (3)")
    site.switch_and_wait()

    then = site.restore("--at", moment, name="then")
    latest = site.restore(name="latest")

    assert site.values(then) == [1, 2]
    assert site.values(latest) == [1, 2, 3]
    assert then.result["last_transaction"] < moment.replace("+00:00", "Z") < then.result["next_transaction"]
    assert site.sql("SELECT count(*) FROM kept") == 3
    assert not (site.folder / "then.wal").exists()


def test_a_drill_goes_to_any_time_and_fails_when_the_heartbeat_there_is_too_old(
    every_site: Archiving,
) -> None:
    site = every_site
    site.sql("CREATE TABLE heartbeat (at timestamptz)")
    site.sql("INSERT INTO heartbeat VALUES (now())")
    site.take_base()
    beats = [site.sql("INSERT INTO heartbeat VALUES (now()) RETURNING at") for _ in range(5)]
    moment = site.now()
    site.sql("INSERT INTO heartbeat VALUES (now() - interval '1 hour')")
    site.switch_and_wait()

    anywhere = site.drill()
    then = site.drill("--at", moment)
    site.sql("UPDATE heartbeat SET at = at - interval '1 hour'")
    late = site.now()
    site.sql("UPDATE heartbeat SET at = at + interval '2 hours'")
    ahead = site.now()
    site.sql("TRUNCATE heartbeat")
    gone = site.now()
    site.sql("INSERT INTO kept VALUES (1)")
    site.switch_and_wait()
    failed = [site.drill("--at", one) for one in (late, ahead, gone)]

    assert (anywhere.status, then.status) == (0, 0), anywhere.out + then.out
    assert anywhere.result["heartbeat"] <= anywhere.result["moment"] < site.text_of(moment)
    assert then.result["heartbeat"] == site.text_of(str(beats[-1]))
    assert [done.status for done in failed] == [4, 4, 4], [done.out for done in failed]
    for done, said in zip(
        failed, ("5 min 0 s are allowed", "a later heartbeat", "no heartbeat"), strict=True
    ):
        assert said in done.out
        assert "stopped and removed; nothing live was touched" in done.out
    assert [path.name for path in site.folder.iterdir() if path.name.startswith("drill")] == []
    assert site.sql("SELECT count(*) FROM kept") == 1


def test_a_drill_says_what_it_lacks_and_leaves_nothing(site: Archiving) -> None:
    site.take_base()

    early = site.drill()
    site.sql("INSERT INTO kept VALUES (1)")
    site.switch_and_wait()
    missing = site.drill()
    wrong = site.drill(heartbeat="postgres:heartbeat")

    assert (early.status, "there is no time to go to" in early.out) == (1, True), early.out
    assert (missing.status, 'relation \\"public.heartbeat\\" does not exist' in missing.out) == (1, True), (
        missing.out
    )
    assert (wrong.status, "Write DATABASE:TABLE.COLUMN" in wrong.out) == (2, True), wrong.out
    assert [path.name for path in site.folder.iterdir() if path.name.startswith("drill")] == []


def test_a_restored_server_stands_apart_and_takes_what_is_written(site: Archiving) -> None:
    site.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    site.sql("ALTER SYSTEM SET archive_timeout = '7s'")
    site.sql("ALTER SYSTEM SET archive_mode = 'always'")
    site.take_base()
    site.switch_and_wait()

    done = site.restore()

    assert site.values(done) == []
    restored = {
        name: site.restored_sql(done, f"SHOW {name}")
        for name in ("archive_mode", "synchronous_standby_names", "listen_addresses", "archive_timeout")
    }
    assert restored == {
        "archive_mode": "off",
        "synchronous_standby_names": "",
        "listen_addresses": "127.0.0.1",
        "archive_timeout": "7s",
    }
    assert site.restored_sql(done, "INSERT INTO kept VALUES (9) RETURNING value") == 9
    assert site.restored_sql(done, "SHOW data_directory") == str(site.folder / "restored")


def test_a_time_behind_the_last_commit_is_refused_with_the_last_that_can_be(site: Archiving) -> None:
    site.take_base()
    site.sql("INSERT INTO kept VALUES (1)")
    moment = site.now()
    site.switch_and_wait()

    done = site.restore("--at", moment)

    assert done.status == 1
    assert "no transaction after that time is in the archive" in done.out
    assert "The last transaction that can be reached ended at" in done.out
    assert not any((site.folder / name).exists() for name in ("restored", "restored.wal"))


def test_a_time_before_the_first_base_backup_is_refused(site: Archiving) -> None:
    moment = site.now()
    site.sql("INSERT INTO kept VALUES (1)")
    site.take_base()
    site.switch_and_wait()

    done = site.restore("--at", moment)

    assert (done.status, "is too early: the first base backup of main ended at" in done.out) == (1, True)
    assert not (site.folder / "restored").exists()


def test_a_gap_is_named_by_check_and_refused_by_a_restore(site: Archiving) -> None:
    site.take_base()
    site.sql("INSERT INTO kept VALUES (1)")
    before = site.now()
    site.sql("INSERT INTO kept VALUES (2)")
    site.switch_and_wait()
    site.sql("INSERT INTO kept VALUES (3)")
    lost = site.switch_and_wait()
    behind = site.now()
    site.sql("INSERT INTO kept VALUES (4)")
    site.switch_and_wait()
    site.stored(lost).unlink()

    checked = site.run("check", site.repository)
    refused = [site.restore("--at", behind), site.restore()]
    reached = site.restore("--at", before, name="before")

    assert (checked.status, f"WAL segment {lost} of cluster" in checked.err) == (4, True), checked
    for done in refused:
        assert (done.status, f"WAL segment {lost} is missing" in done.out) == (1, True), done.out
    assert not (site.folder / "restored").exists()
    assert site.values(reached) == [1]


def test_a_dry_run_proves_the_time_and_writes_nothing(site: Archiving) -> None:
    site.take_base()
    moment = site.now()
    site.sql("INSERT INTO kept VALUES (1)")
    site.switch_and_wait()

    done = site.restore("--at", moment, "--dry-run")

    assert (done.status, done.result["dry_run"]) == (0, True)
    assert done.result["next_transaction"] > moment.replace("+00:00", "Z")
    assert not any((site.folder / name).exists() for name in ("restored", "restored.wal"))


def test_without_room_nothing_is_fetched_and_nothing_is_left(site: Archiving, tmp_path: Path) -> None:
    skip_unless_mounts_work(tmp_path / "probe", "tmpfs")
    site.take_base()
    moment = site.now()
    site.sql("INSERT INTO kept VALUES (1)")
    site.switch_and_wait()
    size = sum(path.stat().st_size for path in site.data.rglob("*") if path.is_file())

    def on_a_disk_of(mega_bytes: int, *options: str) -> tuple[int, str, list[Path]]:
        disk = site.folder / f"disk{mega_bytes}"
        with mounted(disk, "-t", "tmpfs", "-o", f"size={mega_bytes}m,mode=777", "tmpfs"):
            done = site.restore(*options, name=f"{disk.name}/restored")
            left = [path for path in disk.rglob("*") if path.is_file()]
            site.stop_restored()
            return done.status, done.out, left

    small = on_a_disk_of(20, "--at", moment)
    dry = on_a_disk_of(21, "--at", moment, "--dry-run")
    large = on_a_disk_of(2 * (size >> 20) + 200, "--at", moment)

    for status, out, left in (small, dry):
        assert (status, " MB are needed for the cluster and the WAL" in out, left) == (1, True, [])
    assert large[0] == 0, large[1]


def test_a_snapshot_that_cannot_be_read_keeps_nobody_from_another_base_backup(site: Archiving) -> None:
    good = site.take_base()
    before = {*(site.repository / "manifests").rglob("*")}
    spoiled = site.take_base()
    (manifest,) = (
        path for path in (site.repository / "manifests").rglob("*") if path.is_file() and path not in before
    )
    manifest.chmod(0o600)
    manifest.write_bytes(manifest.read_bytes()[:-40])
    moment = site.now()
    site.sql("INSERT INTO kept VALUES (1)")
    site.switch_and_wait()

    done = site.restore("--at", moment, "--dry-run")
    listed = site.run("cluster", "list", site.repository)

    assert (done.status, done.result["base"]["snapshot"]) == (0, good)
    assert spoiled in done.result["notices"][0]
    assert (listed.status, good in listed.out, spoiled in listed.err) == (0, True, True)


def test_while_the_repository_is_away_the_server_keeps_all_and_nothing_is_lost(site: Archiving) -> None:
    site.take_base()
    away = site.folder / "away"
    site.repository.rename(away)
    segments = []
    for value in range(3):
        site.sql(f"INSERT INTO kept VALUES ({value})")
        segments.append(site.switch())
    wait_for(lambda: site.sql("SELECT failed_count FROM pg_stat_archiver") > 0)
    waiting = [site.data / "pg_wal/archive_status" / f"{segment}.ready" for segment in segments]
    pushed = site.run("archive-push", site.repository, f"pg_wal/{segments[0]}")

    assert pushed.status not in {0, *range(126, 256)}, pushed.err
    assert all(path.exists() for path in waiting)
    away.rename(site.repository)
    wait_for(lambda: not any(path.exists() for path in waiting))
    assert site.values(site.restore()) == [0, 1, 2]


def test_the_same_file_again_is_no_error_and_another_is_refused(site: Archiving) -> None:
    segment = site.switch_and_wait()
    path, copy = site.data / "pg_wal" / segment, site.folder / "pg_wal" / segment
    kept = site.stored(segment).read_bytes()
    copy.parent.mkdir()
    copy_control(site, site.folder)
    other = bytearray(path.read_bytes())
    other[100_000] ^= 1
    copy.write_bytes(other)

    again = site.run("archive-push", site.repository, path, "--json")
    refused = site.run("archive-push", site.repository, copy, "--json")

    assert (again.status, again.result["was_there"]) == (0, True)
    assert (refused.status, "has another file of the name" in refused.out) == (1, True)
    assert site.stored(segment).read_bytes() == kept


@pytest.mark.parametrize("after", [False, True])
def test_killed_around_the_rename_the_next_try_ends_well(site: Archiving, after: bool) -> None:
    segment = site.switch_and_wait()
    path = site.data / "pg_wal" / segment
    stored = site.stored(segment)
    stored.unlink()

    killed = site.run("archive-push", site.repository, path, program=KILL_AT.format(after=after))
    was_there = stored.exists()
    again = site.run("archive-push", site.repository, path, "--json")

    assert (killed.status, was_there) == (-9, after)
    assert (again.status, again.result["was_there"]) == (0, after)
    out = site.folder / "out"
    out.mkdir()
    shutil.chown(out, *owner(site))
    assert site.run("archive-get", site.repository, segment, out / "got").status == 0
    assert (out / "got").read_bytes() == path.read_bytes()
    assert site.run("check", site.repository, "--read-data").status == 0


def test_what_is_no_segment_of_this_server_is_refused(site: Archiving) -> None:
    segment = site.switch_and_wait()
    whole = (site.data / "pg_wal" / segment).read_bytes()
    foreign = site.folder / "foreign/pg_wal"
    foreign.mkdir(parents=True)
    copy_control(site, foreign.parent).write_bytes(b"12345678")
    (foreign / segment).write_bytes(whole)
    scene = site.folder / "pg_wal"
    scene.mkdir()
    copy_control(site, site.folder)
    later = f"{segment[:16]}{int(segment[16:], 16) + 9:08X}"
    (scene / later).write_bytes(whole)
    (scene / segment).write_bytes(whole[:-8192])
    (scene / "notes.txt").write_text("no WAL")
    before = sorted((site.repository / "wal").rglob("*"))

    ends = [
        site.run("archive-push", site.repository, path)
        for path in (foreign / segment, scene / later, scene / segment, scene / "notes.txt")
    ]

    words = ("is of cluster", "holds another segment", "is no whole WAL segment", "is no file that")
    assert [(done.status > 0, word in done.err) for done, word in zip(ends, words, strict=True)] == [
        (True, True)
    ] * 4
    assert sorted((site.repository / "wal").rglob("*")) == before


def test_archive_get_tells_what_is_not_there_from_what_cannot_be_told(site: Archiving) -> None:
    site.switch_and_wait()
    target = site.data / "pg_wal/RECOVERYXLOG"
    absent = site.run("archive-get", site.repository, "0000000100000000000000FF", target)
    site.repository.rename(site.folder / "away")
    unknown = site.run("archive-get", site.repository, "000000010000000000000001", target)
    (site.folder / "away").rename(site.repository)
    mistyped = site.run("archive-get", site.repository, "000000010000000000000001", target, "--key-fil=x")

    # A server takes up to 125 for "there is none", and ends its recovery.
    assert (absent.status, unknown.status, mistyped.status) == (1, 126, 126)
    assert not target.exists()


def test_the_restore_command_of_the_guide_takes_no_failure_for_the_end(site: Archiving) -> None:
    there = site.switch_and_wait()
    lost = f"{there[:16]}{int(there[16:], 16) + 9:08X}"
    guide = (ROOT / "docs/admin-guide/restore-points.md").read_text()
    script = "#!/bin/sh\n" + guide.partition("```sh\n#!/bin/sh\n")[2].partition("```")[0]
    python = " ".join((*site.python, "-m backup_admin.cli"))
    script = script.replace("$(backup-admin", f"$({python}").replace("/mnt/wal", str(site.repository))
    script = script.replace("/etc/backup/wal.key", str(site.folder / "key"))
    script = script.replace("/var/lib/postgresql/backup", str(site.folder / "state"))

    def get(file: str, script: str) -> int:
        command = [*as_server(), "sh", "-c", script, "backup-get", file, "got"]
        done = subprocess.run(
            command, cwd=site.data, env=site.environment, check=False, capture_output=True, timeout=120
        )
        return done.returncode

    found = get(there, script)
    got = (site.data / "got").read_bytes()
    absent = get(lost, script)
    no_python = get(lost, script.replace(site.python[0], "/nowhere/python"))
    no_package = get(lost, script.replace("backup_admin.cli", "backup_gone.cli"))
    site.repository.rename(site.folder / "away")
    away = get(lost, script)

    assert (found, absent, no_python, no_package, away) == (0, 1, 126, 126, 126)
    assert got == (site.data / "pg_wal" / there).read_bytes()


def test_prune_forgets_what_no_base_backup_needs_and_nothing_else(site: Archiving) -> None:
    site.sql("INSERT INTO kept VALUES (1)")
    early = site.switch_and_wait()
    first = site.take_base()
    between = site.switch_and_wait()
    assert site.good("prune", site.repository, "--unknown-now", "--json").result["wal_files_deleted"] >= 1
    assert not list((site.repository / "wal").glob(f"*/{early.lower()}"))
    assert site.stored(between).exists()

    site.take_base()
    site.sql("INSERT INTO kept VALUES (2)")
    moment = site.now()
    site.sql("INSERT INTO kept VALUES (3)")
    site.switch_and_wait()
    site.good("forget", site.repository, first)
    site.good("prune", site.repository, "--unknown-now")

    assert not list((site.repository / "wal").glob(f"*/{between.lower()}"))
    assert site.run("check", site.repository, "--read-data").status == 0
    assert site.values(site.restore("--at", moment)) == [1, 2]


def test_a_mirror_holds_the_archive_too(site: Archiving) -> None:
    site.take_base()
    site.sql("INSERT INTO kept VALUES (1)")
    site.switch_and_wait()
    mirror = site.folder / "mirror"
    site.good("mirror", site.repository, "--to", mirror)
    shutil.rmtree(site.repository)
    shutil.copytree(mirror, site.repository, copy_function=shutil.copy2)
    for path in (site.repository, *site.repository.rglob("*")):
        shutil.chown(path, *owner(site))

    assert site.values(site.restore()) == [1]


def test_a_restored_server_goes_on_in_a_timeline_of_its_own(site: Archiving) -> None:
    site.take_base()
    site.sql("INSERT INTO kept VALUES (1)")
    moment = site.now()
    site.sql("INSERT INTO kept VALUES (2)")
    site.switch_and_wait()
    done = site.restore("--at", moment)
    site.restored_sql(done, "INSERT INTO kept VALUES (70)")
    new = str(site.restored_sql(done, "SELECT pg_walfile_name(pg_switch_wal())"))
    for file in ("00000002.history", new):
        assert site.run("archive-push", site.repository, site.folder / "restored/pg_wal" / file).status == 0
    site.sql("INSERT INTO kept VALUES (3)")
    site.switch_and_wait()

    newest = site.restore(name="newest")
    older = site.restore("--timeline", 1, name="older")

    assert new.startswith("00000002")
    assert site.values(newest) == [1, 70]
    assert site.values(older) == [1, 2, 3]
    assert site.restored_sql(newest, "SELECT timeline_id FROM pg_control_checkpoint()") == 3


def copy_control(site: Archiving, folder: Path) -> Path:
    """Make a folder look like the data directory of the server; return the file that does it."""
    control = folder / "global/pg_control"
    control.parent.mkdir()
    control.write_bytes((site.data / "global/pg_control").read_bytes())
    return control


def owner(site: Archiving) -> tuple[int, int]:
    found = site.repository.parent.stat()
    return found.st_uid, found.st_gid


def test_a_base_backup_in_a_folder_is_one_that_the_server_accepts(site: Archiving) -> None:
    site.take_base()
    out = site.folder / "out"

    verified = site.run("verify", "latest", site.repository)
    site.good("restore", "latest", site.repository, "--to", out)

    assert verified.status == 0, verified.err
    program = str(site.server.programs / "pg_verifybackup")
    done = subprocess.run(
        [program, str(out / "databases" / NAME)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_without_archiving_a_base_backup_says_what_it_is_worth(pytestconfig: pytest.Config) -> None:
    with archiving(pytestconfig, DEBIAN, archive_mode="off") as site:
        site.sql("INSERT INTO kept VALUES (1)")
        site.take_base()
        site.sql("INSERT INTO kept VALUES (2)")
        moment = site.now()

        shown = site.good("show", "latest", site.repository).out
        refused = site.restore("--at", moment)
        whole = site.restore()

        assert "The server does not archive its WAL" in shown
        assert (refused.status, "no transaction after that time" in refused.out) == (1, True)
        assert site.values(whole) == [1]


def test_a_base_backup_that_fails_makes_no_snapshot(pytestconfig: pytest.Config) -> None:
    with archiving(pytestconfig, DEBIAN, max_wal_senders="0") as site:
        address = f"{NAME}=host={site.server.folder} port={site.server.port} user=postgres dbname=postgres"

        done = site.run("run", site.repository, "--postgres-cluster", address)

        assert done.status == 1, done.out
        assert "pg_basebackup ended with status 1" in done.err
        assert site.good("list", site.repository, "--json").result["snapshots"] == []
        assert not list((site.folder / "state/scratch").iterdir())


def test_a_base_backup_never_goes_over_a_live_database(site: Archiving) -> None:
    site.take_base()
    live = f"{NAME}=host={site.server.folder} port={site.server.port} user=postgres dbname=postgres"

    whole = site.run("restore", "latest", site.repository, "--in-place", "--postgres", live, "--yes")
    rows = site.run(
        "restore", "latest", site.repository, "--postgres", live, "--table", f"{NAME}.public.kept", "--yes"
    )

    export = site.run(
        "export", "latest", site.repository, "--format", "json", "--to", site.folder / "exported"
    )

    for done in (whole, rows, export):
        assert (done.status, "is the base backup of a whole server" in done.err) == (2, True), done.err


def test_the_role_of_the_guide_takes_base_backups_and_its_password_is_nowhere(site: Archiving) -> None:
    secret = PASSWORD.replace("'", "''")
    site.sql(f"CREATE ROLE replica LOGIN REPLICATION PASSWORD '{secret}'")
    site.sql("REVOKE ALL ON kept FROM PUBLIC")
    site.sql("INSERT INTO kept VALUES (1)")
    address = site.server.address("postgres", user="replica")

    site.good("run", site.repository, "--postgres-cluster", f"{NAME}={address}")

    shown = site.good("show", "latest", site.repository).out
    kept = [path.read_bytes() for path in (site.folder / "state").rglob("*") if path.is_file()]
    for text in (PASSWORD, quote(PASSWORD, safe="")):
        assert text not in shown
        assert not [data for data in kept if text.encode() in data]
    assert site.values(site.restore()) == [1]


def test_tablespaces_are_refused_before_anything_is_copied(site: Archiving) -> None:
    place = site.folder / "space"
    place.mkdir()
    shutil.chown(place, *owner(site))
    site.sql(f"CREATE TABLESPACE aside LOCATION '{place}'")
    address = f"{NAME}=host={site.server.folder} port={site.server.port} user=postgres dbname=postgres"

    done = site.run("run", site.repository, "--postgres-cluster", address)

    assert (done.status, "has tablespaces (aside)" in done.err) == (1, True), done.err


def test_a_server_without_the_name_is_refused(site: Archiving) -> None:
    site.take_base()

    done = site.run("cluster", "restore", "other", site.repository, "--to", "/tmp/nowhere", "--port", 1)

    assert (done.status, f"there are: {NAME}" in done.err) == (1, True), done.err
