"""The secrets a person gives a verb: in a file, in the environment, or typed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backup_admin.core.errors import BadSecret, UsageError
from backup_admin.repository.secrets import (
    RepositorySecret,
    parse_application_key,
    parse_recovery_key,
    passphrase_secret,
    read_key_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

KEY = "BACKUP_ADMIN_KEY"
PASSPHRASE = "BACKUP_ADMIN_PASSPHRASE"  # noqa: S105  the name of a variable
RECOVERY_KEY = "BACKUP_ADMIN_RECOVERY_KEY"
_FILE = "_FILE"
_PREFIX = "bkm1_"


@dataclass(frozen=True, slots=True)
class GivenSecret:
    """A secret and where it came from, for messages."""

    origin: str
    secret: RepositorySecret


def parse_key(text: str, origin: str) -> RepositorySecret:
    """Read an application key or a recovery key, known by its form."""
    try:
        if text.strip().startswith(_PREFIX):
            return parse_application_key(text)
        return parse_recovery_key(text)
    except BadSecret as error:
        raise BadSecret(
            f"{origin} holds neither an application key ({_PREFIX}…) nor a recovery key "
            f"(eight groups of seven characters): {error}"
        ) from error


def check_not_a_key(text: str) -> None:
    """Refuse a key where the name of a file belongs: it would stay in the history of the shell."""
    if text.strip().startswith(_PREFIX):
        raise UsageError(
            "A key itself was given where the name of a file belongs; it can now be seen in the process list "
            "and the history of the shell. Write it to a file (chmod 600) and name that."
        )


def find_secrets(
    key_file: Path | None, environment: Mapping[str, str], ask: Callable[[], str] | None
) -> tuple[GivenSecret, ...]:
    """Return the secrets to try, the most explicit first.

    A key file named on the command line is the only one then; else what the
    environment names; else a person is asked, where there is one. Raises
    `UsageError` when there is none.
    """
    if key_file is not None:
        return (secret_from_file(key_file),)
    found = tuple(_from_environment(environment))
    if found:
        return found
    if ask is not None and (typed := ask().strip()):
        return (GivenSecret("What was typed", parse_key(typed, "What was typed")),)
    raise UsageError(
        f"No key is given: name its file with --key-file, or set {KEY}_FILE, {RECOVERY_KEY}_FILE "
        f"or {PASSPHRASE}_FILE."
    )


def secret_from_file(path: Path) -> GivenSecret:
    """Read an application key or a recovery key from its file."""
    check_not_a_key(str(path))
    return GivenSecret(str(path), parse_key(read_key_file(path).reveal(), f"The key file {path}"))


def passphrase_from_file(path: Path) -> GivenSecret:
    """Read a passphrase from its file."""
    return GivenSecret(str(path), passphrase_secret(read_key_file(path).reveal()))


def find_passphrase(environment: Mapping[str, str]) -> GivenSecret | None:
    """Return the passphrase the environment names, if any."""
    pair = _value_of(PASSPHRASE, environment)
    return None if pair is None else GivenSecret(pair[0], passphrase_secret(pair[1]))


def _from_environment(environment: Mapping[str, str]) -> Iterator[GivenSecret]:
    for name in (KEY, RECOVERY_KEY):
        pair = _value_of(name, environment)
        if pair is not None:
            yield GivenSecret(pair[0], parse_key(pair[1], pair[0]))
    passphrase = find_passphrase(environment)
    if passphrase is not None:
        yield passphrase


def _value_of(name: str, environment: Mapping[str, str]) -> tuple[str, str] | None:
    text, file = environment.get(name, ""), environment.get(name + _FILE, "")
    if text and file:
        raise UsageError(f"{name} and {name}{_FILE} are both set; keep one of them.")
    if file:
        return file, read_key_file(Path(file)).reveal()
    return (name, text) if text else None
