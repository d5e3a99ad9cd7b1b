"""The verb that makes a repository, and its keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backup_admin.cli.given import KEY, check_not_a_key, find_passphrase
from backup_admin.cli.opening import Surroundings, key_option, open_outside, open_place, plain_options
from backup_admin.cli.printing import print_now, say
from backup_admin.core.durable import rename_new, sync_folder
from backup_admin.core.errors import (
    BackupAdminError,
    BadSecret,
    RepositoryError,
    RepositoryExists,
    StorageError,
    UsageError,
)
from backup_admin.operations.answers import Answer
from backup_admin.repository.config import NAME as MARKER
from backup_admin.repository.creation import create_repository, holds_repository
from backup_admin.repository.repository import open_repository
from backup_admin.repository.secrets import (
    RepositorySecret,
    generate_application_key,
    generate_recovery_key,
    parse_application_key,
    parse_recovery_key,
    read_key_file,
    write_key_file,
)
from backup_admin.storage.base import CanBeMade
from backup_admin.storage.open import local_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backup_admin.core.secret import Secret
    from backup_admin.core.state import StateFolder
    from backup_admin.repository.repository import Repository
    from backup_admin.storage.base import Storage

_TURNS = (
    "note: this storage does not keep two writers apart. Writers of this version take turns; never write to "
    "it with anything else."
)


_MAY_NOT_DELETE = (
    "This key may not delete in the storage, which is the safer way: who takes it over destroys no backup. "
    "To prune, use another key, from another machine."
)


@dataclass(frozen=True, slots=True)
class _Recovery:
    """The recovery key, and where it waits until the repository is real."""

    key: Secret
    waiting: Path | None
    final: Path | None

    @property
    def secret(self) -> RepositorySecret:
        return parse_recovery_key(self.key.reveal())

    def keep(self) -> None:
        """Give the file its name: the repository is there now."""
        if self.waiting is not None and self.final is not None:
            rename_new(self.waiting, self.final)
            sync_folder(self.final.parent)

    def drop(self) -> None:
        """Remove the file: it opens nothing."""
        if self.waiting is not None:
            self.waiting.unlink(missing_ok=True)


@click.command("init")
@click.argument("storage")
@click.option(
    "--recovery-file",
    type=click.Path(path_type=Path),
    help="Where the recovery key goes (a new file, mode 0600); else it is shown once.",
)
@key_option
@plain_options
@click.pass_obj
def init_verb(
    surroundings: Surroundings,
    *,
    storage: str,
    key_file: Path | None,
    recovery_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Make a repository in an empty place.

    The key file is made with a fresh application key when it is not there. The
    recovery key opens the repository when the key file is lost: keep it elsewhere,
    on paper for example. With BACKUP_ADMIN_PASSPHRASE_FILE a passphrase opens it too.
    Safe to repeat after an interruption.
    """
    place = open_place(surroundings, storage, state_dir, quick=True)
    path = _key_path(surroundings, key_file)
    _check_places(place, path, recovery_file)
    state = open_outside(surroundings, place, state_dir)
    if _holds_repository(place):
        return _finish_earlier(surroundings, place, state, path, recovery_file)
    application = _application_key(path)
    recovery = _recovery_key(recovery_file)
    if recovery.final is None:
        _show_recovery_key(surroundings, recovery.key)
    return _create(surroundings, place, state, (path, application), recovery)


def _key_path(surroundings: Surroundings, key_file: Path | None) -> Path:
    named = key_file or Path(surroundings.environment.get(f"{KEY}_FILE", ""))
    if not named.name:
        raise UsageError(
            "Name the file of the application key with --key-file; it is made when it is not there."
        )
    check_not_a_key(str(named))
    return named.expanduser().absolute()


def _check_places(place: Storage, key_file: Path, recovery_file: Path | None) -> None:
    folder = local_folder(place)
    for path in (key_file, recovery_file):
        if path is None:
            continue
        if folder is not None and path.resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{path} lies in the storage: a key must not lie beside what it opens.")
        if not path.absolute().parent.is_dir():
            raise UsageError(f"The folder {path.absolute().parent} is not there; nothing was made.")
    if recovery_file is not None and recovery_file.exists():
        raise UsageError(
            f"{recovery_file} exists already; nothing was made. Give a new name for the recovery key."
        )
    if recovery_file is not None and recovery_file.absolute() == key_file:
        raise UsageError("The recovery key needs a file of its own: together they are lost together.")


def _holds_repository(place: Storage) -> bool:
    """Say whether a repository is there; refuse a place with other things in it."""
    if isinstance(place, CanBeMade) and not place.is_made():
        return False
    return holds_repository(place)


def _application_key(path: Path) -> RepositorySecret:
    if not path.exists():
        write_key_file(path, generate_application_key())
        say(f"A new application key was written to {path}.")
    return _read_application_key(path)


