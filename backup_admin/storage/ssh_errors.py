"""What an ssh connection, or a program at its far end, means by its last words, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.core.errors import (
    ObjectMissing,
    ProgramFailed,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from backup_admin.storage.base import Hurdle
from backup_admin.storage.retrying import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from backup_admin.storage.ssh_place import SshPlace


class HostUnknown(StorageDenied):
    """The address names no key of the host: a person has to compare the one it shows, and use `address`."""

    def __init__(self, message: str, *, fingerprint: str = "", address: str = "") -> None:
        super().__init__(message)
        self.fingerprint = fingerprint
        self.address = address


class HostSilent(StorageUnavailable):
    """The host shows no key; `passes` says that it may do so a little later."""

    def __init__(self, message: str, *, passes: bool = True) -> None:
        super().__init__(message)
        self.passes = passes


class NotLetIn(StorageDenied):
    """The host does not know our key yet: `line` belongs into `authorized_keys` there."""

    def __init__(self, message: str, *, line: str = "") -> None:
        super().__init__(message)
        self.line = line


_CHANGED = (
    StorageDenied,
    "the host shows another key than the address names. Somebody may stand in between. Nothing was sent.",
)
_NOT_LET_IN = (
    NotLetIn,
    "the host does not let us in. Add this line to ~/.ssh/authorized_keys of that user there: ",
)
_BAD_IDENTITY = (StorageDenied, "the key file cannot be used: {text}")
_FULL = (StorageFull, "no space is left there, or the quota is used up. Make room and try again.")
_DENIED = (StorageDenied, "the far user may not do that. Check owner and mode of the folder. {text}")
_UNREADABLE = (StorageError, "it is there, but cannot be read: look at its owner and mode, and at the disk.")
_NO_LINKS = (
    StorageError,
    "the far file system has no hard links, without which two backups at once would lose one. "
    "Choose a folder on another one.",
)
_NO_PROGRAM = (
    StorageError,
    "a program is missing there: {text}. Install rsync on the host.",
)
_NOT_HERE = (StorageError, "{text}. Install openssh-client and rsync on this machine.")
_NO_SPEECH = (StorageUnavailable, "the two ends of ssh do not agree: {text}")
_FOLDER_GONE = (
    StorageUnavailable,
    "the folder is not there. Is the disk mounted on the host? Nothing was written.",
)
# Of words with " … " in between, all are said.
_LASTING: tuple[tuple[str, tuple[type[StorageError], str]], ...] = (
    ("cannot be started", _NOT_HERE),
    ("host key verification failed", _CHANGED),
    ("host identification has changed", _CHANGED),
    ("unprotected private key", _BAD_IDENTITY),
    ("invalid format", _BAD_IDENTITY),
    ("identity file", _BAD_IDENTITY),
    ("permission denied (publickey", _NOT_LET_IN),
    ("permission denied (keyboard", _NOT_LET_IN),
    ("permission denied (password", _NOT_LET_IN),
    ("permission denied (hostbased", _NOT_LET_IN),
    ("permission denied (gssapi", _NOT_LET_IN),
    ("too many authentication failures", _NOT_LET_IN),
    ("no matching", _NO_SPEECH),
    ("no space left", _FULL),
    ("quota exceeded", _FULL),
    ("cannot be read there", _UNREADABLE),
    ("no link: … operation not permitted", _NO_LINKS),
    ("operation not supported", _NO_LINKS),
    ("operation not permitted", _DENIED),
    ("permission denied", _DENIED),
    ("read-only file system", _DENIED),
    ("not found", _NO_PROGRAM),
    ("folder is absent", _FOLDER_GONE),
)
_PASSING = (
    "broken pipe",
    "connection closed",
    "connection refused",
    "connection reset",
    "connection timed out",
    "connection unexpectedly closed",
    "closed by remote host",
    "could not resolve hostname",
    "did not end within",
    "mux_client",
    "no route to host",
    "said nothing for",
    "took nothing for",
    "session open refused",
    "timed out",
    "timeout",
    "the link ended",
    "cut short",
)


_HURDLES = {
    _CHANGED: Hurdle.CREDENTIALS,
    _NOT_LET_IN: Hurdle.CREDENTIALS,
    _BAD_IDENTITY: Hurdle.CREDENTIALS,
    _FOLDER_GONE: Hurdle.PLACE,
    _DENIED: Hurdle.RIGHTS,
}


class FarFailure(Exception):
    """What a program at the far end, or the link to it, ended with."""


def missing(name: str, place: SshPlace) -> ObjectMissing:
    """Return the error for an object that is not there."""
    return ObjectMissing(f"{name} is not in {place.label}.")


def explain(
    error: Exception, place: SshPlace, name: str, act: str, public: Callable[[], str]
) -> Failure | None:
    """Tell what a failure means; None for one that another attempt would not change.

    `public` gives the public part of our key, for who has to let it in.
    """
    if isinstance(error, HostSilent):
        return Failure(StorageUnavailable(str(error)), passes=error.passes)
    if not isinstance(error, FarFailure | ProgramFailed | OSError):
        return None
    text = str(error)
    what = f"{name or 'The folder'} in {place.label} could not be {act}"
    lower = text.lower()
    for words, (kind, advice) in _LASTING:
        if _says(lower, words):
            return Failure(_lasting(kind, f"{what}: {advice}", _last_line(text), public), passes=False)
    if isinstance(error, OSError) or any(words in lower for words in _PASSING):
        failure = StorageUnavailable(f"{what}: the connection failed: {_last_line(text)}. Try again later.")
        return Failure(failure, passes=True)
    return Failure(StorageError(f"{what}: {_last_line(text)}."), passes=False)


def _lasting(kind: type[StorageError], what: str, last_line: str, public: Callable[[], str]) -> StorageError:
    """Return the error for what no other attempt mends."""
    if kind is not NotLetIn:
        return kind(what.replace("{text}", last_line))
    try:
        line = f"restrict {public()}"
    except StorageError as unusable:
        return StorageDenied(str(unusable))
    return NotLetIn(f"{what}{line}", line=line)


def hurdle_of(error: StorageError) -> Hurdle | None:
    """Say what an error means for a first contact."""
    lower = str(error.__cause__ or "").lower()
    for words, meaning in _LASTING:
        if _says(lower, words):
            return _HURDLES.get(meaning, Hurdle.REACH)
    if isinstance(error, StorageUnavailable):
        return Hurdle.REACH
    return Hurdle.CREDENTIALS if isinstance(error, StorageDenied) else None


def _says(lower: str, words: str) -> bool:
    return all(part in lower for part in words.split(" … "))


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2][:300].rstrip(".")
