"""Which keys open the bucket: those of the deployment, those given on a page, or the usual chain."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import delete

from backup_admin.control.s3_settings import SCHEME
from backup_admin.control.stored_secrets import read_secret, write_secret
from backup_admin.core.errors import ConfigurationError, UsageError
from backup_admin.core.secret import Secret
from backup_admin.records import StoredSetting
from backup_admin.storage.s3_place import S3Credentials, parse_s3_address

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from backup_admin.control.installation import Installation
    from backup_admin.core.settings import Settings

ACCESS_KEY = "backup_s3_access_key"
SECRET_KEY = "backup_s3_secret_key"  # noqa: S105 - the name of a row
_SHOWN = 4
_LONG_ENOUGH = 12
_LONGEST = 1000


class KeySource(StrEnum):
    """Who gives the keys of the bucket."""

    DEPLOYMENT = "deployment"
    PAGE = "page"
    CHAIN = "chain"


@dataclass(frozen=True, slots=True)
class KeysInUse:
    """What may be shown of the keys: never more than the end of the access key."""

    source: KeySource
    ends: str = ""
    changed_at: datetime | None = None
    changed_by: str = ""


def pinned_credentials(settings: Settings) -> S3Credentials | None:
    """Return the keys the deployment sets."""
    if settings.s3_access_key is None or settings.s3_secret_key is None:
        return None
    return S3Credentials(settings.s3_access_key.reveal(), settings.s3_secret_key)


def find_credentials(session: Session, installation: Installation) -> S3Credentials | None:
    """Return the keys to open the bucket with; None leaves it to environment, profile or role.

    Raises `BadSecret` when stored ones do not open with this application key.
    """
    pinned = pinned_credentials(installation.settings)
    if pinned is not None:
        return pinned
    access = read_secret(session, installation, ACCESS_KEY)
    secret = read_secret(session, installation, SECRET_KEY)
    return S3Credentials(access.reveal(), secret) if access is not None and secret is not None else None


def look_at_keys(session: Session, settings: Settings) -> KeysInUse:
    """Say which keys are in use, without opening them."""
    pinned = pinned_credentials(settings)
    if pinned is not None:
        return KeysInUse(KeySource.DEPLOYMENT, end_of(pinned))
    row = session.get(StoredSetting, ACCESS_KEY)
    if row is None or not row.sealed:
        return KeysInUse(KeySource.CHAIN)
    return KeysInUse(KeySource.PAGE, str(row.value or ""), row.updated_at, row.updated_by)


def end_of(credentials: S3Credentials) -> str:
    """Return the end of an access key that is long enough to hide the rest."""
    key = credentials.access_key
    return key[-_SHOWN:] if len(key) >= _LONG_ENOUGH else ""


def parse_keys(access_key: str, secret_key: str) -> S3Credentials | None:
    """Return keys as they were typed, None when none were; raise `UsageError` for half of them."""
    access, secret = access_key.strip(), secret_key.strip()
    if not access and not secret:
        return None
    if not access or not secret:
        raise UsageError("Access key and secret key belong together; give both.")
    for text in (access, secret):
        if len(text) > _LONGEST or not text.isprintable():
            raise UsageError(f"A key is one line of at most {_LONGEST} characters.")
    return S3Credentials(access, Secret(secret))


def require_changeable(settings: Settings, address: str) -> None:
    """Raise unless a page may give keys for this address."""
    if pinned_credentials(settings) is not None:
        raise ConfigurationError("BACKUP_ADMIN_S3_ACCESS_KEY sets the keys; they cannot be changed here.")
    if not address.startswith(SCHEME):
        raise UsageError("Access key and secret key belong to a bucket, and this storage is none.")
    if parse_s3_address(address).profile:
        raise UsageError("The address names a profile, which has keys of its own; leave one of the two out.")


def told(given: S3Credentials | None) -> dict[str, str]:
    """Say for the audit log which keys were given: as little of them as a page shows."""
    return {} if given is None else {"access_key": f"ends in …{end_of(given)}"}


def write_keys(session: Session, installation: Installation, given: S3Credentials, *, by: str) -> None:
    """Keep keys, sealed; the caller commits."""
    write_secret(session, installation, ACCESS_KEY, Secret(given.access_key), shown=end_of(given), by=by)
    write_secret(session, installation, SECRET_KEY, given.secret_key, by=by)


def forget_keys(session: Session) -> None:
    """Remove the keys given on a page; the caller commits."""
    session.execute(delete(StoredSetting).where(StoredSetting.name.in_((ACCESS_KEY, SECRET_KEY))))
