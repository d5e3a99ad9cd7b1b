"""What an import found and did: plain data, which also goes from process to process."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that the target does not take; 0 where the number of the row in its file is not known."""

    table: str
    row: int
    reason: str


@dataclass(frozen=True, slots=True)
class TableResult:
    """A table that was imported; `already` when the target held exactly these rows before."""

    table: str
    rows: int
    refused: int
    already: bool


@dataclass(frozen=True, slots=True)
class ImportReport:
    """How an import ended: all in one transaction that was committed, or nothing.

    `refused` lists the first ones; `refused_rows` counts all, or those up to where an import gave up.
    """

    engine: str
    tables: tuple[TableResult, ...]
    refused: tuple[Refusal, ...]
    refused_rows: int
    committed: bool
    notices: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return asdict(self)


def report_from_json(value: Mapping[str, Any]) -> ImportReport:
    """Read a report that a process of ours wrote."""
    return ImportReport(
        value["engine"],
        tuple(TableResult(**row) for row in value["tables"]),
        tuple(Refusal(**row) for row in value["refused"]),
        value["refused_rows"],
        value["committed"],
        tuple(value["notices"]),
    )


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """`partial` leaves out rows that are refused; `dry_run` takes everything back at the end."""

    partial: bool = False
    dry_run: bool = False
