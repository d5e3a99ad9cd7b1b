"""The plan of a restore of rows is plain data that survives a queue."""

from __future__ import annotations

import json

from backup_admin.core.ids import SnapshotId
from backup_admin.operations.linked_files import Link, LinkedFiles
from backup_admin.operations.rows_plan import RowsPlan, RowsSelection
from backup_admin.sources.merging.merge_model import Clash, MergeReport, OnConflict, TableMerge


def test_a_plan_comes_back_from_json_with_the_same_digest() -> None:
    selection = RowsSelection(
        "app",
        ("roles",),
        (("events", "a,b"),),
        OnConflict.OVERWRITE,
        (Link("photos", "path", "files", "uploads"),),
    )
    report = MergeReport(
        (TableMerge("events", insert=1, parents=2),), (Clash("events", "slug", "1", "2"),), ("no",), ("note",)
    )
    linked = (LinkedFiles("photos.path=files/uploads", put_back=3, problems=["one"]),)
    plan = RowsPlan(SnapshotId("01X"), "d", "r", "/srv/app.db", selection, report, linked)

    again = RowsPlan.from_json(json.loads(json.dumps(plan.to_json())))

    assert again == plan
    assert again.digest == plan.digest
