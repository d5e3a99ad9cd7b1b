"""The verbs for streams of SQLite databases: keep them running, and go back to a time in one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from backup_admin.cli.named_sources import make_sources
from backup_admin.cli.opening import Surroundings, open_given, open_state, plain_options, repository_options
from backup_admin.cli.printing import say
from backup_admin.core.clock import format_time
from backup_admin.core.errors import Cancelled, UsageError
from backup_admin.core.shown import show_time
from backup_admin.operations.answers import Answer
from backup_admin.operations.points import parse_moment, show_span
from backup_admin.operations.stream_run import supervise
from backup_admin.operations.streams import plan_stream, restore_from_stream
from backup_admin.sources.litestream import Streamed

if TYPE_CHECKING:
    from backup_admin.operations.streams import StreamReport

_STOPPED = "The streams ended; what was written until now is in them."


@click.group("stream", subcommand_metavar="VERB [ARGUMENTS]...")
def stream_verb() -> None:
    """Stream the changes of SQLite databases with litestream, and go back to a time in them."""


@stream_verb.command("run")
@click.argument("spool", type=click.Path(path_type=Path))
@click.option("--sqlite", multiple=True, required=True, metavar="NAME=FILE", help="May be repeated.")
@plain_options
@click.pass_obj
def run_verb(
    surroundings: Surroundings, *, spool: Path, sqlite: tuple[str, ...], state_dir: Path | None
) -> Answer:
    """Stream databases into the folder SPOOL until stopped; the program is started again when it ends.

    SPOOL must be among the folders that are backed up: what is not in a backup is lost with this machine.
    """
    state = open_state(surroundings, state_dir)
    folder = spool.expanduser().absolute()
    if folder.resolve().is_relative_to(state.root.resolve()):
        raise UsageError(
            f"{folder} lies in the state folder, which no backup holds. Nothing was started; name another."
        )
    sources = make_sources((), sqlite).databases
    databases = [Streamed(one.name, one.path, folder / one.name) for one in sources]
    try:
        with surroundings.reporting(_STOPPED, patient=True) as reporter:
            supervise(databases, state=state, reporter=reporter, clock=surroundings.clock, tell=say)
    except Cancelled as ended:
        say(str(ended))
    return Answer({"spool": str(folder), "databases": [one.name for one in databases]})


@stream_verb.command("restore")
@click.argument("name")
@click.argument("storage")
@click.option("--to", "target", type=click.Path(path_type=Path), required=True, metavar="FILE")
@click.option("--at", default="", metavar="TIME", help="The time to go to; else the newest in a backup.")
@repository_options
@click.pass_obj
def restore_verb(  # noqa: PLR0913  one parameter for each option
    surroundings: Surroundings,
    *,
    name: str,
    storage: str,
    target: Path,
    at: str,
    key_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Restore a streamed SQLite database to a time, into a new file.

    Takes the first backup that read the stream after that time, and the last transaction in it by then.
    """
    repository, state = open_given(surroundings, storage, key_file, state_dir)
    moment = parse_moment(at, surroundings.clock.now()) if at else None
    plan = plan_stream(repository, name, moment)
    with surroundings.reporting() as reporter:
        report = restore_from_stream(
            repository, plan, target.expanduser().absolute(), state=state, reporter=reporter
        )
    return _answer(report, target)


def _answer(report: StreamReport, target: Path) -> Answer:
    plan, landed, following = report.plan, report.landed, report.following
    line = f"{target} is {plan.name} as the stream had it at {show_time(landed.time)}"
    if plan.moment is not None:
        line += f", {show_span(plan.moment - landed.time)} before {show_time(plan.moment)}"
    if following is not None:
        line += f"; the next change in it came at {show_time(following.time)}"
    return Answer(
        {
            "snapshot": plan.snapshot,
            "target": str(target),
            "moment": None if plan.moment is None else format_time(plan.moment),
            "landed_at": format_time(landed.time),
            "next_change_at": None if following is None else format_time(following.time),
        },
        lines=[f"{line}. It was checked whole."],
    )
