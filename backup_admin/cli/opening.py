"""What most verbs begin with: state folder, storage, secret, repository."""

from __future__ import annotations

import getpass
import os
import pwd
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backup_admin.cli.given import check_not_a_key, find_secrets
from backup_admin.cli.printing import say
from backup_admin.cli.stopping import Stop, StoppableReporter, reporting
from backup_admin.core.errors import NotPermitted, UsageError, WrongKey
from backup_admin.core.state import StateFolder
from backup_admin.operations.points import pick
from backup_admin.repository.repository import Repository, open_repository
from backup_admin.storage.open import local_folder, open_storage

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from contextlib import AbstractContextManager

    from backup_admin.cli.given import GivenSecret
    from backup_admin.core.clock import Clock
    from backup_admin.core.ids import SnapshotId
    from backup_admin.repository.secrets import RepositorySecret
    from backup_admin.storage.base import Storage

STATE_DIR = "BACKUP_ADMIN_STATE_DIR"
_INTACT = "Nothing was changed."


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a verb takes from its process."""

    environment: MutableMapping[str, str]
    clock: Clock
    stop: Stop
    as_json: bool

    def reporting(
        self, stopped: str = _INTACT, *, patient: bool = False
    ) -> AbstractContextManager[StoppableReporter]:
        """Give a reporter; `stopped` says what stopping leaves behind.

        `patient` is for work on live data: it is never cut, but stops at its own points.
        """
        return reporting(self.stop, self.environment, stopped, patient=patient)

    def set_variable(self, name: str, value: str) -> None:
        """Hand an option on to what reads the environment."""
        self.environment[name] = value

    @property
    def is_terminal(self) -> bool:
        """Say whether a person can be asked."""
        return sys.stdin.isatty() and sys.stderr.isatty()


def plain_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb the options that all have."""
    function = click.option(
        "--state-dir",
        type=click.Path(path_type=Path),
        help=f"Folder for our own state.  [{STATE_DIR}, else ~/.local/state/backup-admin]",
    )(function)
    return json_option(function)


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb the option by which programs ask."""
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        expose_value=False,
        help="Print one JSON document on stdout, and nothing else.",
    )(function)


def repository_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb what it needs to open a repository."""
    return key_option(plain_options(function))


def key_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb the option that names the key file."""
    return click.option(
        "--key-file",
        type=click.Path(path_type=Path),
        help="File (mode 0600) with the application key or the recovery key.",
    )(function)


def state_path(surroundings: Surroundings, given: Path | None) -> Path:
    """Return where the state folder is, or would be."""
    environment = surroundings.environment
    if given is not None:
        path = given
    elif environment.get(STATE_DIR):
        path = Path(environment[STATE_DIR])
    elif environment.get("XDG_STATE_HOME"):
        path = Path(environment["XDG_STATE_HOME"]) / "backup-admin"
    else:
        path = Path(environment.get("HOME") or "~").expanduser() / ".local" / "state" / "backup-admin"
    return path.expanduser().absolute()


def open_state(surroundings: Surroundings, given: Path | None) -> StateFolder:
    """Return the state folder, making it where it is not there."""
    path = state_path(surroundings, given)
    state = StateFolder(path)
    try:
        for folder in (state.cache, state.heads, state.restores, state.scratch):
            folder.stat()
    except OSError as error:
        raise NotPermitted(
            f"The state folder {path} cannot be made or used: {error.strerror}. "
            "Name another with --state-dir. Nothing was changed."
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise NotPermitted(
            f"The state folder {path} cannot be written; name another with --state-dir. Nothing was changed."
        )
    return state


def open_given(
    surroundings: Surroundings, address: str, key_file: Path | None, state_dir: Path | None
) -> tuple[Repository, StateFolder]:
    """Open a repository with the first secret that opens it.

    Writes nothing to the storage. Says so when the repository is not what was
    seen before.
    """
    repository, state, _ = open_with_secret(surroundings, address, key_file, state_dir)
    return repository, state


def open_with_secret(
    surroundings: Surroundings, address: str, key_file: Path | None, state_dir: Path | None
) -> tuple[Repository, StateFolder, RepositorySecret]:
    """Open a repository as `open_given` does, and return the secret that opened it too."""
    storage = open_place(surroundings, address, state_dir)
    state = open_outside(surroundings, storage, state_dir)
    ask = _ask_key if surroundings.is_terminal else None
    secrets = find_secrets(key_file, surroundings.environment, ask)
    repository, secret = _open_with_any(storage, secrets, state, surroundings.clock)
    if repository.history_warning:
        say(f"Attention: {repository.history_warning}")
    return repository, state, secret


def choose(surroundings: Surroundings, repository: Repository, snapshot: str, at: str) -> SnapshotId:
    """Return the snapshot by name, or by the point in time `at` where one is given: then say which it is."""
    found, notes = pick(repository, snapshot, at, surroundings.clock.now())
    for note in notes:
        say(note)
    return found


def open_place(
    surroundings: Surroundings, address: str, state_dir: Path | None, *, quick: bool = False
) -> Storage:
    """Open the storage of an address; refuse a key given in its place.

    `quick` gives up soon where it cannot be reached.
    """
    check_not_a_key(address)
    return open_storage(address, state=state_path(surroundings, state_dir), quick=quick)


def open_outside(surroundings: Surroundings, storage: Storage, state_dir: Path | None) -> StateFolder:
    """Open the state folder; raise `UsageError` when it lies in the storage."""
    folder, path = local_folder(storage), state_path(surroundings, state_dir)
    if folder is not None and path.resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            f"The state folder {path} lies in the storage {folder}; name another with --state-dir."
        )
    return open_state(surroundings, state_dir)


def actor() -> str:
    """Return who runs the command, for the repository's history."""
    try:
        return f"cli:{pwd.getpwuid(os.geteuid()).pw_name}"
    except KeyError:
        return f"cli:{os.geteuid()}"


def _open_with_any(
    storage: Storage, secrets: tuple[GivenSecret, ...], state: StateFolder, clock: Clock
) -> tuple[Repository, RepositorySecret]:
    wrong: WrongKey | None = None
    for given in secrets:
        try:
            return open_repository(storage, given.secret, state=state, clock=clock), given.secret
        except WrongKey as error:
            wrong = error
    tried = ", ".join(given.origin for given in secrets)
    raise WrongKey(
        f"{wrong} Tried: {tried}. Give the right key with --key-file, or the recovery key instead."
    ) from wrong


def _ask_key() -> str:
    return getpass.getpass("Application key or recovery key: ", stream=sys.stderr)
