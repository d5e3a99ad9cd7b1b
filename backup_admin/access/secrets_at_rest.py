"""Secrets in the control database: sealed under keys that come from the application key."""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from backup_admin.core.canonical import dump_canonical
from backup_admin.core.errors import BadSecret, ConfigurationError
from backup_admin.core.secret import Secret
from backup_admin.core.settings import Settings, same_secret
from backup_admin.repository.secrets import parse_application_key, read_key_file

_VERSION = "v1"
_NONCE = 12


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed value lies; it opens nowhere else."""

    table: str
    column: str
    row: str


def application_key(settings: Settings) -> Secret:
    """Return the application key of this deployment.

    Raises `ConfigurationError` when there is none or it is refused, `BadSecret`
    when it is mistyped and `NotPermitted` when others can read its file.
    """
    if settings.key_problem:
        raise ConfigurationError(settings.key_problem)
    if settings.key is not None:
        key = settings.key
    elif settings.key_file is not None:
        key = read_key_file(settings.key_file)
    else:
        raise ConfigurationError(
            "There is no application key: set BACKUP_ADMIN_KEY_FILE and run `flask backup init`."
        )
    if same_secret(key, settings.host_secret):
        raise ConfigurationError("The application key is the app's SECRET_KEY; it needs a key of its own.")
    parse_application_key(key.reveal())
    return key


def derive_key(key: Secret, purpose: str) -> bytes:
    """Derive 32 bytes for one purpose from the application key."""
    material = parse_application_key(key.reveal()).material
    info = f"backup_admin/v1/app/{purpose}".encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(material)


def seal(key: Secret, plain: Secret, place: Place) -> str:
    """Encrypt a secret for one place of the database."""
    nonce = os.urandom(_NONCE)
    sealed = AESGCM(derive_key(key, "secrets")).encrypt(nonce, plain.reveal().encode(), _bound_to(place))
    return f"{_VERSION}.{base64.b64encode(nonce + sealed).decode('ascii')}"


def unseal(key: Secret, sealed: str, place: Place) -> Secret:
    """Decrypt what `seal` made for the same place; raise `BadSecret` else."""
    version, _, text = sealed.partition(".")
    if version != _VERSION:
        raise BadSecret(f"The secret in {place.table}.{place.column} was sealed by another version.")
    try:
        raw = base64.b64decode(text, validate=True)
        plain = AESGCM(derive_key(key, "secrets")).decrypt(raw[:_NONCE], raw[_NONCE:], _bound_to(place))
    except (InvalidTag, ValueError, binascii.Error) as error:
        raise BadSecret(
            f"The secret in {place.table}.{place.column} does not open with this application key."
        ) from error
    return Secret(plain.decode())


def seal_anew(old: Secret, new: Secret, sealed: str, place: Place) -> str:
    """Return what is sealed under the old key sealed under the new one, and what already is as it is."""
    try:
        unseal(new, sealed, place)
    except BadSecret:
        return seal(new, unseal(old, sealed, place), place)
    return sealed


def _bound_to(place: Place) -> bytes:
    return dump_canonical([_VERSION, place.table, place.column, place.row])
