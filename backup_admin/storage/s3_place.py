"""Where in which S3-compatible service a repository lies: `s3://bucket/prefix?endpoint=…`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from backup_admin.core.errors import UsageError
from backup_admin.storage.address_parts import split_address
from backup_admin.storage.throttle import parse_bandwidth

if TYPE_CHECKING:
    from backup_admin.core.secret import Secret

C = TypeVar("C", bound=StrEnum)

_BUCKET = re.compile(r"(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9](?:[a-z0-9.-]{1,61})[a-z0-9]")
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_TRUE, _FALSE = ("true", "yes", "1", "on"), ("false", "no", "0", "off")
_MOST_PREFIX_BYTES = 800  # S3 keeps 1024 for a key; our names have up to 99
_OPTIONS = (
    *("endpoint", "region", "path_style", "use_ssl", "ca_file", "profile", "create_bucket"),
    *("lock_days", "lock_mode", "storage_class", "sse", "sse_kms_key", "bandwidth"),
)
_STORAGE_CLASS = re.compile(r"[A-Z0-9_-]{1,40}")
_KMS_KEY = re.compile(r"[A-Za-z0-9:/_-]{1,2048}")
_NOT_READ_AT_ONCE = ("GLACIER", "DEEP_ARCHIVE")
_MOST_LOCK_DAYS = 36_500


class LockMode(StrEnum):
    """Who may take a lock away: whoever has the right to, or nobody at all."""

    GOVERNANCE = "governance"
    COMPLIANCE = "compliance"


class Sealing(StrEnum):
    """How a service encrypts what it keeps, on top of what we encrypt."""

    ITS_OWN_KEY = "AES256"
    KMS = "aws:kms"


@dataclass(frozen=True, slots=True)
class S3Credentials:
    """An access key, which is a name, and the secret key that belongs to it."""

    access_key: str
    secret_key: Secret


@dataclass(frozen=True, slots=True)
class S3Place:
    """A bucket of a service, and what our names stand behind in it.

    An empty endpoint means AWS. `path_style` None leaves it to the client library, which asks
    AWS by host name and others by path. `ca_file` is trusted besides no other authority. What is put
    is locked for `lock_days`; 0 locks nothing. An empty `storage_class` or `sse` is not sent.
    `bandwidth` is the most bytes a second that are sent, 0 for no limit.
    """

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    path_style: bool | None = None
    ca_file: str = ""
    profile: str = ""
    create_bucket: bool = False
    lock_days: int = 0
    lock_mode: LockMode = LockMode.GOVERNANCE
    storage_class: str = ""
    sse: Sealing | None = None
    sse_kms_key: str = ""
    bandwidth: int = 0

    @property
    def is_aws(self) -> bool:
        """Say whether this is AWS itself."""
        return not self.endpoint or urlsplit(self.endpoint).netloc.endswith(".amazonaws.com")

    @property
    def host(self) -> str:
        """Return the host of the endpoint, or nothing for AWS."""
        return urlsplit(self.endpoint).hostname or ""

    @property
    def label(self) -> str:
        """Say where it is, for people."""
        where = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        return f"{where} at {urlsplit(self.endpoint).netloc}" if self.endpoint else where

    def key(self, name: str) -> str:
        """Return the key of an object."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def name_of(self, key: str) -> str:
        """Return the name of the object that a key of ours stands for."""
        return key.removeprefix(self.key(""))


def parse_s3_address(address: str) -> S3Place:
    """Read an `s3://` address; raise `UsageError`."""
    parts, given = split_address(address, _OPTIONS)
    if "@" in parts.netloc or ":" in parts.netloc:
        raise UsageError(
            "An s3:// address holds neither keys nor a port: keys come from the environment, a profile or "
            "the settings, and the server from ?endpoint=https://HOST:PORT."
        )
    return S3Place(
        _bucket(parts.netloc),
        _prefix(unquote(parts.path)),
        endpoint(given.get("endpoint", ""), use_ssl=_flag("use_ssl", given.get("use_ssl"))),
        _region(given.get("region", "")),
        _flag("path_style", given.get("path_style")),
        given.get("ca_file", ""),
        given.get("profile", ""),
        create_bucket=_flag("create_bucket", given.get("create_bucket")) or False,
        lock_days=_lock_days(given),
        lock_mode=_choice(LockMode, "lock_mode", given.get("lock_mode", LockMode.GOVERNANCE).lower()),
        storage_class=_storage_class(given.get("storage_class", "")),
        sse=_choice(Sealing, "sse", given["sse"]) if "sse" in given else None,
        sse_kms_key=_kms_key(given),
        bandwidth=parse_bandwidth(given.get("bandwidth")),
    )


