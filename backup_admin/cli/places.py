"""The verbs about a storage itself: is it any good, and what lies in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from backup_admin.cli.groups import RarelyLoaded
from backup_admin.cli.opening import Surroundings, open_place, plain_options
from backup_admin.core.errors import StorageDenied, StorageUnavailable
from backup_admin.core.paths import path_to_json
from backup_admin.core.shown import columns, count_of, show_size, show_text
from backup_admin.operations.answers import Answer
from backup_admin.storage.examine import examine_storage
from backup_admin.storage.first_contact import report_not_opened
from backup_admin.storage.open import asks_to_be_made
from backup_admin.storage.storage_report import StepOutcome, StorageReport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.storage.base import ObjectInfo, Storage

_STOPPED = "What the test wrote is deleted as far as the storage lets us; a repository there was not touched."
_WIDEST_SIZE = 9


class _StorageVerbs(RarelyLoaded):
    """Its verbs, the rarer ones in modules of their own."""

    elsewhere = {"clean": "tidying", "reindex": "tidying"}  # noqa: RUF012 - never changed


@click.group("storage", cls=_StorageVerbs, subcommand_metavar="VERB [ARGUMENTS]...")
def storage_verb() -> None:
    """Examine a storage, see what lies in it, and clear away what interrupted work left."""


@storage_verb.command("test")
@click.argument("storage")
@plain_options
@click.pass_obj
def test_verb(surroundings: Surroundings, *, storage: str, state_dir: Path | None) -> Answer:
    """Try step by step whether a storage is fit for a repository.

    Needs no key, and leaves nothing behind; a repository in it is left alone. Ends with
    3 when there are warnings, and with the status of the error when a step failed.
    """
    report = _examine(surroundings, storage, state_dir)
    return Answer(report.as_plain(), lines=_report_lines(report), exit_code=report.exit_code)


def _examine(surroundings: Surroundings, address: str, state_dir: Path | None) -> StorageReport:
    make_missing = asks_to_be_made(address)
    with surroundings.reporting(_STOPPED) as reporter:
        try:
            place = open_place(surroundings, address, state_dir, quick=True)
        except (StorageUnavailable, StorageDenied) as error:
            label = address.partition("?")[0]
            return report_not_opened(label, error, clock=surroundings.clock)
        return examine_storage(place, clock=surroundings.clock, reporter=reporter, make_missing=make_missing)


def _report_lines(report: StorageReport) -> Iterator[str]:
    yield f"{report.storage}:"
    rows = [
        (finding.outcome.value, finding.step.words, show_text(finding.message)) for finding in report.findings
    ]
    yield from columns(rows)
    counts = {
        outcome: sum(1 for finding in report.findings if finding.outcome is outcome)
        for outcome in StepOutcome
    }
    if counts[StepOutcome.FAILED]:
        yield f"It is not fit for a repository: {count_of(counts[StepOutcome.FAILED], 'step')} failed."
    else:
        warned, unknown = counts[StepOutcome.WARNING], counts[StepOutcome.UNKNOWN]
        yield f"All that is needed works; {count_of(warned, 'warning')}, {unknown} not known."


@storage_verb.command("ls")
@click.argument("storage")
@click.argument("prefix", default="")
@plain_options
@click.pass_obj
def ls_verb(
    surroundings: Surroundings,
    *,
    storage: str,
    prefix: str,
    state_dir: Path | None,
) -> Answer:
    """List the objects of a storage, or those whose names begin with PREFIX, with their sizes.

    Needs no key: what the objects hold stays sealed.
    """
    place = open_place(surroundings, storage, state_dir)
    if not surroundings.as_json:
        return Answer({}, lines=_object_lines(place, prefix))
    return Answer(
        {"storage": place.label, "prefix": prefix},
        stream=("objects", (_describe(info) for info in place.list_objects(prefix))),
    )


def _object_lines(place: Storage, prefix: str) -> Iterator[str]:
    count = total = 0
    for info in place.list_objects(prefix):
        count += 1
        total += info.size
        yield f"{show_size(info.size):>{_WIDEST_SIZE}}  {show_text(info.name)}"
    yield f"{show_size(total):>{_WIDEST_SIZE}}  in {count_of(count, 'object')}"


def _describe(info: ObjectInfo) -> dict[str, Any]:
    return {"name": path_to_json(info.name.encode("utf-8", "surrogateescape")), "size": info.size}
