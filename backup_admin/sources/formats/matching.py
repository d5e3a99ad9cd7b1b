"""Which table of a target takes which table of an export, column by column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.errors import RestoreRefused
from backup_admin.sources.formats.json_lines import POSTGRES, SQLITE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backup_admin.sources.formats.json_lines import Export, ExportedTable, TableHead

_SHOWN = 10
_OWN_SCHEMAS = {SQLITE: "main", POSTGRES: "public"}


@dataclass(frozen=True, slots=True)
class TargetTable:
    """A table of the target: its columns that may be written, with their types."""

    schema: str
    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    key: tuple[str, ...] = ()
    kind: str = "table"
    rowid: str = ""

    @property
    def shown(self) -> str:
        """Return the name as people write it."""
        return self.name if self.schema in _OWN_SCHEMAS.values() else f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Pair:
    """A table of an export, and where its rows go.

    `columns` of the target take the values, in this order; `skip` values at the front of each row are left
    out. `across` when the engines differ.
    """

    exported: ExportedTable
    target: TargetTable
    columns: tuple[str, ...]
    types: tuple[str, ...]
    source_types: tuple[str, ...]
    skip: int
    across: bool


def match_tables(
    export: Export,
    heads: Sequence[tuple[ExportedTable, TableHead]],
    targets: Sequence[TargetTable],
    engine: str,
) -> list[Pair]:
    """Pair the tables; raise `RestoreRefused` with all that has no place. Nothing was touched then."""
    across = export.engine != engine
    pairs, problems = [], []
    for exported, head in heads:
        if across and exported.kind != "table":
            continue
        target = _find(exported, targets, across=across)
        if target is None:
            problems.append(f"there is no table {exported.shown}")
            continue
        found = _pair(exported, head, target, across=across)
        if isinstance(found, Pair):
            pairs.append(found)
        else:
            problems.append(found)
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise RestoreRefused(
            f"The target does not fit: {'; '.join(problems[:_SHOWN])}{more}. Nothing was imported. "
            "Let the app's migrations make the tables of the same version first."
        )
    return pairs


def _find(exported: ExportedTable, targets: Sequence[TargetTable], *, across: bool) -> TargetTable | None:
    """Find the table of the same name; between engines also where only the case differs, or the schema."""
    same = [target for target in targets if target.name == exported.name]
    if not across:
        return next((target for target in same if target.schema == exported.schema), None)
    if not same:
        same = [target for target in targets if target.name.lower() == exported.name.lower()]
    own = [target for target in same if target.schema in _OWN_SCHEMAS.values()] or same
    return own[0] if len(own) == 1 else None


def _pair(exported: ExportedTable, head: TableHead, target: TargetTable, *, across: bool) -> Pair | str:
    known = {name: place for place, name in enumerate(target.columns)}
    lower = {name.lower(): place for place, name in enumerate(target.columns)}
    places = [known.get(name, lower.get(name.lower()) if across else None) for name in head.columns]
    missing = [name for name, place in zip(head.columns, places, strict=True) if place is None]
    if missing:
        return f"table {target.shown} has no column {missing[0]}"
    if across and len(head.types) != len(head.columns):
        return f"of table {exported.shown} no types are known, which another engine needs: export it anew"
    found = [place for place in places if place is not None]
    names, types = [target.columns[place] for place in found], [target.types[place] for place in found]
    source_types = list(head.types) or [""] * len(names)
    skip = 0
    if head.rowid and target.rowid and not across:
        names, types, source_types = [target.rowid, *names], ["", *types], ["", *source_types]
    elif head.rowid:
        skip = 1
    return Pair(exported, target, tuple(names), tuple(types), tuple(source_types), skip, across)
