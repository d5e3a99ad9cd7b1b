"""New and further secrets for the verbs about keys, and what they say about files left over."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING

from backup_admin.cli.given import check_not_a_key, passphrase_from_file, secret_from_file
from backup_admin.core.errors import BadSecret, UsageError
from backup_admin.core.shown import count_of
from backup_admin.repository.secrets import (
    RepositorySecret,
    SecretKind,
    generate_application_key,
    generate_recovery_key,
    parse_application_key,
    parse_recovery_key,
    passphrase_secret,
    read_key_file,
    write_key_file,
)
from backup_admin.repository.slots import secret_word
from backup_admin.storage.open import local_folder

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.cli.opening import Surroundings
    from backup_admin.repository.repository import Repository


def other_secrets(keys: tuple[Path, ...], passphrases: tuple[Path, ...]) -> list[RepositorySecret]:
    """Read further secrets from their files."""
    return [secret_from_file(path).secret for path in keys] + [
        passphrase_from_file(path).secret for path in passphrases
    ]


def left_notes(left: tuple[str, ...]) -> list[str]:
    """Say what files that could not be deleted mean."""
    if not left:
        return []
    return [
        f"note: {count_of(len(left), 'file')} could not be deleted: {', '.join(left)}. Until that is done, "
        "the old secret opens the repository; any later change of keys tries again."
    ]


def key_of_file(repository: Repository, path: Path, kind: SecretKind) -> RepositorySecret:
    """Read a key of one kind from its file; make both when the file is not there."""
    check_not_a_key(str(path))
    folder = local_folder(repository.storage)
    if folder is not None and path.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"{path} lies in the storage: a key must not lie beside what it opens.")
    if not path.exists():
        fresh = generate_application_key() if kind is SecretKind.RAW else generate_recovery_key()
        write_key_file(path, fresh)
    text = read_key_file(path).reveal()
    try:
        return parse_application_key(text) if kind is SecretKind.RAW else parse_recovery_key(text)
    except BadSecret as error:
        raise BadSecret(f"{path} holds no {secret_word(kind)}: {error} Nothing was changed.") from error


def new_passphrase(surroundings: Surroundings, path: Path | None) -> RepositorySecret:
    """Read a new passphrase from its file, or ask for it twice on a terminal."""
    if path is not None:
        return passphrase_from_file(path).secret
    if not surroundings.is_terminal:
        raise UsageError("Name the file of the new passphrase with --passphrase-file. Nothing was changed.")
    typed = getpass.getpass("New passphrase: ", stream=sys.stderr)
    if getpass.getpass("The same again: ", stream=sys.stderr) != typed:
        raise BadSecret("The two passphrases differ. Nothing was changed.")
    return passphrase_secret(typed)
