"""Key slots: list, add, exchange, remove and prove the secrets that open a repository.

A change is: new slot files, read back and opened; then one entry of the chain, which
makes it real; then the files that are not needed any more are deleted. Wherever that
stops, a secret of before or one of after opens every snapshot.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any

from backup_admin.core.errors import (
    BackupAdminError,
    ChainConflict,
    Damaged,
    KeyRefused,
    RepositoryError,
    StorageError,
    UsageError,
    WrongKey,
)
from backup_admin.repository import slots
from backup_admin.repository.config import check_config, read_config
from backup_admin.repository.epochs import PREFIX as EPOCH_PREFIX
from backup_admin.repository.epochs import epoch_name, find_epoch
from backup_admin.repository.keys import Keyring, RepositoryKeys, sha256
from backup_admin.repository.repository import LookAgain, Repository

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from backup_admin.core.clock import Clock
    from backup_admin.repository.history import ChainEntry
    from backup_admin.repository.secrets import RepositorySecret
    from backup_admin.repository.slots import SlotFile

_KEY_OPERATIONS = frozenset(["config", "rekey"])


@dataclass(frozen=True, slots=True)
class NewSlot:
    """A secret that shall open the repository, and how people tell it from others."""

    secret: RepositorySecret
    label: str


@dataclass(frozen=True, slots=True)
class SlotChange:
    """What a change did; `left` are files that should be gone and could not be deleted."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class SlotState(StrEnum):
    """How it stands with a slot."""

    IN_USE = "in use"
    MISSING = "missing"
    DAMAGED = "damaged"
    UNFINISHED = "unfinished"
    """An interrupted call left it; its secret opens all the same."""
    REMOVED = "removed"
    """It is to be deleted, and the storage did not let us."""


@dataclass(frozen=True, slots=True)
class SlotView:
    """One slot as people see it; empty where nothing is known."""

    id: str
    kind: str
    label: str
    created_at: str
    epochs: tuple[int, ...]
    state: SlotState


@dataclass(frozen=True, slots=True)
class ChangePlan:
    """What to put, to take, and to say in the entry beside it.

    `adopted` are slot files that an interrupted call left and that are right.
    """

    keyring: Keyring
    new: Sequence[NewSlot] = ()
    adopted: Collection[str] = ()
    removed: Collection[str] = ()
    objects: Collection[str] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


def recorded_slots(repository: Repository) -> dict[str, str]:
    """Return the slots in use, by id, with the SHA-256 of their files.

    The repository itself says so; one made before it did counts what is there.
    """
    recorded = repository.history.slots or dict(repository.config.slots)
    if recorded:
        return recorded
    return {file.id: file.digest for file in slots.survey_slots(repository.storage) if file.info}


def usable_slots(repository: Repository) -> dict[str, SlotFile]:
    """Return the slots in use whose files are there and as they were written."""
    recorded = recorded_slots(repository)
    files = slots.survey_slots(repository.storage, known=recorded)
    return {file.id: file for file in files if recorded.get(file.id) == file.digest and file.info}


def view_slots(repository: Repository) -> tuple[SlotView, ...]:
    """Return every slot there is or should be, those in use first."""
    recorded = recorded_slots(repository)
    present = {file.id: file for file in slots.survey_slots(repository.storage, known=recorded)}
    doomed = repository.history.doomed
    views = [_view(slot, recorded.get(slot), present.get(slot), doomed) for slot in (recorded | present)]
    return tuple(sorted(views, key=lambda view: (view.id not in recorded, view.created_at, view.id)))


def _view(slot: str, digest: str | None, file: SlotFile | None, doomed: Collection[str]) -> SlotView:
    if file is None:
        return SlotView(slot, "", "", "", (), SlotState.MISSING)
    if file.info is None or digest not in (None, file.digest):
        return SlotView(slot, "", "", "", (), SlotState.DAMAGED)
    state = SlotState.IN_USE
    if digest is None:
        state = SlotState.REMOVED if slots.slot_name(slot) in doomed else SlotState.UNFINISHED
    info = file.info
    return SlotView(slot, info.kind, info.label, info.created_at, info.epochs, state)


def check_slots(repository: Repository) -> list[str]:
    """Return what is wrong with the slots, also with those the given secret does not open."""
    recorded = recorded_slots(repository)
    present = {file.id: file for file in slots.survey_slots(repository.storage, known=recorded)}
    problems = []
    for slot, digest in recorded.items():
        name, file = slots.slot_name(slot), present.get(slot)
        if file is None:
            problems.append(f"{name} is missing from the storage: its secret opens the repository no more.")
        elif file.digest != digest:
            problems.append(f"{name} is not what was written: its secret may open the repository no more.")
        elif file.info is not None and (missing := _unreachable(repository, file.info.epochs)):
            problems.append(
                f"{name} does not reach key {missing} any more: {epoch_name(missing)} is missing or damaged. "
                "Give its secret to `keys rotate`."
            )
    problems += [f"{slots.slot_name(file.id)}: {file.problem}" for file in present.values() if file.problem]
    return problems


