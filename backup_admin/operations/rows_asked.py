"""Tables, rows and columns of paths as people write them: `events:42`, `photos.path=files/uploads`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.errors import UsageError
from backup_admin.operations.linked_files import Link
from backup_admin.operations.rows_plan import RowsSelection
from backup_admin.sources.merging.merge_model import OnConflict

if TYPE_CHECKING:
    from collections.abc import Sequence

# A name in double quotes may hold what parts names otherwise.
_TABLE_AND_KEY = re.compile(r'((?:"(?:[^"]|"")*"|[^":])*):(.*)', re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


@dataclass(frozen=True, slots=True)
class AskedRows:
    """Tables, rows and columns of paths as options name them: each begins with the name of its database."""

    tables: tuple[str, ...]
    rows: tuple[str, ...]
    on_conflict: str
    linked: tuple[str, ...] = ()


def select_rows(asked: AskedRows, names: Sequence[str]) -> RowsSelection:
    """Read what was asked for of the databases of these names; raise `UsageError`."""
    for option, texts in (("--table", asked.tables), ("--rows", asked.rows), ("--linked", asked.linked)):
        for text in texts:
            _check_text(text, option)
    tables = [_split_name(text, names, "--table NAME.TABLE") for text in asked.tables]
    rows = []
    for text in asked.rows:
        database, rest = _split_name(text, names, "--rows NAME.TABLE:KEY")
        row = read_row(rest)
        if row is None:
            raise UsageError(f"--rows takes NAME.TABLE:KEY, for example {names[0]}.events:42; got {text!r}.")
        rows.append((database, row))
    links = []
    for text in asked.linked:
        database, rest = _split_name(text, names, "--linked NAME.TABLE.COLUMN=FILES")
        link = read_link(rest)
        if link is None:
            raise UsageError(f"--linked takes NAME.TABLE.COLUMN=FILES, or FILES/DIR; got {text!r}.")
        links.append((database, link))
    databases = {name for name, _ in tables} | {name for name, _ in rows} | {name for name, _ in links}
    if len(databases) != 1:
        raise UsageError("One restore changes one database. Name the others in restores of their own.")
    return RowsSelection(
        databases.pop(),
        tuple(_plain(table) for _, table in tables),
        tuple(row for _, row in rows),
        OnConflict(asked.on_conflict),
        tuple(link for _, link in links),
    )


def read_row(text: str) -> tuple[str, str] | None:
    """Read TABLE:KEY; None when it is not that."""
    matched = _TABLE_AND_KEY.fullmatch(text)
    return (_plain(matched[1]), matched[2]) if matched is not None and matched[1] else None


def read_link(text: str) -> Link | None:
    """Read TABLE.COLUMN=FILES or TABLE.COLUMN=FILES/DIR; None when it is not that."""
    column, _, place = text.partition("=")
    table, _, name = column.rpartition(".")
    folder, _, below = place.partition("/")
    if not table or not name or not folder:
        return None
    return Link(_plain(table), _plain(name), folder, below.strip("/"))


def _check_text(text: str, option: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"What {option} is given is not UTF-8.") from error


def _split_name(text: str, names: Sequence[str], form: str) -> tuple[str, str]:
    for name in sorted(names, key=len, reverse=True):
        if text.startswith(f"{name}.") and len(text) > len(name) + 1:
            return name, text[len(name) + 1 :]
    raise UsageError(
        f"{form}: {text!r} does not begin with the name of a database given here: {', '.join(names)}."
    )


def _plain(name: str) -> str:
    """Take quotes off a name, or off each part of one."""
    return _QUOTED.sub(lambda found: found[1].replace('""', '"'), name)
