"""The settings of an app: what it tells us, and the environment it was given."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from backup_admin.core.errors import SourceInvalid
from backup_admin.core.secret import Secret

_SECRET_WORDS = (
    "auth",
    "cookie",
    "credential",
    "dsn",
    "key",
    "passphrase",
    "passwd",
    "password",
    "pepper",
    "private",
    "pwd",
    "salt",
    "secret",
    "token",
)
_ADDRESS_WITH_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s@]*:[^/\s@]+@", re.I)


@dataclass(frozen=True, slots=True)
class SettingsCapture:
    """Settings as plain JSON values; what is secret stands apart.

    `missing` names the environment variables that were asked for and not set.
    """

    values: dict[str, Any]
    secrets: dict[str, Any] = field(repr=False)
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SettingsSource:
    """The settings that a provider returns and named environment variables.

    Environment variables always count as secret. So does a setting that is named
    like a secret anywhere in it, is named in `secret_names`, is a `Secret`, or
    holds an address with a password. Too much counted as secret does no harm.
    """

    provider: Callable[[], Mapping[str, object]] | None = None
    environment: tuple[str, ...] = ()
    secret_names: tuple[str, ...] = ()

    def capture(self) -> SettingsCapture:
        """Return all settings; raises `SourceInvalid` naming one JSON cannot hold."""
        values: dict[str, Any] = {}
        secrets: dict[str, Any] = {}
        for name, value in (self.provider() if self.provider else {}).items():
            target = secrets if self._is_secret(name, value) else values
            target[name] = _plain(value, name)
        missing = []
        for name in self.environment:
            # The environment is the very thing that is captured here.
            text = os.environ.get(name)
            if text is None:
                missing.append(name)
            else:
                secrets[name] = text
        return SettingsCapture(values, secrets, tuple(missing))

    def _is_secret(self, name: str, value: object) -> bool:
        if name in self.secret_names or sounds_secret(name):
            return True
        if isinstance(value, Mapping):
            return any(self._is_secret(str(key), part) for key, part in value.items())
        if isinstance(value, (list, tuple)):
            return any(self._is_secret("", part) for part in value)
        if isinstance(value, str):
            return _ADDRESS_WITH_PASSWORD.search(value) is not None
        return isinstance(value, Secret)


def sounds_secret(name: str) -> bool:
    """Say whether a setting of this name should be treated as a secret."""
    small = name.lower()
    return any(word in small for word in _SECRET_WORDS)


def _plain(value: object, name: str) -> Any:
    if isinstance(value, Secret):
        return value.reveal()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(part, name) for part in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(part, f"{name}.{key}") for key, part in value.items()}
    raise SourceInvalid(
        f"The setting {name} is a {type(value).__name__}, which cannot be saved; let "
        "the provider return text, numbers, lists or dictionaries."
    )