def _read_application_key(path: Path) -> RepositorySecret:
    try:
        return parse_application_key(read_key_file(path).reveal())
    except BadSecret as error:
        raise BadSecret(f"{path} holds no application key: {error} Nothing was made.") from error


def _waiting_name(final: Path) -> Path:
    return final.with_name(f".{final.name}.not-yet-valid")


def _recovery_key(final: Path | None) -> _Recovery:
    """Make a recovery key; one that an interrupted call left waiting is taken up again."""
    if final is None:
        return _Recovery(generate_recovery_key(), None, None)
    waiting = _waiting_name(final)
    key = _read_waiting(waiting)
    if key is None:
        waiting.unlink(missing_ok=True)
        key = generate_recovery_key()
        write_key_file(waiting, key)
    return _Recovery(key, waiting, final)


def _read_waiting(waiting: Path) -> Secret | None:
    if not waiting.exists():
        return None
    try:
        key = read_key_file(waiting)
        parse_recovery_key(key.reveal())
    except BackupAdminError:
        return None  # not one of ours, or cut short: it opens nothing
    return key


def _create(
    surroundings: Surroundings,
    place: Storage,
    state: StateFolder,
    application: tuple[Path, RepositorySecret],
    recovery: _Recovery,
) -> Answer:
    path, secret = application
    secrets = [(secret, "application key"), (recovery.secret, "recovery key")]
    passphrase = find_passphrase(surroundings.environment)
    if passphrase is not None:
        secrets.append((passphrase.secret, "passphrase"))
    try:
        made = create_repository(place, secrets, clock=surroundings.clock)
    except (BackupAdminError, OSError):
        if not _was_made(surroundings, place, state, secret):
            recovery.drop()
            if recovery.final is None:
                say("The recovery key shown above opens nothing; forget it.")
            raise
    for given, _ in secrets:
        repository = open_repository(place, given, state=state, clock=surroundings.clock)
    if not made.may_delete:
        say(_MAY_NOT_DELETE)
    recovery.keep()
    return _answer(repository, path, recovery)


def _was_made(
    surroundings: Surroundings, place: Storage, state: StateFolder, secret: RepositorySecret
) -> bool:
    """Say whether the repository is there in spite of the error; doubt counts as yes."""
    try:
        if place.stat(MARKER) is None:
            return False
    except StorageError:
        # A place that is not there holds no repository; anything else leaves doubt.
        return not _is_absent(place)
    try:
        open_repository(place, secret, state=state, clock=surroundings.clock)
    except RepositoryError:
        return False  # another process made one there
    return True


def _is_absent(place: Storage) -> bool:
    try:
        return isinstance(place, CanBeMade) and not place.is_made()
    except StorageError:
        return False


def _finish_earlier(
    surroundings: Surroundings, place: Storage, state: StateFolder, path: Path, final: Path | None
) -> Answer:
    """Give the recovery file its name where only that was left to do; else refuse."""
    waiting = None if final is None else _waiting_name(final)
    key = None if waiting is None else _read_waiting(waiting)
    if key is None:
        raise RepositoryExists(f"{place.label} already holds a repository; it was not touched.")
    recovery = _Recovery(key, waiting, final)
    application = _read_application_key(path)
    for secret in (application, recovery.secret):
        repository = open_repository(place, secret, state=state, clock=surroundings.clock)
    recovery.keep()
    say("An earlier call had made this repository and was interrupted; it is finished now.")
    return _answer(repository, path, recovery)


def _answer(repository: Repository, path: Path, recovery: _Recovery) -> Answer:
    result = {
        "repository": repository.repo_id,
        "storage": repository.label,
        "key_file": str(path),
        "recovery_file": None if recovery.final is None else str(recovery.final.absolute()),
        "slots": sorted(slot.label for slot in repository.slots()),
        "single_writer": repository.is_single_writer,
    }
    if recovery.final is None:
        result["recovery_key"] = recovery.key.reveal()
    notes = [_TURNS] if repository.is_single_writer else []
    return Answer(result, lines=_lines(repository.label, path, recovery), notes=notes)


def _lines(label: str, path: Path, recovery: _Recovery) -> Iterator[str]:
    yield f"The repository in {label} is made; both keys were tried and open it."
    yield f"  Application key  {path}"
    if recovery.final is not None:
        yield f"  Recovery key     {recovery.final}"
    yield "Keep the recovery key away from this machine: without a key nobody can restore."


def _show_recovery_key(surroundings: Surroundings, key: Secret) -> None:
    """Show the key before it opens anything: shown after, an interruption would lose it."""
    if surroundings.as_json:
        return
    print_now(
        "The recovery key, shown only now. Write it down: it opens the repository when the key file\n"
        f"is lost.\n\n  {key.reveal()}\n\n"
    )
