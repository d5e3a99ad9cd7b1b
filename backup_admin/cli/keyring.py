"""The verbs about keys: which secrets open a repository, and under which keys it is sealed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backup_admin.cli.groups import RarelyLoaded
from backup_admin.cli.new_secrets import key_of_file, left_notes, new_passphrase, other_secrets
from backup_admin.cli.opening import Surroundings, actor, open_with_secret, repository_options
from backup_admin.core.clock import parse_time
from backup_admin.core.errors import Damaged, UsageError
from backup_admin.core.shown import columns, show_text, show_time
from backup_admin.operations.answers import Answer
from backup_admin.operations.key_slots import (
    NewSlot,
    SlotState,
    SlotView,
    add_secret,
    exchange_secret,
    find_slot,
    prove_secret,
    prove_slot,
    remove_slot,
    view_slots,
)
from backup_admin.repository.secrets import RepositorySecret, SecretKind
from backup_admin.repository.slots import opened_slots, secret_word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backup_admin.operations.key_slots import SlotChange
    from backup_admin.repository.repository import Repository

_HEADINGS = ("SLOT", "SECRET", "MADE", "KEYS", "STATE", "LABEL")
_FILE = click.Path(path_type=Path)


class _KeyVerbs(RarelyLoaded):
    """Its verbs, the rarer ones in modules of their own."""

    elsewhere = {"rotate": "exchanging", "retire": "exchanging", "kit": "kit"}  # noqa: RUF012 - never changed


@click.group("keys", cls=_KeyVerbs, subcommand_metavar="VERB [ARGUMENTS]...")
def keys_verb() -> None:
    """See, add, change, remove and prove the secrets that open a repository.

    A secret never stands among the arguments: it comes from a file, the environment or a prompt.
    """


@keys_verb.command("list")
@click.argument("storage")
@repository_options
@click.pass_obj
def list_slots_verb(
    surroundings: Surroundings, *, storage: str, key_file: Path | None, state_dir: Path | None
) -> Answer:
    """List the slots: each is a way in, by its own secret.

    Ends with 4 when one is missing or damaged.
    """
    repository, _, secret = open_with_secret(surroundings, storage, key_file, state_dir)
    views = view_slots(repository)
    used = opened_slots(repository.storage, secret, repository.keys.repo_id)
    lost = [view for view in views if view.state in (SlotState.MISSING, SlotState.DAMAGED)]
    keyring = repository.keys.keyring
    return Answer(
        result={
            "repository": repository.repo_id,
            "slots": [_describe(view, used=view.id in used) for view in views],
            "write_key": keyring.write_kid,
            "keys": sorted(keyring.epochs),
        },
        lines=_slot_lines(views, set(used), keyring.write_kid),
        exit_code=Damaged.exit_code if lost else 0,
        notes=[f"problem: Slot {view.id} is {view.state}: its secret may open nothing." for view in lost],
    )


def _describe(view: SlotView, *, used: bool) -> dict[str, Any]:
    return {
        "id": view.id,
        "kind": view.kind,
        "label": view.label,
        "created_at": view.created_at,
        "keys": list(view.epochs),
        "state": view.state.value,
        "used": used,
    }


def _slot_lines(views: tuple[SlotView, ...], used: set[str], write_kid: int) -> Iterator[str]:
    rows = [
        (
            view.id,
            secret_word(view.kind),
            _made(view.created_at),
            ", ".join(map(str, view.epochs)),
            f"{view.state}{', used now' if view.id in used else ''}",
            show_text(view.label),
        )
        for view in views
    ]
    yield from columns([_HEADINGS, *rows])
    yield f"What is written now is under key {write_kid}."


def _made(text: str) -> str:
    try:
        return show_time(parse_time(text))
    except ValueError:
        return show_text(text)


def new_secret_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb the options that name a new secret, one of which is to be given."""
    for option, about in reversed(
        (
            ("--recovery-file", "File of the recovery key; made with a fresh one when it is not there."),
            ("--new-key-file", "File of the application key; made with a fresh one when it is not there."),
            ("--passphrase-file", "File (mode 0600) with the passphrase."),
        )
    ):
        function = click.option(option, type=_FILE, help=about)(function)
    return function


