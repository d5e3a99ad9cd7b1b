"""The verb that backs up."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from backup_admin.cli.describing import describe_snapshot
from backup_admin.cli.named_sources import check_text, make_sources
from backup_admin.cli.opening import Surroundings, actor, open_given, open_place, repository_options
from backup_admin.core.errors import BackupAdminError
from backup_admin.core.shown import columns, count_of, show_size
from backup_admin.operations.answers import Answer
from backup_admin.operations.backup import back_up
from backup_admin.operations.mirror import MirrorOptions, mirror
from backup_admin.operations.mirror_plan import plan_mirror
from backup_admin.operations.results import BackupOptions, BackupResult, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.core.progress import Reporter
    from backup_admin.core.state import StateFolder
    from backup_admin.repository.repository import Repository

_DEGRADED = 3
_STOPPED = "No snapshot was made; earlier ones are intact."


@dataclass(frozen=True, slots=True)
class _Copy:
    """What became of one mirror; without a problem it holds the snapshot."""

    mirror: str
    problem: str


@click.command("run")
@click.argument("storage")
@click.option("--files", multiple=True, metavar="NAME=DIR", help="A folder to back up; may be repeated.")
@click.option("--sqlite", multiple=True, metavar="NAME=FILE", help="A SQLite database; may be repeated.")
@click.option(
    "--postgres", multiple=True, metavar="NAME=ADDRESS", help="A PostgreSQL database; may be repeated."
)
@click.option(
    "--postgres-format",
    type=click.Choice(["auto", "archive"]),
    default="auto",
    help="Parts where they carry all there is, the default, or one archive for each database.",
)
@click.option(
    "--exclude", multiple=True, metavar="PATTERN", help="Leave out: '*.tmp', 'cache/', '/only/here'."
)
@click.option("--label", default="", help="A few words to know the snapshot by.")
@click.option(
    "--mirror",
    "mirrors",
    multiple=True,
    metavar="ADDRESS",
    help="A storage that gets a copy of the repository afterwards; may be repeated.",
)
@repository_options
@click.pass_obj
def run_verb(  # noqa: PLR0913  one parameter for each option
    surroundings: Surroundings,
    *,
    storage: str,
    files: tuple[str, ...],
    sqlite: tuple[str, ...],
    postgres: tuple[str, ...],
    postgres_format: str,
    exclude: tuple[str, ...],
    label: str,
    mirrors: tuple[str, ...],
    key_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Back up folders and databases as one snapshot.

    Everything stored is read back before the snapshot exists. Databases may be in
    use. Ends with 3 when something could not be read: the snapshot is kept without
    it, and each file is named. Also with 3 when a mirror is not up to date afterwards.
    """
    options = BackupOptions(label=check_text(label, "--label"), kind="manual", actor=actor())
    make_sources(files, sqlite, postgres, exclude=exclude)
    repository, state = open_given(surroundings, storage, key_file, state_dir)
    pinned = [path.absolute() for path in (state.root, key_file) if path is not None]
    sources = make_sources(
        files, sqlite, postgres, exclude=exclude, pinned=pinned, archive=postgres_format == "archive"
    )
    with surroundings.reporting(_STOPPED) as reporter:
        result = back_up(
            repository,
            sources,
            options=options,
            state=state,
            reporter=reporter,
            clock=surroundings.clock,
        )
        copies = tuple(_copy(surroundings, repository, state, address, reporter) for address in mirrors)
    return _answer(result, copies)


def _copy(
    surroundings: Surroundings, repository: Repository, state: StateFolder, address: str, reporter: Reporter
) -> _Copy:
    """Bring one mirror up to date; what keeps it from that stops no other, since the snapshot is made."""
    label = address.partition("?")[0]
    try:
        target = open_place(surroundings, address, state.root)
        label = target.label
        plan = plan_mirror(repository.storage, target)
        options = MirrorOptions(read_back=True)
        report = mirror(repository.storage, target, plan, reporter=reporter, state=state, options=options)
    except BackupAdminError as error:
        return _Copy(label, str(error))
    return _Copy(label, " ".join(report.problems))


def _answer(result: BackupResult, copies: tuple[_Copy, ...]) -> Answer:
    behind = [copy for copy in copies if copy.problem]
    return Answer(
        result={
            "snapshot": describe_snapshot(result.snapshot),
            "outcome": result.outcome.value,
            "warnings": list(result.warnings),
            "lock_problems": list(result.lock_problems),
            "notices": list(result.notices),
            "new_bytes": result.new_bytes,
            "objects_read_back": result.evidence.objects_read,
            "bytes_read_back": result.evidence.bytes_read,
            "seconds": round(result.seconds, 3),
            "mirrors": [asdict(copy) for copy in copies],
        },
        lines=(*_lines(result), *(f"  Mirrored to {copy.mirror}" for copy in copies if not copy.problem)),
        exit_code=_DEGRADED if result.outcome is Outcome.DEGRADED or behind else 0,
        notes=(
            *(f"note: {notice}" for notice in result.notices),
            *(f"missing: {warning}" for warning in result.warnings),
            *(f"not locked: {problem}" for problem in result.lock_problems),
            *(f"mirror {copy.mirror}: {copy.problem}" for copy in behind),
        ),
    )


def _lines(result: BackupResult) -> Iterator[str]:
    snapshot = result.snapshot
    if result.outcome is Outcome.DEGRADED and not result.warnings:
        yield f"Snapshot {snapshot.id} was made and read back, but not all of it is locked for long enough."
    elif result.outcome is Outcome.DEGRADED:
        lost = count_of(snapshot.warning_count, "thing")
        yield f"Snapshot {snapshot.id} was made, but {lost} could not be read; each is named below."
    else:
        yield f"Snapshot {snapshot.id} is complete and was read back."
    yield from columns(
        [
            ("  Files", f"{snapshot.file_count:,}, {show_size(snapshot.file_bytes)}"),
            ("  Databases", f"{snapshot.database_count:,}, {show_size(snapshot.database_bytes)}"),
            ("  Newly stored", show_size(result.new_bytes)),
            ("  Read back", show_size(result.evidence.bytes_read)),
            ("  Took", f"{result.seconds:.1f} s"),
        ]
    )
