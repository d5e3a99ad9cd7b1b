"""The verbs that prove that backups are good: check, verify."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from backup_admin.cli.opening import Surroundings, open_given, repository_options
from backup_admin.cli.printing import Answer, count_of, show_size
from backup_admin.core.errors import VerificationFailed
from backup_admin.operations.check import check_repository
from backup_admin.operations.verify import verify_snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.operations.results import CheckReport, VerifyReport

_FAILED = VerificationFailed.exit_code


@click.command("check")
@click.argument("storage")
@click.option("--read-data", is_flag=True, help="Read every stored byte too.")
@repository_options
@click.pass_obj
def check_verb(
    surroundings: Surroundings,
    *,
    storage: str,
    read_data: bool,
    key_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Check that everything the snapshots need is there.

    Ends with 4 when something is damaged or missing, and names it.
    """
    repository, _ = open_given(surroundings, storage, key_file, state_dir)
    with surroundings.reporting() as reporter:
        report = check_repository(repository, read_data=read_data, reporter=reporter)
    return Answer(
        result={
            "repository": repository.repo_id,
            "snapshots": report.snapshots,
            "objects": report.objects,
            "bytes_read": report.bytes_read,
            "read_data": report.read_data,
            "problems": list(report.problems),
            "notices": list(report.notices),
        },
        lines=[_check_line(report)],
        exit_code=0 if report.ok else _FAILED,
        notes=[
            *(f"note: {notice}" for notice in report.notices),
            *(f"problem: {problem}" for problem in report.problems),
        ],
    )


def _check_line(report: CheckReport) -> str:
    about = f"{count_of(report.snapshots, 'snapshot')}, {count_of(report.objects, 'object')}"
    if not report.ok:
        return (
            f"{count_of(len(report.problems), 'problem')} found in {about}. Other snapshots can be restored."
        )
    if report.read_data:
        return f"No problem in {about}; every byte was read ({show_size(report.bytes_read)})."
    return f"No problem in {about}. The contents were not read: --read-data does that."


@click.command("verify")
@click.argument("snapshot")
@click.argument("storage")
@repository_options
@click.pass_obj
def verify_verb(
    surroundings: Surroundings, *, snapshot: str, storage: str, key_file: Path | None, state_dir: Path | None
) -> Answer:
    """Read a snapshot whole and compare every file and table with its manifest.

    SNAPSHOT is an id, the beginning of one, or `latest`. Ends with 4 when something
    differs or is missing, and names it.
    """
    repository, state = open_given(surroundings, storage, key_file, state_dir)
    found = repository.find_snapshot(snapshot)
    with surroundings.reporting() as reporter:
        report = verify_snapshot(repository, found.id, state=state, reporter=reporter)
    return Answer(
        result={
            "snapshot": report.snapshot_id,
            "files": report.files,
            "databases": report.databases,
            "bytes_read": report.bytes_read,
            "problems": list(report.problems),
        },
        lines=[_verify_line(report)],
        exit_code=0 if report.ok else _FAILED,
        notes=[f"problem: {problem}" for problem in report.problems],
    )


def _verify_line(report: VerifyReport) -> str:
    about = (
        f"{count_of(report.files, 'file')} and {count_of(report.databases, 'database')} "
        f"({show_size(report.bytes_read)})"
    )
    if report.ok:
        return f"Snapshot {report.snapshot_id} is as its manifest says: {about} read."
    return f"Snapshot {report.snapshot_id} has {count_of(len(report.problems), 'problem')}: {about} read."