def _unreachable(repository: Repository, epochs: Collection[int]) -> int:
    """Return an epoch that a slot with these neither holds nor finds, or 0."""
    keyring, identity = repository.keys.keyring, repository.keys.identity
    held = {kid: key for kid, key in keyring.epochs.items() if kid in epochs}
    keys = RepositoryKeys(
        replace(keyring, epochs=held, identity=identity),
        repository.keys.repo_id,
        partial(find_epoch, repository.storage),
    )
    for kid in sorted(keyring.epochs):
        try:
            found = keys.knows(kid) and keys.keyring.epochs[kid] == keyring.epochs[kid]
        except RepositoryError:
            found = False
        if not found:
            return kid
    return 0


def add_secret(repository: Repository, new: NewSlot, *, actor: str, clock: Clock) -> SlotChange:
    """Let a further secret open the repository, after proving that it does.

    A secret that opens it already changes nothing. Raises `KeyRefused`.
    """
    finish_earlier(repository, actor=actor)
    opened = slots.opened_slots(repository.storage, new.secret, repository.keys.repo_id)
    usable = usable_slots(repository)
    if already := tuple(opened.keys() & usable.keys()):
        return SlotChange(added=already)
    if len(usable) >= slots.MOST_IN_USE:
        raise KeyRefused(
            f"{repository.label} has {len(usable)} key slots; remove one first. Nothing was changed."
        )
    return change_slots(repository, _plan(repository, new, opened, ()), actor=actor, clock=clock)


def exchange_secret(
    repository: Repository, old: Collection[str], new: NewSlot, *, actor: str, clock: Clock
) -> SlotChange:
    """Let a new secret open the repository in the place of the slots `old`.

    When it opens a slot already, an interrupted call made it: that one is taken.
    """
    finish_earlier(repository, actor=actor)
    opened = slots.opened_slots(repository.storage, new.secret, repository.keys.repo_id)
    if opened.keys() & set(old):
        raise UsageError("The new secret is the old one. Nothing was changed.")
    return change_slots(repository, _plan(repository, new, opened, old), actor=actor, clock=clock)


def remove_slot(
    repository: Repository,
    slot: str,
    *,
    proven: Collection[RepositorySecret],
    force: bool,
    actor: str,
    clock: Clock,
) -> SlotChange:
    """Take a slot away, while one that was proven to open in this call remains.

    Raises `KeyRefused`: for the last slot, when no proven one remains, and unless
    `force` when all that remain are of one kind.
    """
    finish_earlier(repository, actor=actor)
    remaining = {id_: file for id_, file in usable_slots(repository).items() if id_ != slot}
    if not remaining:
        raise KeyRefused(f"Slot {slot} is the last that opens the repository. Nothing was changed.")
    opening = {id_ for secret in proven for id_ in prove_secret(repository, secret, clock=clock)}
    if not opening & remaining.keys():
        raise KeyRefused(
            f"Slot {slot} is the one this call opens the repository with. Prove another secret with "
            "--prove-with, so that you are not locked out. Nothing was changed."
        )
    kinds = {file.info.kind for file in remaining.values() if file.info}
    if len(kinds) < 2 and not force:
        raise KeyRefused(
            f"Only one kind of secret would be left ({slots.secret_word(kinds.pop())}): if it is lost, "
            "so are all backups. Add another kind first, or give --force. Nothing was changed."
        )
    plan = ChangePlan(repository.keys.keyring, removed=[slot])
    return change_slots(repository, plan, actor=actor, clock=clock)


def find_slot(repository: Repository, text: str) -> str:
    """Return the slot with this id or unique beginning of one; raise `UsageError`."""
    known = {file.id for file in slots.survey_slots(repository.storage)} | recorded_slots(repository).keys()
    found = sorted(slot for slot in known if text and slot.startswith(text.lower()))
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{len(found)} key slots begin with {text!r}; give more of the id.")
    raise UsageError(f"{repository.label} has no key slot {text!r}: `keys list` shows them.")


def prove_secret(repository: Repository, secret: RepositorySecret, *, clock: Clock) -> tuple[str, ...]:
    """Return the slots a secret opens, each proven to read the newest snapshot.

    What each slot holds is used alone. Raises `WrongKey`, or what reading raised.
    """
    opened = slots.opened_slots(repository.storage, secret, repository.keys.repo_id)
    if not opened:
        raise WrongKey(f"No key slot in {repository.label} opens with this {slots.secret_word(secret.kind)}.")
    for keyring in opened.values():
        _prove_keyring(repository, keyring, clock)
    return tuple(opened)


def prove_slot(repository: Repository, slot: str, secret: RepositorySecret, *, clock: Clock) -> None:
    """Prove that a secret opens exactly this slot and reads the newest snapshot by it."""
    keyring = slots.opened_slots(repository.storage, secret, repository.keys.repo_id).get(slot)
    if keyring is None:
        raise WrongKey(f"Key slot {slot} in {repository.label} does not open with this secret.")
    _prove_keyring(repository, keyring, clock)


