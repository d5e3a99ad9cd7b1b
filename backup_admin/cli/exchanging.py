"""The verbs that exchange the keys below the secrets: `keys rotate`, `keys retire`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backup_admin.cli.new_secrets import left_notes, other_secrets
from backup_admin.cli.opening import Surroundings, actor, open_with_secret, repository_options
from backup_admin.core.errors import Damaged
from backup_admin.core.shown import count_of, show_size
from backup_admin.operations.answers import Answer
from backup_admin.operations.key_rotation import rotate
from backup_admin.operations.key_slots import find_slot
from backup_admin.operations.rekeying import RetireOptions, RetireReport, retire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backup_admin.operations.key_rotation import RotationReport

_FILES = click.Path(path_type=Path)
_STOPPED = "Every snapshot is readable; call `keys retire` again to go on."


def _holder_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb the options that name further secrets, and slots to give up."""
    function = click.option("--drop", multiple=True, metavar="SLOT", help="Give up this slot.")(function)
    function = click.option(
        "--with-passphrase",
        "passphrases",
        type=_FILES,
        multiple=True,
        help="File with the passphrase of a slot.",
    )(function)
    return click.option(
        "--with",
        "others",
        type=_FILES,
        multiple=True,
        help="File with the application or recovery key of a slot.",
    )(function)


@click.command("rotate")
@click.argument("storage")
@_holder_options
@click.option("--cut-off", is_flag=True, help="Also shut out who has a secret or key of before.")
@repository_options
@click.pass_obj
def rotate_verb(  # noqa: PLR0913  one parameter for each option
    surroundings: Surroundings,
    *,
    storage: str,
    others: tuple[Path, ...],
    passphrases: tuple[Path, ...],
    drop: tuple[str, ...],
    cut_off: bool,
    key_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Write everything from now on under a new key.

    All secrets go on working, also those not given here. When a secret or key is in the
    wrong hands, use --cut-off: then each slot's secret must be given, or the slot dropped.
    What is stored stays under the old key until `keys retire`.
    """
    repository, _, secret = open_with_secret(surroundings, storage, key_file, state_dir)
    report = rotate(
        repository,
        [secret, *other_secrets(others, passphrases)],
        drop=[find_slot(repository, slot) for slot in drop],
        cut_off=cut_off,
        actor=actor(),
        clock=surroundings.clock,
    )
    return Answer(
        result={
            "key": report.kid,
            "rewrapped": list(report.rewrapped),
            "bridged": list(report.bridged),
            "dropped": list(report.dropped),
            "left": list(report.left),
        },
        lines=_rotation_lines(report, repository.label),
        notes=left_notes(report.left),
    )


def _rotation_lines(report: RotationReport, label: str) -> Iterator[str]:
    yield f"{label} writes under key {report.kid} from now on; what is stored stays readable."
    yield f"  Written anew: {count_of(len(report.rewrapped), 'slot')}."
    if report.bridged:
        yield f"  Left as before, and good as before: slot {', '.join(report.bridged)}."
    if report.dropped:
        yield f"  Given up: slot {', '.join(report.dropped)}."


@click.command("retire")
@click.argument("key", type=click.IntRange(min=1))
@click.argument("storage")
@_holder_options
@repository_options
@click.pass_obj
def retire_verb(  # noqa: PLR0913  one parameter for each option
    surroundings: Surroundings,
    *,
    key: int,
    storage: str,
    others: tuple[Path, ...],
    passphrases: tuple[Path, ...],
    drop: tuple[str, ...],
    key_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Seal all that is under an old key anew, and drop that key.

    KEY is its number in `keys list`. Each slot's secret must be given, or the slot dropped.
    Backups and restores may run meanwhile. Call it again after an interruption. Ends with 4
    when something cannot be read: it is named, and the key stays.
    """
    repository, state, secret = open_with_secret(surroundings, storage, key_file, state_dir)
    options = RetireOptions(
        key,
        [secret, *other_secrets(others, passphrases)],
        [find_slot(repository, slot) for slot in drop],
    )
    with surroundings.reporting(_STOPPED) as reporter:
        report = retire(
            repository, options, actor=actor(), state=state, reporter=reporter, clock=surroundings.clock
        )
    return Answer(
        result={
            "key": report.kid,
            "retired": not report.problems,
            "packs": report.packs,
            "indexes": report.indexes,
            "manifests": report.manifests,
            "bytes": report.bytes,
            "problems": report.problems,
            "notices": list(report.notices),
            "left": list(report.left),
        },
        lines=[_retirement_line(report)],
        exit_code=Damaged.exit_code if report.problems else 0,
        notes=[
            *(f"problem: {problem}" for problem in report.problems),
            *(f"note: {notice}" for notice in report.notices),
            *left_notes(report.left),
        ],
    )


def _retirement_line(report: RetireReport) -> str:
    done = (
        f"{count_of(report.packs, 'pack')} and {count_of(report.manifests, 'manifest')} "
        f"({show_size(report.bytes)}) were sealed anew"
    )
    if report.problems:
        return f"{done}, but key {report.kid} is still needed: {count_of(len(report.problems), 'problem')}."
    return f"{done}. Nothing needs key {report.kid} any more; no slot holds it."
