"""The verbs that prove that backups are good: check, verify."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from backup_admin.cli.opening import Surroundings, choose, open_given, open_place, repository_options
from backup_admin.core.errors import UsageError
from backup_admin.operations.answers import Answer, answer_check, answer_verify
from backup_admin.operations.check import check_repository
from backup_admin.operations.keyless import answer_keyless, check_keyless
from backup_admin.operations.sampling import open_sampler, parse_sample
from backup_admin.operations.verified import note_verified
from backup_admin.operations.verify import verify_snapshot
from backup_admin.verbs.base import AT

if TYPE_CHECKING:
    from pathlib import Path


@click.command("check")
@click.argument("storage")
@click.option("--read-data", is_flag=True, help="Read every stored byte too.")
@click.option(
    "--sample",
    default="",
    metavar="SHARE",
    help="Read a part (1/30 or 5%) that was not read for longest; so many runs read all.",
)
@click.option("--keyless", is_flag=True, help="Needs no key: compare packs and index with their names.")
@repository_options
@click.pass_obj
def check_verb(  # noqa: PLR0913  one parameter for each option
    surroundings: Surroundings,
    *,
    storage: str,
    read_data: bool,
    sample: str,
    keyless: bool,
    key_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Check that everything the snapshots need is there.

    Ends with 4 when something is damaged or missing, and names it with the
    snapshots and files it affects.
    """
    if read_data + bool(sample) + keyless > 1:
        raise UsageError("--read-data, --sample and --keyless exclude each other.")
    runs = parse_sample(sample) if sample else 0
    if keyless:
        place = open_place(surroundings, storage, state_dir)
        with surroundings.reporting() as reporter:
            return answer_keyless(place.label, check_keyless(place, reporter=reporter))
    repository, state = open_given(surroundings, storage, key_file, state_dir)
    sampler = open_sampler(state, repository.state_name, runs) if runs else None
    with surroundings.reporting() as reporter:
        report = check_repository(
            repository, read_data=read_data, reporter=reporter, sampler=sampler, clock=surroundings.clock
        )
    if read_data and report.ok:
        note_verified(state, repository.state_name, repository.snapshot_ids(), now=surroundings.clock.now())
    return answer_check(repository, report)


@click.command("verify")
@click.argument("snapshot")
@click.argument("storage")
@AT
@repository_options
@click.pass_obj
def verify_verb(
    surroundings: Surroundings,
    *,
    snapshot: str,
    storage: str,
    at: str,
    key_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Read a snapshot whole and compare every file and table with its manifest.

    SNAPSHOT is an id, the beginning of one, or `latest`. Ends with 4 when something
    differs or is missing, and names it.
    """
    repository, state = open_given(surroundings, storage, key_file, state_dir)
    found = choose(surroundings, repository, snapshot, at)
    with surroundings.reporting() as reporter:
        report = verify_snapshot(repository, found, state=state, reporter=reporter)
    if report.ok:
        note_verified(state, repository.state_name, [found], now=surroundings.clock.now())
    return answer_verify(report)