def refuse_key_changes(entries: Sequence[ChainEntry]) -> None:
    """Raise `ChainConflict` when somebody else changed the keys meanwhile."""
    if any(entry.op in _KEY_OPERATIONS for entry in entries):
        raise ChainConflict(
            "Another process changed the keys just now. Nothing was changed by this one; try again."
        )


def change_slots(
    repository: Repository,
    plan: ChangePlan,
    *,
    actor: str,
    clock: Clock,
    look_again: LookAgain = refuse_key_changes,
) -> SlotChange:
    """Carry a change out, unless what others committed first makes `look_again` raise.

    When the entry may be there and may not, all files stay: old and new secrets open.
    """
    if len(slots.survey_slots(repository.storage)) + len(plan.new) > slots.MOST_FILES:
        raise KeyRefused(
            f"{repository.label} would have too many key slots. Nothing was changed; remove some."
        )
    made = dict(_put_slot(repository, plan.keyring, new, clock) for new in plan.new)
    payload = _entry(repository, plan, made)
    refused = False

    def look(entries: Sequence[ChainEntry]) -> None:
        nonlocal refused
        refused = True
        look_again(entries)
        refused = False

    try:
        repository.record("config", payload, actor=actor, look_again=look)
    finally:
        if refused:
            _delete(repository, [slots.slot_name(slot) for slot in made])
    left = _clear(repository, payload["objects"], actor=actor)
    return SlotChange((*made, *plan.adopted), tuple(plan.removed), left)


def finish_earlier(repository: Repository, *, actor: str) -> None:
    """Delete what an interrupted change of keys left; what cannot be deleted stays."""
    repository.require_history()
    prefixes = (slots.PREFIX, EPOCH_PREFIX)
    _clear(repository, [name for name in repository.history.doomed if name.startswith(prefixes)], actor=actor)


def _plan(
    repository: Repository, new: NewSlot, opened: Mapping[str, Keyring], old: Collection[str]
) -> ChangePlan:
    """Take the slot an interrupted call left for the new secret, where it is right; else make one."""
    keyring = repository.keys.keyring
    adopted = [slot for slot, found in opened.items() if found == keyring][:1]
    removed = [slot for slot in (*old, *opened) if slot not in adopted]
    return ChangePlan(keyring, [] if adopted else [new], adopted, removed)


def _prove_keyring(repository: Repository, keyring: Keyring, clock: Clock) -> None:
    """Read configuration, chain and newest manifest by what one slot holds."""
    storage = repository.storage
    config, raw = read_config(storage)
    keys = RepositoryKeys(keyring, config.repo_id, partial(find_epoch, storage))
    check_config(raw, keys)
    found = Repository(storage, keys, config, state=None, clock=clock)
    if ids := found.snapshot_ids():
        found.manifest(ids[-1])


def _entry(repository: Repository, plan: ChangePlan, made: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the payload: the slots in use from now on, and what is off the books."""
    present = {file.id: file.digest for file in slots.survey_slots(repository.storage)}
    kept = {slot: digest for slot, digest in recorded_slots(repository).items() if slot not in plan.removed}
    kept |= {slot: present[slot] for slot in plan.adopted}
    kept |= {slot: sha256(data).hex() for slot, data in made.items()}
    objects = sorted({*plan.objects, *(slots.slot_name(slot) for slot in plan.removed)})
    return {"slots": kept, "objects": objects, **plan.more}


def _put_slot(repository: Repository, keyring: Keyring, new: NewSlot, clock: Clock) -> tuple[str, bytes]:
    """Store a slot, read it back and open it; raise `Damaged` when it does not."""
    name, data = slots.make_slot(
        new.secret, keyring, repository.keys.repo_id, label=new.label, now=clock.now()
    )
    slot = name.removeprefix(slots.PREFIX)
    repository.storage.put(name, data)
    opened = slots.opened_slots(repository.storage, new.secret, repository.keys.repo_id)
    if repository.storage.get(name) != data or opened.get(slot) != keyring:
        raise Damaged(f"{name} in {repository.label} is not what was written. The keys of before still open.")
    return slot, data


def _clear(repository: Repository, names: Collection[str], *, actor: str) -> tuple[str, ...]:
    """Delete what an entry took off the books and note that; return what could not be."""
    left = _delete(repository, names)
    gone = [name for name in names if name not in left]
    if gone:
        # Without the note the next call deletes once more, no worse.
        with suppress(BackupAdminError):
            repository.record("gc-end", {"packs": [], "objects": gone}, actor=actor)
    return left


def _delete(repository: Repository, names: Collection[str]) -> tuple[str, ...]:
    left = []
    for name in names:
        try:
            repository.storage.delete(name)
        except StorageError:
            left.append(name)
    return tuple(left)
