"""References that rows of today lost, to rows that come back: told, and never put back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.core.errors import BackupAdminError
from backup_admin.core.shown import count_of
from backup_admin.sources.merging.merge_model import OnConflict
from backup_admin.sources.merging.working import INSERT, all_of

if TYPE_CHECKING:
    from backup_admin.sources.merging.graph import Reference
    from backup_admin.sources.merging.working import Work, Workbench


def tell_lost_references(bench: Workbench, policy: OnConflict) -> None:
    """Note how many live rows referred in the snapshot to rows that come back, and refer elsewhere now.

    A key that sets NULL when its parent is deleted leaves such rows. Goes last: tables that only refer to
    what comes back are brought in for it.
    """
    if policy is OnConflict.COPY:  # nobody ever referred to the copies
        return
    notes = list(bench.notes)
    for one in bench.graph.references:
        if one.owns and one.child not in bench.works:
            continue  # such a row cannot outlive its parent
        parent = bench.works.get(one.parent)
        if parent is None or not (parent.has(one.parent_columns) and bench.count(parent, f"act = {INSERT}")):
            continue
        try:
            child = bench.get(one.child)
        except BackupAdminError as error:
            notes.append(f"Whether rows of {one.child} lost what they referred to cannot be told: {error}")
            break
        if child is None or not child.table.key or not child.has(one.columns):
            continue
        if count := bench.engine.number(_lost(one, child, parent)):
            verb = "does" if count == 1 else "do"
            notes.append(
                f"{count_of(count, 'row')} of {one.child} referred ({', '.join(one.columns)}) to rows of "
                f"{one.parent} that come back here, and no longer {verb}; that is not put back."
            )
    bench.notes[:] = notes  # what was noted of the columns of such tables is of no use


def _lost(one: Reference, child: Work, parent: Work) -> str:
    own = child.own(one.columns, "c")
    referred = all_of(parent.own(one.parent_columns, "p"), one.equals, own)
    still = all_of(child.live(one.columns, "l"), one.equals, own)
    return (
        f"SELECT count(*) FROM {child.name} AS c JOIN {child.table.reading} AS l "
        f"ON {child.key_matches('l', 'c')} WHERE ({still}) IS NOT TRUE AND EXISTS "
        f"(SELECT 1 FROM {parent.name} AS p WHERE p.act = {INSERT} AND {referred})"
    )
