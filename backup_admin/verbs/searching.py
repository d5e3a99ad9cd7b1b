"""The verbs that look for files in snapshots: find, ls."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from backup_admin.core.errors import Damaged
from backup_admin.core.paths import path_to_json, show_path
from backup_admin.core.shown import count_of, show_size, show_time
from backup_admin.operations.answers import Answer
from backup_admin.operations.find import PathHistory, Version, find_versions
from backup_admin.operations.listing import Listed, list_snapshot
from backup_admin.operations.points import pick
from backup_admin.verbs.base import AT, STORAGE, Work, shared_verb

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOTHING_FOUND = 1
_TYPES = {"file": stat.S_IFREG, "folder": stat.S_IFDIR, "symlink": stat.S_IFLNK}


@shared_verb(
    "find",
    click.argument("pattern"),
    STORAGE,
    click.option(
        "--snapshot", "only", multiple=True, metavar="ID", help="Search this one only; may be repeated."
    ),
)
def find_verb(work: Work, /, *, pattern: str, only: tuple[str, ...]) -> Answer:
    """Find a file in all snapshots: its versions, and since when it is gone.

    PATTERN is a name (`logo.png`, `*.pdf`) that may lie anywhere, or a path with a
    slash as `restore --only` takes it. Ends with 1 when nothing is found.
    """
    repository = work.repository
    named = {repository.find_id(text) for text in only}
    ids = [one for one in repository.snapshot_ids() if not named or one in named]
    found = find_versions(repository, pattern, ids)
    exit_code = 0 if found.paths else _NOTHING_FOUND
    return Answer(
        result={
            "paths": [_describe_history(history) for history in found.paths],
            "damaged": [{"id": one, "message": message} for one, message in found.damaged],
        },
        lines=_history_lines(found.paths, len(ids)),
        exit_code=Damaged.exit_code if found.damaged else exit_code,
        notes=[f"Snapshot {one} could not be searched: {message}" for one, message in found.damaged],
    )


def _history_lines(paths: list[PathHistory], searched: int) -> Iterator[str]:
    if not paths:
        yield f"Nothing of that name is in {count_of(searched, 'snapshot')}."
    for history in paths:
        yield f"{history.source}/{show_path(history.path)}"
        for version in history.versions:
            yield f"  {_show_snapshots(version)}  {_show_version(version)}"
        if history.gone_since is not None:
            yield f"  {history.gone_since}  gone"


def _show_snapshots(version: Version) -> str:
    first, last = version.snapshots[0], version.snapshots[-1]
    return first if first == last else f"{first} to {last} ({len(version.snapshots)})"


def _show_version(version: Version) -> str:
    if version.kind == "symlink":
        return f"symlink to {show_path(version.target)}"
    if version.kind == "folder":
        return f"folder, {show_time(_time(version.mtime_ns))}"
    changed = f", {show_time(_time(version.mtime_ns))}" if version.mtime_ns else ""
    return f"{version.kind}, {show_size(version.size)}{changed}, sha256 {version.digest[:16]}"


def _describe_history(history: PathHistory) -> dict[str, Any]:
    return {
        "source": history.source,
        "path": path_to_json(history.path),
        "versions": [
            {
                "kind": version.kind,
                "size": version.size,
                "mtime_ns": version.mtime_ns,
                "sha256": version.digest,
                "target": path_to_json(version.target),
                "snapshots": list(version.snapshots),
            }
            for version in history.versions
        ],
        "gone_since": history.gone_since,
    }


@shared_verb(
    "ls",
    click.argument("snapshot"),
    STORAGE,
    click.argument("path", default=""),
    click.option("-R", "--recursive", is_flag=True, help="All that is below, too."),
    AT,
)
def ls_verb(work: Work, /, *, snapshot: str, path: str, recursive: bool, at: str) -> Answer:
    """List a folder of a snapshot; without PATH its databases, settings and trees.

    SNAPSHOT is an id, the beginning of one, or `latest`.
    """
    repository = work.repository
    found, notes = pick(repository, snapshot, at, work.clock.now())
    listed = list_snapshot(repository, found, path, recursive=recursive)
    first = next(listed, None)  # what fails at once fails before anything is printed
    listed = iter(()) if first is None else chain([first], listed)
    if work.as_json:
        return Answer(
            {"snapshot": found, "notices": list(notes)},
            stream=("entries", (_describe_listed(one) for one in listed)),
            notes=notes,
        )
    return Answer({}, lines=(_listed_line(one) for one in listed), notes=notes)


def _listed_line(one: Listed) -> str:
    mode = stat.filemode(_TYPES[one.kind] | one.mode) if one.kind in _TYPES else one.kind.ljust(10)
    when = show_time(_time(one.mtime_ns)) if one.kind in _TYPES else ""
    name = show_path(one.path) + ("/" if one.kind == "folder" else "")
    arrow = f" -> {show_path(one.target)}" if one.kind == "symlink" else ""
    return f"{mode:10}  {show_size(one.size):>9}  {when:19}  {name}{arrow}"


def _describe_listed(one: Listed) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "path": path_to_json(one.path),
        "size": one.size,
        "mode": one.mode,
        "mtime_ns": one.mtime_ns,
        "target": path_to_json(one.target),
    }


def _time(mtime_ns: int) -> datetime:
    try:
        return datetime.fromtimestamp(mtime_ns // 1_000_000_000, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.min.replace(tzinfo=UTC)
