"""From what a configuration holds to typed values; each raises `ValueError`.

The messages go on from the name of the setting: "must be ...".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from backup_admin.core.secret import Secret

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_QUEUE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


@dataclass(frozen=True, slots=True)
class DatabaseSetting:
    """One database of the app: its address, or the path of a SQLite file. May hold a password."""

    name: str
    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class FilesSetting:
    """One folder tree of the app."""

    name: str
    path: Path
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterSetting:
    """A PostgreSQL server, and the repository of its own that holds it. The address may hold a password."""

    name: str
    address: str = field(repr=False)
    storage: str
    key_file: Path | None = None
    every_hours: int = 24


def text(value: Any) -> str:
    """Accept one line of text."""
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("must be one line of text")
    return value.strip()


def secret(value: Any) -> Secret:
    """Accept text that is never shown; white space around it is not part of it."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text")
    return Secret(value.strip())


def url_prefix(value: Any) -> str:
    """Accept a path such as `/backup-admin`."""
    path = text(value).rstrip("/")
    if not _PREFIX.fullmatch(path):
        raise ValueError("must be a path such as /backup-admin")
    return path


def folder(value: Any) -> Path:
    """Accept a path; relative ones start at the current folder."""
    if not isinstance(value, str | Path) or not str(value).strip() or "\0" in str(value):
        raise ValueError("must be a path")
    return Path(value).expanduser().absolute()


def zone(value: Any) -> str:
    """Accept the name of a time zone."""
    name = text(value)
    try:
        ZoneInfo(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"must be a time zone such as Europe/Berlin, not {name!r}") from error
    except KeyError as error:  # ZoneInfoNotFoundError
        raise ValueError(f"must be a time zone such as Europe/Berlin, not {name!r}") from error
    return name


def queue_name(value: Any) -> str:
    """Accept letters, digits, `_` and `-`."""
    name = text(value)
    if not _QUEUE.fullmatch(name):
        raise ValueError("must consist of letters, digits, _ and -")
    return name


def seconds(value: Any) -> int:
    """Accept a number of seconds, at least one, at most thirty days."""
    return _whole_number(value, at_most=30 * 86_400, unit="seconds")


def heartbeat(value: Any) -> int:
    """Accept 1 to 20 seconds: after 60 of silence a job counts as dead."""
    return _whole_number(value, at_most=20, unit="seconds")


def hours(value: Any) -> int:
    """Accept a number of hours, at least one, at most one year."""
    return _whole_number(value, at_most=366 * 24, unit="hours")


def hours_or_none(value: Any) -> int:
    """Accept a number of hours, at most one year; zero turns it off."""
    return _whole_number(value, at_least=0, at_most=366 * 24, unit="hours")


def flag(value: Any) -> bool:
    """Accept true and false, also as words."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word not in _TRUE + _FALSE:
        raise ValueError("must be true or false")
    return word in _TRUE


def names(value: Any) -> tuple[str, ...]:
    """Accept a list of texts, or one text with commas between them."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list | tuple | set | frozenset):
        raise ValueError("must be a list")  # noqa: TRY004 - one kind
    parts = [text(part) for part in value]
    return tuple(part for part in parts if part)


def addresses(value: Any) -> tuple[str, ...]:
    """Accept a list of addresses, or one text with white space between them."""
    return names(value.split() if isinstance(value, str) else value)


def databases(value: Any) -> tuple[DatabaseSetting, ...]:
    """Accept a table from name to SQLite address or path."""
    return tuple(DatabaseSetting(_name(name), text(str(url))) for name, url in _table(value).items())


def files(value: Any) -> tuple[FilesSetting, ...]:
    """Accept a table from name to a path, or to its `path` and `exclude`."""
    return tuple(_files(_name(name), entry) for name, entry in _table(value).items())


def _files(name: str, entry: Any) -> FilesSetting:
    if not isinstance(entry, Mapping):
        return FilesSetting(name, folder(entry))
    unknown = set(entry) - {"path", "exclude"}
    if unknown or "path" not in entry:
        raise ValueError(f"must give {name} a path, and may give it exclude, nothing else")
    return FilesSetting(name, folder(entry["path"]), names(entry.get("exclude", ())))


def clusters(value: Any) -> tuple[ClusterSetting, ...]:
    """Accept a table from name to `address`, `storage`, and maybe `key_file` and `every_hours`."""
    return tuple(_cluster(_name(name), entry) for name, entry in _table(value).items())


def _cluster(name: str, entry: Any) -> ClusterSetting:
    must = {"address", "storage"}
    if not isinstance(entry, Mapping) or must - set(entry) or set(entry) - must - {"key_file", "every_hours"}:
        raise ValueError(
            f"must give {name} an address and a storage, and may give it key_file and every_hours, "
            "nothing else"
        )
    key_file = folder(entry["key_file"]) if entry.get("key_file") else None
    every = hours(entry.get("every_hours", 24))
    return ClusterSetting(name, text(entry["address"]), text(entry["storage"]), key_file, every)


def _table(value: Any) -> Mapping[Any, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError("must be a JSON object when it comes as text") from error
    if not isinstance(value, Mapping):
        raise ValueError("must be a table from name to place")  # noqa: TRY004 - one kind
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(f"has the name {value!r}; use letters, digits, _ . and -")
    return value


def _whole_number(value: Any, *, at_most: int, unit: str, at_least: int = 1) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"must be a number of {unit}") from error
    if isinstance(value, bool | float) or not at_least <= number <= at_most:
        raise ValueError(f"must be a number of {unit} between {at_least} and {at_most}")
    return number