def endpoint(text: str, *, use_ssl: bool | None) -> str:
    """Return the endpoint with its scheme; raise `UsageError` for one that is no address of a server."""
    if not text:
        return ""
    if "://" not in text:
        text = f"{'http' if use_ssl is False else 'https'}://{text}"
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
        raise UsageError(f"{text!r} is no endpoint; give https://HOST or https://HOST:PORT.")
    if use_ssl is not None and use_ssl != (parts.scheme == "https"):
        raise UsageError(f"The endpoint {text} and use_ssl={str(use_ssl).lower()} contradict each other.")
    return f"{parts.scheme}://{parts.netloc}"


def _bucket(name: str) -> str:
    if not _BUCKET.fullmatch(name) or ".." in name:
        raise UsageError(
            f"{name!r} is no name of a bucket: 3 to 63 small letters, digits, dots and hyphens, such as "
            "s3://my-backups/app."
        )
    return name


def _prefix(text: str) -> str:
    prefix = text.strip("/")
    if any(part in ("", ".", "..") for part in prefix.split("/")) and prefix:
        raise UsageError(f"The prefix {prefix!r} has an empty part, '.' or '..'.")
    if not prefix.isprintable() or "\\" in prefix or "\ufffd" in prefix:
        raise UsageError(f"The prefix {prefix!r} has characters that not every service keeps.")
    if len(prefix.encode()) > _MOST_PREFIX_BYTES:
        raise UsageError(f"The prefix has more than {_MOST_PREFIX_BYTES} bytes.")
    return prefix


def _region(text: str) -> str:
    if text and not _REGION.fullmatch(text):
        raise UsageError(f"{text!r} is no region; they look like eu-central-1.")
    return text


def _lock_days(given: dict[str, str]) -> int:
    text = given.get("lock_days", "")
    if not text and "lock_mode" in given:
        raise UsageError("lock_mode says how objects are locked; give lock_days=N too, for how long.")
    if not text and "lock_days" not in given:
        return 0
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= _MOST_LOCK_DAYS:
        raise UsageError(f"lock_days is a number of days from 1 to {_MOST_LOCK_DAYS}, not {text!r}.")
    return int(text)


def _storage_class(text: str) -> str:
    if text in _NOT_READ_AT_ONCE:
        raise UsageError(
            f"Objects of the class {text} cannot be read at once, and every backup reads back what it "
            "stored. GLACIER_IR and STANDARD_IA can."
        )
    if text and not _STORAGE_CLASS.fullmatch(text):
        raise UsageError(f"{text!r} is no storage class; they look like STANDARD_IA.")
    return text


def _kms_key(given: dict[str, str]) -> str:
    text = given.get("sse_kms_key", "")
    if text and given.get("sse") != Sealing.KMS:
        raise UsageError(f"sse_kms_key names a key for sse={Sealing.KMS}; give that too.")
    if text and not _KMS_KEY.fullmatch(text):
        raise UsageError(f"{text!r} is no id, alias or ARN of a KMS key.")
    return text


def _choice(kind: type[C], name: str, text: str) -> C:
    try:
        return kind(text)
    except ValueError as error:
        raise UsageError(f"{name} is {' or '.join(kind)}, not {text!r}.") from error


def _flag(name: str, text: str | None) -> bool | None:
    if text is None:
        return None
    if text.lower() not in (*_TRUE, *_FALSE):
        raise UsageError(f"{name} is true or false, not {text!r}.")
    return text.lower() in _TRUE
