"""Several storages for one repository: where a run writes, and what its mirrors come to.

The storage that is furthest is written to: the first one, unless it cannot be reached or is behind
and cannot be brought up to date. A place that holds another repository is never written to. What was
seen of the history (`repository/seen.py`) refuses one that lacks a commit which a storage that is away
has: nothing is ever committed twice.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

from backup_admin.access.step_up import Act, Purpose, consume
from backup_admin.control import engine, onboarding, s3_keys
from backup_admin.control.copies import Medium, medium_of
from backup_admin.control.stored import read_value, write_value
from backup_admin.core.clock import format_time, parse_time
from backup_admin.core.durable import explain
from backup_admin.core.errors import (
    BackupAdminError,
    Cancelled,
    ConfigurationError,
    Damaged,
    NotARepository,
    StorageUnavailable,
    UsageError,
)
from backup_admin.operations.mirror import MirrorOptions, mirror
from backup_admin.operations.mirror_place import need_apart, prove_apart
from backup_admin.operations.mirror_plan import plan_mirror
from backup_admin.repository import config
from backup_admin.repository.chain import find_last
from backup_admin.repository.repository import Repository, open_repository
from backup_admin.repository.secrets import parse_application_key
from backup_admin.repository.seen import forget_mirror, note_mirror
from backup_admin.storage.base import CanBeMade

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from backup_admin.access.permissions import Actor
    from backup_admin.control.installation import Installation
    from backup_admin.core.progress import Reporter
    from backup_admin.core.settings import Settings
    from backup_admin.records import BackupRun
    from backup_admin.storage.base import Storage
    from backup_admin.storage.s3_place import S3Credentials

MIRRORS_KEY = "storage.mirrors"
STATES_KEY = "storage.states"
MIRROR_STAGE = "mirror"


class Role(StrEnum):
    """What a storage is for."""

    STORAGE = "storage"
    MIRROR = "mirror"


@dataclass(frozen=True, slots=True)
class PlaceState:
    """What the last run came to in one storage.

    `good_at` is when it held everything the last time, `head` its newest entry then. Without a
    `problem` it holds the newest snapshot.
    """

    label: str
    role: Role
    medium: Medium
    is_away: bool
    tried_at: datetime
    good_at: datetime | None = None
    head: int = 0
    problem: str = ""

    def as_plain(self) -> dict[str, Any]:
        """Return it as it is kept."""
        good_at = self.good_at and format_time(self.good_at)
        return asdict(self) | {"tried_at": format_time(self.tried_at), "good_at": good_at}


@dataclass(slots=True)
class _Place:
    """One storage as it was found. `head` is None where there is no repository, or nobody can tell.

    `repo_id` says whose repository is there, and is empty where nobody can tell.
    """

    role: Role
    label: str
    medium: Medium
    is_away: bool
    storage: Storage | None = None
    repo_id: str = ""
    head: int | None = None
    problem: str = ""


def mirror_addresses(session: Session, settings: Settings) -> tuple[str, ...]:
    """Return where mirrors go: pinned by the deployment, else set on the page."""
    return settings.mirrors or tuple(map(str, read_value(session, MIRRORS_KEY, [])))


def set_mirrors(
    session: Session, installation: Installation, addresses: Sequence[str], actor: Actor
) -> tuple[str, ...]:
    """Set where mirrors go; it takes a step-up (`Purpose.STORAGE`). Contacts none of them.

    Raises `UsageError`, `ConfigurationError` or `NotPermitted`.
    """
    installation.require_writable()
    if installation.settings.mirrors:
        raise ConfigurationError("BACKUP_ADMIN_MIRRORS sets the mirrors; they cannot be changed here.")
    kept = tuple(dict.fromkeys(address.strip() for address in addresses if address.strip()))
    main = engine.storage_address(session, installation.settings)
    if main in kept:
        raise UsageError(f"{main} is the storage itself; a mirror is a second place.")
    chosen = [engine.open_chosen(one, installation.settings) for one in (main, *kept) if one]
    for one, other in combinations(chosen, 2):
        need_apart(one, other)
    consume(session, installation.clock, actor=actor, act=Act(Purpose.STORAGE))
    installation.audit().append(actor, "storage.mirrors", target=", ".join(kept))
    write_value(session, installation.clock, MIRRORS_KEY, list(kept), by=actor.name)
    in_use = {engine.open_chosen(one, installation.settings).label for one in (main, *kept) if one}
    rows = [state.as_plain() for state in read_states(session) if state.label in in_use]
    write_value(session, installation.clock, STATES_KEY, rows)  # one that was left out may be made anew
    session.commit()
    return kept


def read_states(session: Session) -> tuple[PlaceState, ...]:
    """Return what the last run came to in each storage that is still in use, the first one first."""
    return _parse(read_value(session, STATES_KEY, []))


def states_of(run: BackupRun) -> tuple[PlaceState, ...]:
    """Return what a run came to in each storage."""
    return _parse(run.storages)


def remember(session: Session, installation: Installation, states: Sequence[PlaceState]) -> None:
    """Keep what a run came to; when a storage was good before stays known. The caller commits."""
    before = {state.label: state for state in read_states(session)}
    kept = [_with_past(state, before.get(state.label)) for state in states]
    write_value(session, installation.clock, STATES_KEY, [state.as_plain() for state in kept])


def _with_past(state: PlaceState, known: PlaceState | None) -> PlaceState:
    if state.good_at is not None or known is None:
        return state
    return replace(state, good_at=known.good_at, head=known.head)


class Destinations:
    """The storages of one run. Open them, back up into `repository`, then bring the others up to date."""

    def __init__(self, installation: Installation, places: list[_Place]) -> None:
        self._installation = installation
        self._places = places
        self._main = places[0]
        self.repository: Repository

    @classmethod
    def open(cls, session: Session, installation: Installation, *, reporter: Reporter) -> Destinations:
        """Open the storage that a run writes to; raise what keeps it from that.

        A storage that is behind what another one holds is brought up to date first.
        """
        settings = installation.settings
        mirrors = mirror_addresses(session, settings)
        made = {state.label for state in read_states(session) if state.good_at is not None}
        found = cls(
            installation,
            [
                _look(
                    installation,
                    engine.storage_address(session, settings),
                    Role.STORAGE,
                    made,
                    s3_keys.find_credentials(session, installation),
                ),
                *(_look(installation, address, Role.MIRROR, made) for address in mirrors),
            ],
        )
        if not mirrors:
            found.repository = engine.open_repository(session, installation)
            return found
        found._set_doubles_aside()
        found._choose(str(read_value(session, onboarding.REPOSITORY_KEY, "")), reporter)
        found._open()
        return found

    @property
    def is_diverted(self) -> bool:
        """Whether the run writes to a mirror, since the storage itself cannot be used."""
        return self._main is not self._places[0]

    def mirror(self, reporter: Reporter) -> tuple[PlaceState, ...]:
        """Bring the other storages up to date and say what each came to; fails for none of them."""
        now = self._installation.clock.now()
        states = []
        for place in self._places:
            if place is self._main:
                head = self.repository.head.seq
            else:
                head = self._bring_up_to_date(place, reporter)
            good_at = None if place.problem else now
            states.append(
                PlaceState(
                    place.label, place.role, place.medium, place.is_away, now, good_at, head, place.problem
                )
            )
        return tuple(states)

    def _set_doubles_aside(self) -> None:
        """Note where two addresses lead to one place: that is one copy, not two."""
        for number, place in enumerate(self._places):
            for before in self._places[:number]:
                if place.storage is not None and before.storage is not None:
                    place.problem = _problem_of(partial(need_apart, before.storage, place.storage))
                    if place.problem:
                        place.storage = place.head = None

    def _choose(self, known: str, reporter: Reporter) -> None:
        """Choose where to write: into the repository of the storage, or the one `known` while it is away."""
        first = self._places[0]
        ours = first.repo_id or known
        there = [place for place in self._places if place.head is not None]
        usable = [place for place in there if not ours or place.repo_id == ours]
        if not usable:
            raise StorageUnavailable(_all_problems(self._places))
        furthest = max(usable, key=lambda place: place.head or 0)
        self._main = first if first.head == furthest.head else furthest
        if first.head is not None and first is not self._main:
            first.problem = self._copy(self._main, first, reporter)
            if not first.problem:
                self._main = first  # it has all that the other one has

    def _open(self) -> None:
        installation, main = self._installation, self._main
        if main.storage is None:
            raise StorageUnavailable(main.problem)
        own = {main.label, self._places[0].label}  # the storage is no mirror, also while it is behind
        for place in self._places:
            if place.label not in own:
                note_mirror(installation.state.heads, main.repo_id, source=main.label, mirror=place.label)
        for label in own:
            forget_mirror(installation.state.heads, label)
        secret = parse_application_key(installation.key().reveal())
        self.repository = open_repository(
            main.storage, secret, state=installation.state, clock=installation.clock
        )
        self.repository.require_history()

    def _bring_up_to_date(self, place: _Place, reporter: Reporter) -> int:
        if place.problem and place.storage is None:
            return 0
        place.problem = place.problem or self._copy(self._main, place, reporter)
        return 0 if place.problem else self.repository.head.seq

    def _copy(self, source: _Place, target: _Place, reporter: Reporter) -> str:
        """Copy what one storage lacks; return what went wrong, nothing when all is there."""
        if source.storage is None or target.storage is None:
            return target.problem or source.problem
        try:
            plan = plan_mirror(source.storage, target.storage)
            if plan.in_sync:  # though a backup was just made: it may be the same place by another name
                prove_apart(source.storage, target.storage)
            report = mirror(
                source.storage,
                target.storage,
                plan,
                reporter=_OneStage(reporter, target.label),
                state=self._installation.state if target.role is Role.MIRROR else None,
                options=MirrorOptions(read_back=True),
            )
        except Cancelled:
            return "It was stopped before this storage was up to date."
        except BackupAdminError as error:
            return str(error)
        except OSError as error:  # the state folder, or a disk of ours: the backup itself is good
            return str(explain(error) or error)
        return " ".join(report.problems)


class _OneStage:
    """A reporter that shows all that mirroring does as one stage."""

    def __init__(self, reporter: Reporter, label: str) -> None:
        self._reporter = reporter
        self._label = label

    def stage(self, name: str, *, total_bytes: int = 0, total_items: int = 0) -> None:  # noqa: ARG002
        """Begin to copy, or to remove, what the other storage lacks or has too much."""
        self._reporter.stage(MIRROR_STAGE, total_bytes=total_bytes, total_items=total_items)

    def advance(self, *, size: int = 0, items: int = 0, current: str = "") -> None:  # noqa: ARG002
        """Add to what is copied; the storage is what people want to see."""
        self._reporter.advance(size=size, items=items, current=self._label)

    def warn(self, message: str) -> None:
        """Pass a warning on."""
        self._reporter.warn(message)

    def check_cancelled(self) -> None:
        """Raise `Cancelled` when a person asked to stop."""
        self._reporter.check_cancelled()


def _look(
    installation: Installation,
    address: str,
    role: Role,
    made: Collection[str],
    credentials: S3Credentials | None = None,
) -> _Place:
    """Open a storage and look how far its history goes; a problem is kept, not raised.

    `made` are the labels of those that held the repository before: where it is gone from one, nothing
    is made anew, since its disk may only be unplugged.
    """
    label = address.partition("?")[0]
    medium, is_away = medium_of(address, installation.settings)
    place = _Place(role, label, medium, is_away)

    def look() -> None:
        if not address:
            raise ConfigurationError("No storage is set: say on the set-up page where backups shall go.")
        storage = engine.open_chosen(address, installation.settings, credentials=credentials)
        place.label = storage.label
        is_there = not isinstance(storage, CanBeMade) or storage.is_made()
        if is_there and storage.stat(config.NAME) is not None:
            place.repo_id = _repo_id(storage, role)
            place.head = find_last(storage)
        elif role is Role.STORAGE or storage.label in made:
            lack = "holds no repository" if is_there else "is not there"
            raise NotARepository(f"{storage.label} {lack}. Is the right disk or bucket connected?")
        place.storage = storage

    place.problem = _problem_of(look)
    return place


def _repo_id(storage: Storage, role: Role) -> str:
    """Return whose repository a storage holds; empty for a mirror whose making was cut short."""
    try:
        return config.read_config(storage)[0].repo_id.hex()
    except Damaged:
        if role is Role.STORAGE:
            raise
        return ""


def _problem_of(act: Callable[[], None]) -> str:
    try:
        act()
    except BackupAdminError as error:
        return str(error)
    return ""


def _all_problems(places: Sequence[_Place]) -> str:
    return " ".join(
        place.problem or f"{place.label} holds {'no' if place.head is None else 'another'} repository."
        for place in places
    )


def _parse(rows: Any) -> tuple[PlaceState, ...]:
    """Read what is kept; what another version wrote and this one cannot read counts as no copy."""
    states = []
    for row in rows if isinstance(rows, list) else ():
        with suppress(KeyError, TypeError, ValueError, AttributeError):
            states.append(_from_plain(row))
    return tuple(states)


def _from_plain(row: dict[str, Any]) -> PlaceState:
    good_at = row.get("good_at")
    return PlaceState(
        str(row["label"]),
        Role(row["role"]),
        Medium(row["medium"]),
        bool(row["is_away"]),
        parse_time(str(row["tried_at"])),
        parse_time(str(good_at)) if good_at else None,
        int(row["head"]),
        str(row["problem"]),
    )