@keys_verb.command("add")
@click.argument("storage")
@new_secret_options
@click.option("--passphrase", "asked", is_flag=True, help="Ask for a passphrase on the terminal.")
@click.option("--label", default="", help="What tells this secret from others.")
@repository_options
@click.pass_obj
def add_slot_verb(  # noqa: PLR0913  one parameter for each option
    surroundings: Surroundings,
    *,
    storage: str,
    recovery_file: Path | None,
    new_key_file: Path | None,
    passphrase_file: Path | None,
    asked: bool,
    label: str,
    key_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Let a further secret open the repository, after proving that it does.

    Safe to repeat: a file that is there is used, and a secret that opens already stays.
    """
    files = (recovery_file, new_key_file, passphrase_file)
    if sum(file is not None for file in files) + asked != 1:
        raise UsageError("Name one new secret: --recovery-file, --new-key-file or --passphrase-file.")
    repository, _, _ = open_with_secret(surroundings, storage, key_file, state_dir)
    secret = _new_secret(surroundings, repository, recovery_file, new_key_file, passphrase_file)
    new = NewSlot(secret, label or secret_word(secret.kind))
    change = add_secret(repository, new, actor=actor(), clock=surroundings.clock)
    return _answer_change(
        change, f"The {secret_word(secret.kind)} opens {repository.label} now, as slot {change.added[0]}."
    )


@keys_verb.command("remove")
@click.argument("slot")
@click.argument("storage")
@click.option("--prove-with", type=_FILE, help="File of another key, to prove that it opens the repository.")
@click.option("--prove-with-passphrase", type=_FILE, help="The same with the file of a passphrase.")
@click.option("--force", is_flag=True, help="Also when all slots that remain are of one kind.")
@repository_options
@click.pass_obj
def remove_slot_verb(  # noqa: PLR0913  one parameter for each option
    surroundings: Surroundings,
    *,
    slot: str,
    storage: str,
    prove_with: Path | None,
    prove_with_passphrase: Path | None,
    force: bool,
    key_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Take a slot away: its secret opens the repository no more.

    Whoever copied the storage and has the secret still reads that copy; `rotate --cut-off`
    and `retire` are for a secret that others know.
    """
    repository, _, secret = open_with_secret(surroundings, storage, key_file, state_dir)
    proven = [secret, *other_secrets(_given(prove_with), _given(prove_with_passphrase))]
    found = find_slot(repository, slot)
    change = remove_slot(
        repository, found, proven=proven, force=force, actor=actor(), clock=surroundings.clock
    )
    return _answer_change(change, f"Slot {found} of {repository.label} is removed.")


@keys_verb.command("passphrase")
@click.argument("storage")
@click.option(
    "--passphrase-file", type=_FILE, help="File (mode 0600) with the new passphrase; else you are asked."
)
@click.option("--slot", default="", help="The slot of the old passphrase, when there are several.")
@repository_options
@click.pass_obj
def passphrase_verb(
    surroundings: Surroundings,
    *,
    storage: str,
    passphrase_file: Path | None,
    slot: str,
    key_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Change the passphrase.

    The new one is stored and proven to open the repository before the old one goes.
    """
    repository, _, used = open_with_secret(surroundings, storage, key_file, state_dir)
    old = _slots_to_exchange(repository, used, SecretKind.PASSPHRASE, slot)
    secret = new_passphrase(surroundings, passphrase_file)
    return _exchange(surroundings, repository, old, secret)


@keys_verb.command("application")
@click.argument("storage")
@click.option(
    "--new-key-file",
    type=_FILE,
    required=True,
    help="File of the new application key; made with a fresh one when it is not there.",
)
@click.option("--slot", default="", help="The slot of the old application key, when there are several.")
@repository_options
@click.pass_obj
def application_verb(
    surroundings: Surroundings,
    *,
    storage: str,
    new_key_file: Path,
    slot: str,
    key_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Exchange the application key for a new one.

    The new one is stored and proven to open the repository before the old one goes.
    Then give the app the new file; until it has it, its backups fail.
    """
    repository, _, used = open_with_secret(surroundings, storage, key_file, state_dir)
    old = _slots_to_exchange(repository, used, SecretKind.RAW, slot)
    secret = key_of_file(repository, new_key_file, SecretKind.RAW)
    return _exchange(surroundings, repository, old, secret)


@keys_verb.command("verify")
@click.argument("storage")
@click.option("--slot", default="", help="Prove that the secret opens exactly this slot.")
@repository_options
@click.pass_obj
def verify_slot_verb(
    surroundings: Surroundings, *, storage: str, slot: str, key_file: Path | None, state_dir: Path | None
) -> Answer:
    """Prove that a secret opens the repository and reads the newest snapshot."""
    repository, _, secret = open_with_secret(surroundings, storage, key_file, state_dir)
    proven: tuple[str, ...] = (find_slot(repository, slot),) if slot else ()
    if slot:
        prove_slot(repository, proven[0], secret, clock=surroundings.clock)
    else:
        proven = prove_secret(repository, secret, clock=surroundings.clock)
    newest = (repository.snapshot_ids() or (None,))[-1]
    what = f"reads snapshot {newest}" if newest else "opens it; it has no snapshot yet"
    return Answer(
        result={"repository": repository.repo_id, "slots": list(proven), "snapshot": newest},
        lines=[f"The {secret_word(secret.kind)} opens slot {', '.join(proven)} and {what}."],
    )


def _given(path: Path | None) -> tuple[Path, ...]:
    return () if path is None else (path,)


def _slots_to_exchange(
    repository: Repository, used: RepositorySecret, kind: SecretKind, slot: str
) -> tuple[str, ...]:
    """Return the slots that a new secret takes the place of; raise `UsageError` when that is not clear."""
    if slot:
        return (find_slot(repository, slot),)
    if used.kind is kind:
        return tuple(opened_slots(repository.storage, used, repository.keys.repo_id))
    known = [view.id for view in view_slots(repository) if view.kind == kind.value]
    if len(known) == 1:
        return tuple(known)
    word = secret_word(kind)
    if not known:
        raise UsageError(f"{repository.label} has no {word} to change: `keys add` adds one.")
    raise UsageError(f"{repository.label} has {len(known)} slots of this kind ({word}): choose with --slot.")


def _exchange(
    surroundings: Surroundings, repository: Repository, old: tuple[str, ...], secret: RepositorySecret
) -> Answer:
    labels = [view.label for view in view_slots(repository) if view.id in old and view.label]
    new = NewSlot(secret, labels[0] if labels else secret_word(secret.kind))
    change = exchange_secret(repository, old, new, actor=actor(), clock=surroundings.clock)
    word = secret_word(secret.kind)
    return _answer_change(change, f"The new {word} opens {repository.label}; the old one is removed.")


def _new_secret(
    surroundings: Surroundings,
    repository: Repository,
    recovery_file: Path | None,
    new_key_file: Path | None,
    passphrase_file: Path | None,
) -> RepositorySecret:
    if recovery_file is not None:
        return key_of_file(repository, recovery_file, SecretKind.RECOVERY)
    if new_key_file is not None:
        return key_of_file(repository, new_key_file, SecretKind.RAW)
    return new_passphrase(surroundings, passphrase_file)


def _answer_change(change: SlotChange, line: str) -> Answer:
    return Answer(
        result={"added": list(change.added), "removed": list(change.removed), "left": list(change.left)},
        lines=[line],
        notes=left_notes(change.left),
    )
