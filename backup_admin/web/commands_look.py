"""The verbs of `flask backup` that look into the repository: show, diff, check."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import click

from backup_admin.control import engine
from backup_admin.core.errors import UsageError
from backup_admin.core.progress import QuietReporter
from backup_admin.operations.answers import Answer, answer_check, answer_diff
from backup_admin.operations.check import check_repository
from backup_admin.operations.export import export_manifest
from backup_admin.operations.keyless import answer_keyless, check_keyless
from backup_admin.operations.points import pick
from backup_admin.operations.sampling import open_sampler, parse_sample
from backup_admin.verbs.base import AT
from backup_admin.web.command_line import is_json, ready, say, verb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backup_admin.core.ids import SnapshotId
    from backup_admin.repository.repository import Repository


@click.command("show")
@click.argument("snapshot")
@AT
@verb
def show_command(*, snapshot: str, at: str) -> Iterator[str]:
    """Print the manifest of a snapshot as JSON.

    SNAPSHOT is an id, the beginning of one, or `latest`. Secrets are not in it.
    """
    repository = open_repository()
    pieces = export_manifest(repository, choose(repository, snapshot, at))
    # What fails at once fails before anything is printed.
    return chain([next(pieces)], pieces)


@click.command("diff")
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@verb
def diff_command(*, before: str, after: str) -> Answer:
    """Say what changed from snapshot A to snapshot B."""
    repository = open_repository()
    old, new = repository.find_snapshot(before), repository.find_snapshot(after)
    return answer_diff(repository, old.id, new.id, as_json=is_json())


@click.command("check")
@click.option("--read-data", is_flag=True, help="Read every stored byte too.")
@click.option(
    "--sample",
    default="",
    metavar="SHARE",
    help="Read a part (1/30 or 5%) that was not read for longest; so many runs read all.",
)
@click.option("--keyless", is_flag=True, help="Needs no key: compare packs and index with their names.")
@verb
def check_command(*, read_data: bool, sample: str, keyless: bool) -> Answer:
    """Check that everything the snapshots need is there.

    Ends with 4 when something is damaged or missing, and names it with the
    snapshots and files it affects.
    """
    if read_data + bool(sample) + keyless > 1:
        raise UsageError("--read-data, --sample and --keyless exclude each other.")
    runs = parse_sample(sample) if sample else 0
    installation = ready()
    if keyless:
        with installation.database.new_session() as session:
            place = engine.open_storage(session, installation)
        return answer_keyless(place.label, check_keyless(place, reporter=QuietReporter()))
    repository = open_repository()
    sampler = open_sampler(installation.state, repository.state_name, runs) if runs else None
    report = check_repository(
        repository, read_data=read_data, reporter=QuietReporter(), sampler=sampler, clock=installation.clock
    )
    return answer_check(repository, report)


def choose(repository: Repository, snapshot: str, at: str) -> SnapshotId:
    """Return the snapshot by name, or by the point in time `at` where one is given: then say which it is."""
    found, notes = pick(repository, snapshot, at, ready().clock.now())
    for note in notes:
        say(note)
    return found


def open_repository() -> Repository:
    """Open the repository of the app at hand with its key."""
    installation = ready()
    with installation.database.new_session() as session:
        return engine.open_repository(session, installation)
