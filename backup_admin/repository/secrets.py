"""The secrets that open a repository, in the form people keep them.

*Application key*: 32 random bytes as `bkm1_` + base32 + 4 check characters.
*Recovery key*: 32 random bytes as 8 groups of 7 characters, the last 4 of them
a checksum. *Passphrase*: what a person chose.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from backup_admin.core.durable import write_new
from backup_admin.core.errors import BadSecret, NotPermitted, UsageError
from backup_admin.core.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

_PREFIX = "bkm1_"
_BODY = 52
_CHECK = 4
_GROUPS = 8
_MIN_PASSPHRASE = 8


class SecretKind(StrEnum):
    """The kinds of slots a secret can open."""

    RAW = "raw"
    PASSPHRASE = "passphrase"  # noqa: S105
    RECOVERY = "recovery"


@dataclass(frozen=True, slots=True, repr=False)
class RepositorySecret:
    """One secret in the bytes a slot works with."""

    kind: SecretKind
    material: bytes


def generate_application_key() -> Secret:
    """Make a new application key in its text form."""
    return Secret(_PREFIX + _encode(os.urandom(32), _PREFIX).lower())


def parse_application_key(text: str) -> RepositorySecret:
    """Read an application key; raise `BadSecret` when a character is wrong."""
    clean = text.strip()
    if not clean.startswith(_PREFIX):
        raise BadSecret(f"An application key begins with {_PREFIX}; this text does not.")
    return RepositorySecret(
        SecretKind.RAW, _decode(clean[len(_PREFIX) :].upper(), _PREFIX, "application key")
    )


def generate_recovery_key() -> Secret:
    """Make a new recovery key: eight groups joined by dashes."""
    return format_recovery_key(RepositorySecret(SecretKind.RECOVERY, os.urandom(32)))


def format_recovery_key(secret: RepositorySecret) -> Secret:
    """Write a recovery key as people keep it, however it was typed."""
    text = _encode(secret.material, "recovery")
    size = len(text) // _GROUPS
    return Secret("-".join(text[at : at + size] for at in range(0, len(text), size)))


def parse_recovery_key(text: str) -> RepositorySecret:
    """Read a recovery key as people type it; raise `BadSecret` on a mistake."""
    clean = "".join(text.split()).replace("-", "").upper()
    clean = clean.translate(str.maketrans("018", "OIB"))
    return RepositorySecret(SecretKind.RECOVERY, _decode(clean, "recovery", "recovery key"))


def recovery_key_groups(key: Secret) -> tuple[str, ...]:
    """Return the eight groups of a recovery key, for showing and asking back."""
    return tuple(key.reveal().split("-"))


def passphrase_secret(text: str) -> RepositorySecret:
    """Take a passphrase; raise `BadSecret` when it is too short to be safe."""
    if len(text) < _MIN_PASSPHRASE:
        raise BadSecret(f"The passphrase has fewer than {_MIN_PASSPHRASE} characters.")
    return RepositorySecret(SecretKind.PASSPHRASE, text.encode("utf-8"))


def read_key_file(path: Path) -> Secret:
    """Read a secret from a file that only its owner can read.

    Raises `NotPermitted` for a file others can read, `UsageError` when it is
    missing.
    """
    try:
        # Not to wait for ever where a pipe stands.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(f"The key file {path} cannot be read: {error.strerror}.") from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"The key file {path} is no regular file.")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise NotPermitted(f"The key file {path} can be read by others; run: chmod 600 {path}")
        return Secret(os.read(file, 4096).decode("utf-8").strip())
    except UnicodeDecodeError as error:
        raise BadSecret(f"The key file {path} holds no text.") from error
    finally:
        os.close(file)


def write_key_file(path: Path, secret: Secret) -> None:
    """Write a secret to a new file (mode 0600); never replace one."""
    try:
        written = write_new(path, (f"{secret.reveal()}\n".encode(),), mode=0o600)
    except OSError as error:
        raise UsageError(f"The key file {path} cannot be written: {error.strerror}.") from error
    if not written:
        raise UsageError(f"{path} exists already; it was not touched.")


def _encode(raw: bytes, purpose: str) -> str:
    return base64.b32encode(raw).decode("ascii").rstrip("=") + _check(raw, purpose)


def _decode(text: str, purpose: str, what: str) -> bytes:
    if len(text) != _BODY + _CHECK:
        raise BadSecret(f"The {what} has {len(text)} characters instead of {_BODY + _CHECK}.")
    try:
        raw = base64.b32decode(text[:_BODY] + "====")
    except ValueError as error:
        raise BadSecret(f"The {what} holds a character that none can have.") from error
    if _encode(raw, purpose) != text:
        raise BadSecret(f"The {what} has a mistyped character: its checksum does not fit.")
    return raw


def _check(raw: bytes, purpose: str) -> str:
    digest = hashlib.sha256(b"backup_admin/v1/check/" + purpose.encode() + raw).digest()
    return base64.b32encode(digest).decode("ascii")[:_CHECK]
