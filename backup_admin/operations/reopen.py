"""Mend what keeps a repository from being opened: its marker, its history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.errors import Damaged, RepositoryError
from backup_admin.operations.marker import is_config_lost, open_keys, remake_config
from backup_admin.operations.relink import Relink, carry_out_relink, plan_relink
from backup_admin.repository.seen import seen_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backup_admin.core.clock import Clock
    from backup_admin.core.state import StateFolder
    from backup_admin.repository.keys import RepositoryKeys
    from backup_admin.repository.secrets import RepositorySecret
    from backup_admin.storage.base import Storage

_HISTORY = (
    "Without the history no snapshot can be found. `repair --history` writes what is damaged in it, and the "
    "entries behind, anew; what was there is copied to quarantine/ before. Nothing was changed."
)


@dataclass(frozen=True, slots=True)
class Opening:
    """Why a repository did not open, and what has to be done for it."""

    keys: RepositoryKeys
    lost_config: bool
    relink: Relink

    def found(self) -> Iterator[str]:
        """Say what is damaged and what that means."""
        if self.lost_config:
            yield "The object config is missing or damaged; what a new one needs is known."
        for seq in self.relink.lost:
            meaning = "what it said is lost: a snapshot may be missing, or one that was forgotten be back"
            if seq in self.relink.found:
                meaning = (
                    f"it must have been that of snapshot {self.relink.found[seq]}, which is taken in again"
                )
            yield f"Entry {seq} of the history is missing or damaged; {meaning}."
        if self.relink.is_needed and not self.relink.lost:
            yield "The entries of the history do not follow one another."


def plan_opening(
    storage: Storage,
    secrets: Sequence[RepositorySecret],
    failure: RepositoryError,
    *,
    state: StateFolder,
    clock: Clock,
) -> Opening:
    """Find out why a repository does not open; reads only.

    Raises the failure again, with what is known, when it cannot be mended here.
    """
    try:
        keys = open_keys(storage, secrets, state)
    except Damaged as error:
        raise type(failure)(f"{failure} {error}") from failure
    opening = Opening(keys, is_config_lost(storage, keys), plan_relink(storage, keys, clock))
    if not opening.lost_config and not opening.relink.is_needed:
        raise failure
    return opening


def mend_opening(storage: Storage, opening: Opening, *, history: bool, state: StateFolder) -> list[str]:
    """Do what is needed for opening; a history is only written when that is asked for."""
    if opening.relink.is_needed and not history:
        raise Damaged(f"{' '.join(opening.found())} {_HISTORY}")
    done = []
    if opening.lost_config:
        remake_config(storage, opening.keys)
        done.append("The object config was made again, with the default parameters.")
    if opening.relink.is_needed:
        carry_out_relink(storage, opening.keys, opening.relink)
        # What was seen before is the history as it was.
        seen_file(state.heads, opening.keys.repo_id.hex(), storage.label).unlink(missing_ok=True)
        entries = f"{len(opening.relink.write)} of its entries"
        done.append(
            f"The history was written anew ({entries}). Other machines will say that it changed: remove the "
            "file they name there."
        )
    return done
