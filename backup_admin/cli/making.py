"""The verb that backs up, and skips what did not change."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import click

from backup_admin.cli.describing import describe_snapshot
from backup_admin.cli.named_sources import check_text, make_sources
from backup_admin.cli.opening import Surroundings, actor, open_given, open_place, repository_options
from backup_admin.core.errors import BackupAdminError, UsageError
from backup_admin.core.shown import columns, count_of, show_size, show_text
from backup_admin.core.telling import telling
from backup_admin.operations.answers import INCOMPLETE, SKIPPED, Answer
from backup_admin.operations.backup import back_up
from backup_admin.operations.changes import ChangeOptions, Decision
from backup_admin.operations.look_for_changes import look_for_changes
from backup_admin.operations.mirror import MirrorOptions, mirror
from backup_admin.operations.mirror_plan import plan_mirror
from backup_admin.operations.results import BackupOptions, BackupResult, Outcome, SourceSet
from backup_admin.operations.tables_there import tables_and_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.core.clock import Clock
    from backup_admin.core.progress import Reporter
    from backup_admin.core.state import StateFolder
    from backup_admin.repository.repository import Repository

_MAX_SKIP_HOURS = 24
_NOT_DONE = "Nothing was backed up, and earlier snapshots are intact. Mend that, or run without it."
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
    "--postgres-cluster",
    "clusters",
    multiple=True,
    metavar="NAME=ADDRESS",
    help="A whole PostgreSQL server, as a base backup; may be repeated.",
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
@click.option("--if-changed", is_flag=True, help="Skip when all is as in the newest snapshot.")
@click.option("--exit-skipped", is_flag=True, help="End with 10 when it was skipped.")
@click.option(
    "--max-skip-hours",
    type=click.IntRange(1, 24 * 366),
    show_default=f"{_MAX_SKIP_HOURS}",
    help="Never skip when the newest snapshot is older.",
)
@click.option(
    "--ignore-table",
    "ignored",
    multiple=True,
    metavar="NAME.TABLE",
    help="A table whose changes are no reason to run; also a pattern. It is backed up all the same.",
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
    clusters: tuple[str, ...],
    postgres_format: str,
    exclude: tuple[str, ...],
    label: str,
    mirrors: tuple[str, ...],
    if_changed: bool,
    exit_skipped: bool,
    max_skip_hours: int | None,
    ignored: tuple[str, ...],
    key_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Back up folders and databases as one snapshot.

    Everything stored is read back before the snapshot exists. Databases may be in
    use. Ends with 3 when something could not be read: the snapshot is kept without
    it, and each file is named. Also with 3 when a mirror is not up to date afterwards.
    """
    if not if_changed:
        _refuse(exit_skipped=exit_skipped, max_skip_hours=max_skip_hours, ignore_table=ignored)
    skips = ChangeOptions(timedelta(hours=max_skip_hours or _MAX_SKIP_HOURS), ignored) if if_changed else None
    options = BackupOptions(label=check_text(label, "--label"), kind="manual", actor=actor())
    _check_ignored(ignored, make_sources(files, sqlite, postgres, clusters, exclude=exclude))
    repository, state = open_given(surroundings, storage, key_file, state_dir)
    pinned = [path.absolute() for path in (state.root, key_file) if path is not None]
    sources = make_sources(
        files,
        sqlite,
        postgres,
        clusters,
        exclude=exclude,
        pinned=pinned,
    )
    servers = tuple(replace(one, archive=postgres_format == "archive") for one in sources.postgres)
    sources = replace(sources, postgres=servers)
    with surroundings.reporting(_STOPPED) as reporter, telling(_NOT_DONE):
        given = _Given(repository, sources, state, reporter, surroundings.clock)
        decision = Decision(run=True, reason="") if skips is None else _look(given, skips)
        result = _back_up(given, options) if decision.run else None
        copies = tuple(_copy(surroundings, repository, state, address, reporter) for address in mirrors)
    if result is None:
        return _skipped(decision, copies, exit_code=SKIPPED if exit_skipped else 0)
    return _answer(result, copies, decision)


def _refuse(**options: object) -> None:
    for name, value in options.items():
        if value:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} has no meaning without --if-changed. Nothing was backed up.")


