"""The folders and databases a person names: `NAME=PATH`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from backup_admin.core.errors import UsageError
from backup_admin.operations.results import SourceSet
from backup_admin.sources.files import FileSource
from backup_admin.sources.postgres.address import parse_postgres_address
from backup_admin.sources.postgres.source import PostgresSource
from backup_admin.sources.sqlite import SqliteSource

if TYPE_CHECKING:
    from collections.abc import Sequence


def make_sources(
    files: Sequence[str],
    databases: Sequence[str],
    postgres: Sequence[str] = (),
    *,
    exclude: Sequence[str] = (),
    pinned: Sequence[Path] = (),
    archive: bool = False,
) -> SourceSet:
    """Make the sources from `NAME=PATH` texts; raise `UsageError` for a wrong one.

    With `archive`, PostgreSQL databases are stored as archives.
    """
    found = tuple(SqliteSource(*_name_and_path(text, "--sqlite", "FILE")) for text in databases)
    for text in exclude:
        check_text(text, "--exclude")
    left_alone = (*pinned, *(source.path for source in found))
    trees = tuple(
        FileSource(*_name_and_path(text, "--files", "DIR"), exclude=tuple(exclude), pinned=left_alone)
        for text in files
    )
    servers = tuple(replace(_postgres_source(text), archive=archive) for text in postgres)
    return SourceSet(files=trees, databases=found, postgres=servers)


def check_text(text: str, option: str) -> str:
    """Return the text; raise `UsageError` when it is not UTF-8, which a manifest must be."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"What {option} is given is not UTF-8.") from error
    return text


def _postgres_source(text: str) -> PostgresSource:
    name, equals, address = text.partition("=")
    if not equals or not name or not address:
        raise UsageError("--postgres takes NAME=ADDRESS, for example --postgres app=postgresql://app@db/app.")
    return PostgresSource(name, parse_postgres_address(address))


def _name_and_path(text: str, option: str, what: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise UsageError(f"{option} takes NAME={what}, for example {option} app=/srv/app; got {text!r}.")
    return name, Path(path).expanduser().absolute()
