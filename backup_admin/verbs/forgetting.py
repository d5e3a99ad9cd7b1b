"""The verb that forgets snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from backup_admin.core.errors import UsageError
from backup_admin.core.shown import columns, count_of, show_time
from backup_admin.operations.answers import Answer
from backup_admin.operations.forget import ForgetPlan, forget_by_policy, forget_named, plan_forget
from backup_admin.operations.retention import Policy, parse_span
from backup_admin.operations.verified import read_verified
from backup_admin.verbs.base import STORAGE, Work, shared_verb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backup_admin.core.ids import SnapshotId
    from backup_admin.repository.repository import Repository

_RULES = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
_KEPT_SPACE = "Their data stays in the storage until: backup-admin prune"


def _rule_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for rule in reversed(_RULES):
        about = "Keep the newest N." if rule == "last" else f"Keep one for each of the last N {_unit(rule)}."
        function = click.option(
            f"--keep-{rule}", type=click.IntRange(min=0), default=0, metavar="N", help=about
        )(function)
    return function


def _unit(rule: str) -> str:
    return {"daily": "days"}.get(rule, rule.removesuffix("ly") + "s")


@shared_verb(
    "forget",
    STORAGE,
    click.argument("snapshot", nargs=-1),
    _rule_options,
    click.option("--keep-within", default="", metavar="SPAN", help="Keep all of this span: 30d, 12h, 1y6m."),
    click.option(
        "--keep-min",
        type=click.IntRange(min=1),
        default=1,
        metavar="N",
        help="Always keep the newest N.  [1]",
    ),
    click.option(
        "--time-zone", default="", metavar="ZONE", help="Where a day begins.  [this machine's zone]"
    ),
    click.option("--force", is_flag=True, help="Forget also the newest complete one, when it is named."),
    click.option("--dry-run", is_flag=True, help="Say what would be forgotten, and why; change nothing."),
    changes=True,
)
def forget_verb(  # noqa: PLR0913  one parameter for each option
    work: Work,
    /,
    *,
    snapshot: tuple[str, ...],
    keep_within: str,
    keep_min: int,
    time_zone: str,
    force: bool,
    dry_run: bool,
    **rules: int,
) -> Answer:
    """Forget snapshots: those named, or those that no rule keeps.

    A rule keeps the newest snapshot of a period, the complete one before one that
    lacks something. Pinned snapshots, the newest complete one and the last one that
    was verified always stay. No data is deleted: `prune` does that.
    """
    has_rules = bool(keep_within or any(rules.values()))
    if bool(snapshot) == has_rules:
        raise UsageError(
            "Name the snapshots to forget, or give --keep-… rules; one of both. Nothing was forgotten."
        )
    within = parse_span(keep_within) if keep_within else None
    counts: dict[str, Any] = {name: rules[f"keep_{name}"] for name in _RULES}
    policy = Policy(**counts, within=within, minimum=keep_min, zone=_zone(time_zone))
    if snapshot:
        return _forget_named(work, snapshot, force=force, dry_run=dry_run)
    return _forget_by_policy(work, policy, dry_run=dry_run)


def _zone(name: str) -> ZoneInfo | None:
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise UsageError(f"{name!r} is no time zone; write it as Europe/Berlin.") from error


def _forget_named(work: Work, names: tuple[str, ...], *, force: bool, dry_run: bool) -> Answer:
    repository = work.repository
    found = dict.fromkeys(repository.find_id(name) for name in names)
    forget_named(repository, tuple(found), force=force, actor=work.actor, clock=work.clock, dry_run=dry_run)
    return Answer(
        result={"dry_run": dry_run, "forgotten": list(found), "kept": _others(repository, found)},
        lines=_summary(tuple(found), dry_run=dry_run),
    )


def _others(repository: Repository, gone: dict[SnapshotId, None]) -> list[str]:
    return [snapshot for snapshot in repository.snapshot_ids() if snapshot not in gone]


def _forget_by_policy(work: Work, policy: Policy, *, dry_run: bool) -> Answer:
    repository = work.repository
    verified = read_verified(work.state, repository.state_name)
    if dry_run:
        plan = plan_forget(repository, policy, verified=verified, now=work.clock.now())
    else:
        plan = forget_by_policy(repository, policy, verified=verified, actor=work.actor, clock=work.clock)
    decisions = plan.retention.decisions
    return Answer(
        result={
            "dry_run": dry_run,
            "forgotten": list(plan.removed),
            "kept": [one.snapshot.id for one in decisions if one.keep] + list(plan.unreadable),
            "reasons": {one.snapshot.id: list(one.reasons) for one in decisions},
            "blocked": plan.retention.blocked,
        },
        lines=_plan_lines(plan, dry_run=dry_run),
        notes=[f"note: Snapshot {one} cannot be read, so it stays." for one in plan.unreadable]
        + ([f"note: {plan.retention.blocked}"] if plan.retention.blocked else []),
    )


def _plan_lines(plan: ForgetPlan, *, dry_run: bool) -> Iterator[str]:
    rows = [
        (
            "keep" if one.keep else "forget",
            one.snapshot.id,
            show_time(one.snapshot.created_at),
            one.snapshot.outcome,
            "; ".join(one.reasons),
        )
        for one in plan.retention.decisions
    ]
    if rows:
        yield from columns([("", "SNAPSHOT", "TIME", "OUTCOME", "WHY"), *rows])
    yield from _summary(plan.removed, dry_run=dry_run)


def _summary(removed: tuple[SnapshotId, ...], *, dry_run: bool) -> Iterator[str]:
    if not removed:
        yield "No snapshot is to be forgotten."
    elif dry_run:
        yield f"{count_of(len(removed), 'snapshot')} would be forgotten. Nothing was changed."
    else:
        yield f"{count_of(len(removed), 'snapshot')} forgotten. {_KEPT_SPACE}"
