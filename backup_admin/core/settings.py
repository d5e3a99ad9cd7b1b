"""Every setting once: its name, what it accepts, its default and its help."""

from __future__ import annotations

import difflib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backup_admin.core import parsing
from backup_admin.core.errors import ConfigurationError
from backup_admin.core.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from backup_admin.core.parsing import ClusterSetting, DatabaseSetting, FilesSetting

PREFIX = "BACKUP_ADMIN_"
STREAMS_ROOT = "backup_admin_streams"
"""The name under which snapshots hold what was streamed."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the configuration, without its prefix."""

    name: str
    parse: Callable[[Any], Any]
    default: Any
    help: str

    @property
    def key(self) -> str:
        """Return the name with the prefix."""
        return PREFIX + self.name


# `None` as default means: follows from other settings, see `load_settings`.
SETTINGS = (
    Setting("URL_PREFIX", parsing.url_prefix, "/backup-admin", "Where pages are."),
    Setting("APP_NAME", parsing.text, None, "Name to type to confirm a restore."),
    Setting("ENVIRONMENT", parsing.text, "", "Badge on each page: production, ..."),
    Setting("STATE_DIR", parsing.folder, None, "Private folder for our own state."),
    Setting("DATABASE_URI", parsing.secret, None, "The control database."),
    Setting("TIMEZONE", parsing.zone, "UTC", "Zone of new schedules and of pages."),
    Setting("STORAGE", parsing.text, "", "Address of the storage; pins it."),
    Setting("MIRRORS", parsing.addresses, (), "More storages, which get a copy of it."),
    Setting("PRIVATE_STORAGE", parsing.flag, False, "A page may choose a storage at a private address."),
    Setting("S3_ACCESS_KEY", parsing.secret, None, "Access key of the bucket; pins it."),
    Setting("S3_SECRET_KEY", parsing.secret, None, "The secret key that belongs to it."),
    Setting("KEY", parsing.secret, None, "The application key itself."),
    Setting("KEY_FILE", parsing.folder, None, "A file (0600) with the key."),
    Setting("DATABASES", parsing.databases, (), "Databases: name to SQLite file or address."),
    Setting("STREAMS", parsing.names, (), "Names of SQLite databases whose changes are streamed."),
    Setting("POSTGRES_CLUSTERS", parsing.clusters, (), "Servers: name to address, storage, every_hours."),
    Setting("FILES", parsing.files, (), "Folders: name to path, or path, exclude."),
    Setting("ENVIRONMENT_KEYS", parsing.names, (), "Variables kept in backups."),
    Setting("REDIS_URL", parsing.secret, None, "The queue; without it, no worker."),
    Setting("QUEUE", parsing.queue_name, "backup_admin", "Name of our RQ queue."),
    Setting("JOB_TIMEOUT", parsing.seconds, 86_400, "Longest job, in seconds."),
    Setting("HEARTBEAT_SECONDS", parsing.heartbeat, 10, "How often a job says: alive."),
    Setting("RESTORE_IP_ALLOWLIST", parsing.names, (), "Who may restore; empty: off."),
    Setting("TRUSTED_PROXIES", parsing.names, (), "Proxies whose headers count."),
    Setting("MAX_SKIP_HOURS", parsing.hours_or_none, 24, "Age up to which unchanged data is skipped."),
    Setting("CHANGE_IGNORE_TABLES", parsing.names, (), "Tables whose changes make no backup."),
    Setting("UNDO_HOURS", parsing.hours, 24, "How long a restore can be undone."),
    Setting("REQUIRE_RECOVERY_KEY", parsing.flag, True, "No backup without one."),
    Setting("READ_ONLY", parsing.flag, False, "Show, but change nothing."),
    Setting("MAINTENANCE_GATE", parsing.flag, True, "Answer 503 during a restore."),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the deployment decided; read once, then never changed."""

    url_prefix: str
    app_name: str
    environment: str
    state_dir: Path
    database_uri: Secret
    timezone: str
    storage: str
    mirrors: tuple[str, ...]
    private_storage: bool
    s3_access_key: Secret | None
    s3_secret_key: Secret | None
    key: Secret | None
    key_file: Path | None
    databases: tuple[DatabaseSetting, ...]
    streams: tuple[str, ...]
    postgres_clusters: tuple[ClusterSetting, ...]
    files: tuple[FilesSetting, ...]
    environment_keys: tuple[str, ...]
    redis_url: Secret | None
    queue: str
    job_timeout: int
    heartbeat_seconds: int
    restore_ip_allowlist: tuple[str, ...]
    trusted_proxies: tuple[str, ...]
    max_skip_hours: int
    change_ignore_tables: tuple[str, ...]
    undo_hours: int
    require_recovery_key: bool
    read_only: bool
    maintenance_gate: bool
    key_problem: str = ""
    """Why the configured key is refused; then `key` and `key_file` are empty."""
    host_secret: Secret | None = None
    """Flask's SECRET_KEY, only to refuse it as application key."""


def load_settings(
    config: Mapping[str, Any],
    environment: Mapping[str, str],
    *,
    instance: Path | None = None,
    app_name: str = "",
) -> Settings:
    """Read the settings of one app; the environment wins over its config.

    `instance` is the folder below which the state lies by default. Raises
    `ConfigurationError`, naming the nearest key where one is unknown. A refused
    application key does not raise: the host app must run, see `key_problem`.
    """
    _refuse_unknown(config)
    values = {setting.name.lower(): _read(setting, config, environment) for setting in SETTINGS}
    values["app_name"] = values["app_name"] or app_name or "app"
    values["state_dir"] = values["state_dir"] or _default_state(instance)
    if values["database_uri"] is None:
        values["database_uri"] = Secret(f"sqlite:///{values['state_dir'] / 'state.db'}")
    if (values["s3_access_key"] is None) != (values["s3_secret_key"] is None):
        raise ConfigurationError(
            "BACKUP_ADMIN_S3_ACCESS_KEY and BACKUP_ADMIN_S3_SECRET_KEY belong together; set both or neither."
        )
    _check_streams(values)
    values["host_secret"] = _host_secret(config)
    values["key_problem"] = _key_problem(values)
    if values["key_problem"]:
        values["key"] = values["key_file"] = None
    return Settings(**values)


def same_secret(first: Secret, second: Secret | None) -> bool:
    """Compare two secrets without telling how much of them is equal."""
    if second is None:
        return False
    return hmac.compare_digest(first.reveal().encode(), second.reveal().encode())


def _refuse_unknown(config: Mapping[str, Any]) -> None:
    known = [setting.key for setting in SETTINGS]
    for key in sorted(_ours(config)):
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise ConfigurationError(f"{key} is no setting; did you mean {near}?")


def _ours(config: Mapping[str, Any]) -> Iterator[str]:
    return (key for key in config if key.startswith(PREFIX))


def _read(setting: Setting, config: Mapping[str, Any], environment: Mapping[str, str]) -> Any:
    for place in (environment, config):
        value = place.get(setting.key)
        if value is None or value == "":
            continue
        try:
            return setting.parse(value)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{setting.key} {error}.") from error
    return setting.default


def _check_streams(values: Mapping[str, Any]) -> None:
    urls = {one.name: one.url for one in values["databases"]}
    for name in values["streams"]:
        if name not in urls:
            raise ConfigurationError(
                f"BACKUP_ADMIN_STREAMS names {name!r}, which is none of BACKUP_ADMIN_DATABASES."
            )
        if "://" in urls[name] and not urls[name].startswith("sqlite"):
            raise ConfigurationError(
                f"BACKUP_ADMIN_STREAMS names {name!r}, which is no SQLite database; for PostgreSQL, archive "
                "its WAL and take base backups."
            )
    if values["streams"] and STREAMS_ROOT in {one.name for one in values["files"]}:
        raise ConfigurationError(f"BACKUP_ADMIN_FILES: the name {STREAMS_ROOT} is ours; choose another.")


def _default_state(instance: Path | None) -> Path:
    if instance is None:
        raise ConfigurationError("BACKUP_ADMIN_STATE_DIR is not set; name a private folder for it.")
    return instance.absolute() / "backup_admin"


def _host_secret(config: Mapping[str, Any]) -> Secret | None:
    value = config.get("SECRET_KEY")
    if isinstance(value, bytes):
        return Secret(value.decode("utf-8", "surrogateescape"))
    return Secret(value) if isinstance(value, str) and value else None


def _key_problem(values: Mapping[str, Any]) -> str:
    if values["key"] is None:
        return ""
    if values["key_file"] is not None:
        return "BACKUP_ADMIN_KEY and BACKUP_ADMIN_KEY_FILE are both set; keep one of them."
    if same_secret(values["key"], values["host_secret"]):
        return "BACKUP_ADMIN_KEY is the app's SECRET_KEY; make a key of its own with `backup-admin key new`."
    return ""
