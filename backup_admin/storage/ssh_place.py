"""Where on which host a repository lies: `ssh://user@host:port/path?identity=…&host_key=…`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlencode

from backup_admin.core.errors import UsageError
from backup_admin.storage.address_parts import split_address
from backup_admin.storage.throttle import MIB, parse_bandwidth

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|[0-9a-fA-F:]*:[0-9a-fA-F:.]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_OPTIONS = ("identity", "host_key", "bandwidth")
_MOST_PATH_BYTES = 1000


@dataclass(frozen=True, slots=True)
class SshPlace:
    """A folder of a host. An empty `folder` part is refused; one with `./` begins at the user's home.

    `identity` is the file of a private key, empty for our own. `host_key` is the fingerprint the host's
    key must have. `bandwidth` is the most bytes a second that are sent, 0 for no limit.
    """

    host: str
    folder: str
    user: str = ""
    port: int = 22
    identity: str = ""
    host_key: str = ""
    bandwidth: int = 0

    @property
    def label(self) -> str:
        """Say where it is, for people."""
        return f"ssh://{self.netloc}{quote(self._path, safe='/~')}"

    @property
    def netloc(self) -> str:
        """Return user, host and port as they stand in the address."""
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{user}{host}{'' if self.port == 22 else f':{self.port}'}"

    @property
    def _path(self) -> str:
        return f"/~{self.folder.removeprefix('.')}" if self.folder.startswith(".") else self.folder

    def address_with(self, host_key: str) -> str:
        """Return the address of this place with the fingerprint of the host's key in it."""
        options = {"identity": self.identity, "host_key": host_key}
        if self.bandwidth:
            options["bandwidth"] = f"{self.bandwidth / MIB:g}"
        kept = urlencode({name: value for name, value in options.items() if value}, safe="/:")
        return f"{self.label}?{kept}"


def parse_ssh_address(address: str) -> SshPlace:
    """Read an `ssh://` address; raise `UsageError`."""
    parts, given = split_address(address, _OPTIONS)
    if parts.password is not None:
        raise UsageError(
            "An ssh:// address holds no password: a key opens the host, and the host tells on the first try "
            "which line lets it in."
        )
    return SshPlace(
        _host(parts.hostname or ""),
        _folder(unquote(parts.path)),
        _user(unquote(parts.username or "")),
        _port(22 if parts.port is None else parts.port),
        _file(given.get("identity", "")),
        _fingerprint(given.get("host_key", "")),
        parse_bandwidth(given.get("bandwidth")),
    )


def _host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise UsageError(f"{text!r} is no name or address of a host; give ssh://user@host/folder.")
    return text


def _user(text: str) -> str:
    if text and not _USER.fullmatch(text):
        raise UsageError(f"{text!r} is no name of a user.")
    return text


def _port(port: int) -> int:
    if port == 0:
        raise UsageError("The port of the ssh:// address is 0.")
    return port


def _folder(text: str) -> str:
    """Return the folder as it is used there: from the root, or from home with `./` before it."""
    path = text.rstrip("/")
    if path == "/~" or path.startswith("/~/"):
        path = f".{path.removeprefix('/~')}"
    parts = path.split("/")[1:]
    if not parts or any(part in ("", ".", "..") for part in parts):
        raise UsageError(
            f"{text!r} is no folder to keep a repository in; give ssh://user@host/folder, or "
            "ssh://user@host/~/folder for one below the user's home."
        )
    if not path.isprintable() or "\ufffd" in path or len(path.encode()) > _MOST_PATH_BYTES:
        raise UsageError(f"The folder {path[:100]!r} has characters that cannot be named, or too many.")
    return path


def _file(text: str) -> str:
    if not text.isprintable() or '"' in text:
        raise UsageError(f"identity={text!r} cannot be handed to ssh; name the key file without quotes.")
    return text


def _fingerprint(text: str) -> str:
    fingerprint = text.replace(" ", "+").rstrip("=")  # a plus sign stands for a space in a query
    if fingerprint and not _FINGERPRINT.fullmatch(fingerprint):
        raise UsageError(
            f"host_key={text!r} is no fingerprint; it begins with SHA256: as `ssh-keygen -lf FILE.pub` shows."
        )
    return fingerprint