def _check_ignored(patterns: tuple[str, ...], sources: SourceSet) -> None:
    """Refuse a pattern that matches no table of any database, whatever tables there are."""
    names = sources.database_names()
    for pattern in patterns:
        heads = [pattern[:end] for end, letter in enumerate(pattern) if letter == "."]
        is_wide = "*" in pattern.partition(".")[0]  # it may stand for the dot too
        if not is_wide and not any(fnmatchcase(name, head) for name in names for head in heads):
            listed = ", ".join(names) or "none"
            raise UsageError(
                f"--ignore-table takes NAME.TABLE, with the NAME of a database given here ({listed}); got "
                f"{pattern!r}. Nothing was backed up."
            )


@dataclass(frozen=True, slots=True)
class _Given:
    """What there is to back up, and with what."""

    repository: Repository
    sources: SourceSet
    state: StateFolder
    reporter: Reporter
    clock: Clock


def _look(given: _Given, skips: ChangeOptions) -> Decision:
    return look_for_changes(
        given.repository,
        given.sources,
        options=skips,
        state=given.state,
        reporter=given.reporter,
        clock=given.clock,
    )


def _back_up(given: _Given, options: BackupOptions) -> BackupResult:
    return back_up(
        given.repository,
        given.sources,
        options=options,
        state=given.state,
        reporter=given.reporter,
        clock=given.clock,
    )


def _skipped(decision: Decision, copies: tuple[_Copy, ...], *, exit_code: int) -> Answer:
    behind = [copy for copy in copies if copy.problem]
    return Answer(
        result={
            "snapshot": None,
            "outcome": "skipped",
            "reason": decision.reason,
            "unchanged": decision.unchanged,
            "mirrors": [asdict(copy) for copy in copies],
        },
        lines=(f"Skipped: {decision.reason}", *_mirrored(copies)),
        exit_code=INCOMPLETE if behind else exit_code,
        notes=tuple(f"mirror {copy.mirror}: {copy.problem}" for copy in behind),
    )


def _mirrored(copies: tuple[_Copy, ...]) -> Iterator[str]:
    return (f"  Mirrored to {copy.mirror}" for copy in copies if not copy.problem)


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


def _answer(result: BackupResult, copies: tuple[_Copy, ...], decision: Decision) -> Answer:
    behind = [copy for copy in copies if copy.problem]
    return Answer(
        result={
            "snapshot": describe_snapshot(result.snapshot),
            "outcome": result.outcome.value,
            "reason": decision.reason,
            "warnings": list(result.warnings),
            "lock_problems": list(result.lock_problems),
            "notices": list(result.notices),
            "databases": [asdict(one) for one in result.databases],
            "new_bytes": result.new_bytes,
            "objects_read_back": result.evidence.objects_read,
            "bytes_read_back": result.evidence.bytes_read,
            "seconds": round(result.seconds, 3),
            "mirrors": [asdict(copy) for copy in copies],
        },
        lines=(*_lines(result, decision), *_mirrored(copies)),
        exit_code=INCOMPLETE if result.outcome is Outcome.DEGRADED or behind else 0,
        notes=(
            *(f"note: {notice}" for notice in result.notices),
            *(f"missing: {warning}" for warning in result.warnings),
            *(f"not locked: {problem}" for problem in result.lock_problems),
            *(f"mirror {copy.mirror}: {copy.problem}" for copy in behind),
        ),
    )


def _lines(result: BackupResult, decision: Decision) -> Iterator[str]:
    snapshot = result.snapshot
    if result.outcome is Outcome.DEGRADED and not result.warnings:
        yield f"Snapshot {snapshot.id} was made and read back, but not all of it is locked for long enough."
    elif result.outcome is Outcome.DEGRADED:
        lost = count_of(snapshot.warning_count, "thing")
        yield f"Snapshot {snapshot.id} was made, but it lacks {lost}; each is named below."
    else:
        yield f"Snapshot {snapshot.id} is complete and was read back."
    yield from columns(
        [
            ("  Files", f"{snapshot.file_count:,}, {show_size(snapshot.file_bytes)}"),
            ("  Databases", f"{snapshot.database_count:,}, {show_size(snapshot.database_bytes)}"),
            *(
                (f"    {show_text(one.name)}", tables_and_rows(one.tables, one.rows))
                for one in result.databases
            ),
            ("  Newly stored", show_size(result.new_bytes)),
            ("  Read back", show_size(result.evidence.bytes_read)),
            ("  Took", f"{result.seconds:.1f} s"),
            *([("  Made because", decision.reason)] if decision.reason else []),
        ]
    )
