"""What a restore of chosen rows would do, and how one ended: plain data for pages, queues and people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from backup_admin.core.canonical import dump_canonical
from backup_admin.core.ids import SnapshotId
from backup_admin.operations.linked_files import Link, LinkedFiles
from backup_admin.repository.keys import sha256
from backup_admin.sources.merging.merge_model import MergeRequest, OnConflict, report_from_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from backup_admin.core.ids import RestoreId
    from backup_admin.sources.merging.merge_model import MergeReport

KIND = "rows"
"""What the plan of such a restore calls itself; the plan of any other has no `kind`."""


@dataclass(frozen=True, slots=True)
class RowsSelection:
    """Which tables or rows of one database, and what becomes of rows that are live and different.

    `rows` are tables with the text of a primary key.
    """

    database: str
    tables: tuple[str, ...] = ()
    rows: tuple[tuple[str, str], ...] = ()
    on_conflict: OnConflict = OnConflict.SKIP
    links: tuple[Link, ...] = ()

    def request(self) -> MergeRequest:
        """Return what the database is asked."""
        columns = tuple((link.table, link.column) for link in self.links)
        return MergeRequest(self.tables, self.rows, self.on_conflict, columns)


@dataclass(frozen=True, slots=True)
class RowsPlan:
    """What would be done, as a dry run found it."""

    snapshot_id: SnapshotId
    manifest_digest: str
    repo_id: str
    place: str
    selection: RowsSelection
    report: MergeReport
    linked: tuple[LinkedFiles, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether all of it is there already."""
        return not self.report.changes and not any(one.put_back for one in self.linked)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return {
            "kind": KIND,
            "snapshot_id": self.snapshot_id,
            "manifest_digest": self.manifest_digest,
            "repo_id": self.repo_id,
            "place": self.place,
            "selection": asdict(self.selection),
            **describe_merge(self.report, self.linked),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> RowsPlan:
        """Read what `to_json` wrote; raise `KeyError`, `TypeError` or `ValueError`."""
        chosen = value["selection"]
        return RowsPlan(
            SnapshotId(value["snapshot_id"]),
            str(value["manifest_digest"]),
            str(value["repo_id"]),
            str(value["place"]),
            RowsSelection(
                str(chosen["database"]),
                tuple(map(str, chosen["tables"])),
                tuple((str(table), str(key)) for table, key in chosen["rows"]),
                OnConflict(chosen["on_conflict"]),
                tuple(Link(**link) for link in chosen["links"]),
            ),
            report_from_json(value),
            tuple(LinkedFiles(**one) for one in value["linked"]),
        )

    @property
    def digest(self) -> str:
        """Return a digest of what a person agrees to."""
        return sha256(dump_canonical(self.to_json())).hex()


@dataclass(frozen=True, slots=True)
class RowsReport:
    """How it ended: `restored`, `refused` (nothing was touched) or `nothing_to_do`."""

    restore_id: RestoreId
    outcome: str
    message: str
    report: MergeReport
    linked: tuple[LinkedFiles, ...] = ()
    safety_snapshot: str = ""
    notices: tuple[str, ...] = ()
    exit_code: int = 0
    undo_until: datetime | None = None


def describe_merge(report: MergeReport, linked: tuple[LinkedFiles, ...]) -> dict[str, Any]:
    """Return what is or would be done as plain data."""
    return {**asdict(report), "linked": [one.to_json() for one in linked]}
