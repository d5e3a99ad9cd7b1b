"""From settings and an administrator's rows to storage, repository and sources."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from backup_admin.control import s3_settings
from backup_admin.control.s3_keys import find_credentials, pinned_credentials
from backup_admin.control.stored import read_value, write_value
from backup_admin.core.errors import BackupAdminError, ConfigurationError, UsageError
from backup_admin.operations.results import SourceSet
from backup_admin.repository.repository import Repository
from backup_admin.repository.repository import open_repository as open_with_secret
from backup_admin.repository.secrets import parse_application_key
from backup_admin.repository.seen import forget_mirror
from backup_admin.sources.app_settings import SettingsSource
from backup_admin.sources.files import FileSource
from backup_admin.sources.postgres.address import parse_postgres_address
from backup_admin.sources.postgres.source import PostgresSource
from backup_admin.sources.sqlite import SqliteSource
from backup_admin.storage.base import NamesHurdles
from backup_admin.storage.open import folder_of, local_folder
from backup_admin.storage.open import open_storage as open_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

    from backup_admin.control.installation import Installation
    from backup_admin.core.errors import StorageError
    from backup_admin.core.parsing import DatabaseSetting
    from backup_admin.core.settings import Settings
    from backup_admin.sources.postgres.address import PostgresAddress
    from backup_admin.storage.base import Hurdle, Storage
    from backup_admin.storage.s3_place import S3Credentials

STORAGE_KEY = "storage.address"
EXCLUDE_KEY = "files.exclude"
_POSTGRES = ("postgresql", "postgres")


@dataclass(frozen=True, slots=True)
class SourceState:
    """One thing that is protected, and whether it can be captured now."""

    name: str
    kind: str
    place: str
    problem: str = ""
    exclude: tuple[str, ...] = ()


def storage_address(session: Session, settings: Settings) -> str:
    """Return where backups go: pinned by the deployment, else set on the page, else empty."""
    if settings.storage:
        return settings.storage
    return str(read_value(session, STORAGE_KEY, "")) or s3_settings.read_address(session)


def require_address(session: Session, settings: Settings) -> str:
    """Return where backups go; raise `ConfigurationError` when that is not set yet."""
    address = storage_address(session, settings)
    if not address:
        raise ConfigurationError("No storage is set: say on the set-up page where backups shall go.")
    return address


def keep_address(session: Session, installation: Installation, address: str, *, by: str) -> None:
    """Store where backups go: a bucket by its single settings, all else by its address.

    The caller commits.
    """
    is_bucket = address.startswith(s3_settings.SCHEME)
    write_value(session, installation.clock, STORAGE_KEY, "" if is_bucket else address, by=by)
    if is_bucket:
        s3_settings.write_fields(session, installation.clock, s3_settings.fields_of(address), by=by)
    else:
        s3_settings.forget_fields(session)


def as_kept(address: str) -> str:
    """Return an address as it is stored and shown; raise `UsageError` for a bucket's that cannot be read."""
    plain = address.strip()
    if not plain.startswith(s3_settings.SCHEME):
        return plain
    return s3_settings.address_of(s3_settings.fields_of(plain))


def open_storage(session: Session, installation: Installation, *, quick: bool = False) -> Storage:
    """Open the storage; raise `ConfigurationError` when none is set or it is unsafe.

    `quick` is for a person who waits: what fails is not tried again for long.
    """
    address = require_address(session, installation.settings)
    keys = find_credentials(session, installation) if address.startswith(s3_settings.SCHEME) else None
    return open_chosen(address, installation.settings, credentials=keys, quick=quick)


def open_chosen(
    address: str, settings: Settings, *, credentials: S3Credentials | None = None, quick: bool = False
) -> Storage:
    """Open a storage; raise `ConfigurationError` for an unsafe place, `UsageError` for an unsafe address.

    Without `credentials`, a bucket is opened with those of the deployment, else with the usual chain's.
    What is chosen on a page may lie at a private address only when the deployment allows it:
    else a page could be used to look around behind the firewall.
    """
    of_deployment = (
        settings.storage,
        *settings.mirrors,
        *(one.storage for one in settings.postgres_clusters),
    )
    allow_private = settings.private_storage or address in of_deployment
    storage = open_address(
        address,
        state=settings.state_dir,
        allow_private=allow_private,
        quick=quick,
        credentials=credentials or pinned_credentials(settings),
    )
    check_storage_place(storage, settings)
    return storage


def hurdle_of(address: str, settings: Settings, error: StorageError) -> Hurdle | None:
    """Say what an error of the storage at an address means for a first contact; sends nothing."""
    try:
        storage = open_chosen(address, settings, quick=True)
    except BackupAdminError:
        return None  # it could not even be opened, so nothing was met
    return storage.hurdle_of(error) if isinstance(storage, NamesHurdles) else None


def open_repository(session: Session, installation: Installation) -> Repository:
    """Open the repository with the application key; where the app's storage lies is no mirror any more."""
    secret = parse_application_key(installation.key().reveal())
    storage = open_storage(session, installation)
    forget_mirror(installation.state.heads, storage.label)
    return open_with_secret(storage, secret, state=installation.state, clock=installation.clock)


def source_set(session: Session, installation: Installation) -> SourceSet:
    """Return everything this deployment protects.

    Raises `ConfigurationError` when there is nothing, or a database of a kind
    this version cannot capture.
    """
    settings = installation.settings
    found = [_database_source(one) for one in settings.databases]
    databases = tuple(one for one in found if isinstance(one, SqliteSource))
    servers = tuple(one for one in found if isinstance(one, PostgresSource))
    pinned = pinned_paths(session, settings)
    more = excludes(session)
    files = tuple(
        FileSource(one.name, one.path, (*one.exclude, *more.get(one.name, ())), pinned)
        for one in settings.files
    )
    captured = _settings_source(installation)
    if not (found or files or captured):
        raise ConfigurationError(
            "Nothing is named to protect: set BACKUP_ADMIN_DATABASES and BACKUP_ADMIN_FILES."
        )
    return SourceSet(files=files, databases=databases, postgres=servers, settings=captured)


def describe_sources(session: Session, installation: Installation) -> tuple[SourceState, ...]:
    """List the sources with what is wrong with each; reads no content."""
    settings = installation.settings
    states = [_database_state(one) for one in settings.databases]
    more = excludes(session)
    for one in settings.files:
        exclude = (*one.exclude, *more.get(one.name, ()))
        problem = _problem_of(FileSource(one.name, one.path, exclude))
        states.append(SourceState(one.name, "files", str(one.path), problem, exclude))
    if _settings_source(installation):
        states.append(SourceState("settings", "settings", "the app's settings"))
    return tuple(states)


def pinned_paths(session: Session, settings: Settings) -> tuple[Path, ...]:
    """Return what no folder tree may touch: databases, our state, the key, the storage."""
    paths = [one.path for one in map(_database_source, settings.databases) if isinstance(one, SqliteSource)]
    paths.append(settings.state_dir)
    if settings.key_file is not None:
        paths.append(settings.key_file)
    address = storage_address(session, settings)
    folder = folder_of(address) if address else None
    return (*paths, folder) if folder is not None else tuple(paths)


def postgres_sources(settings: Settings) -> tuple[PostgresSource, ...]:
    """Return the PostgreSQL databases that are set, with their passwords; none of a setting that is wrong."""
    found = []
    for one in settings.databases:
        with suppress(BackupAdminError):
            found.append(_database_source(one))
    return tuple(one for one in found if isinstance(one, PostgresSource))


def needs_postgres(settings: Settings) -> bool:
    """Say whether the deployment names a PostgreSQL database or server, be it well written or not."""
    return bool(settings.postgres_clusters) or any(
        one.url.startswith(_POSTGRES) for one in settings.databases
    )


def sqlite_sources(settings: Settings) -> tuple[SqliteSource, ...]:
    """Return the SQLite databases that are set; none of a setting that is wrong."""
    found = []
    for one in settings.databases:
        with suppress(BackupAdminError):
            found.append(_database_source(one))
    return tuple(one for one in found if isinstance(one, SqliteSource))


def _database_source(setting: DatabaseSetting) -> SqliteSource | PostgresSource:
    """Return the source of a database; refuse what is neither SQLite in a file nor PostgreSQL."""
    if "://" not in setting.url:
        return SqliteSource(setting.name, Path(setting.url).expanduser().absolute())
    try:
        url = make_url(setting.url)
    except ArgumentError as error:
        raise ConfigurationError(
            f"BACKUP_ADMIN_DATABASES: {setting.name} has no readable address."
        ) from error
    if url.get_backend_name() in _POSTGRES:
        # The deployment chose the role, and whoever restores is warned on the page.
        return PostgresSource(setting.name, _address(setting), as_superuser=True)
    if url.get_backend_name() != "sqlite":
        raise ConfigurationError(
            f"BACKUP_ADMIN_DATABASES: {setting.name} is {url.get_backend_name()}; "
            "this version protects SQLite and PostgreSQL databases only, so nothing is backed up."
        )
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ConfigurationError(f"BACKUP_ADMIN_DATABASES: {setting.name} must name a file by its path.")
    return SqliteSource(setting.name, Path(url.database).absolute())


def _address(setting: DatabaseSetting) -> PostgresAddress:
    try:
        return parse_postgres_address(setting.url)
    except (UsageError, ConfigurationError) as error:
        raise ConfigurationError(f"BACKUP_ADMIN_DATABASES: {setting.name}: {error}") from error


def check_storage_place(storage: Storage, settings: Settings) -> None:
    """Refuse a storage inside what it protects, or around it.

    A backup of the backups would grow with each run.
    """
    folder = local_folder(storage)
    if folder is None:
        return
    place = folder.resolve()
    roots = [one.path for one in settings.files] + [settings.state_dir]
    for root in (root.resolve() for root in roots):
        if place.is_relative_to(root) or root.is_relative_to(place):
            raise ConfigurationError(
                f"The storage {place} and {root} lie inside each other; choose another folder."
            )


def excludes(session: Session) -> Mapping[str, tuple[str, ...]]:
    """Return the exclude patterns an administrator added, by name of the root."""
    rows = read_value(session, EXCLUDE_KEY, {})
    return {str(name): tuple(map(str, patterns)) for name, patterns in rows.items()}


def set_excludes(session: Session, installation: Installation, name: str, patterns: tuple[str, ...]) -> None:
    """Store the added exclude patterns of one root; the caller audits."""
    installation.require_writable()
    if name not in {one.name for one in installation.settings.files}:
        raise UsageError(f"There is no folder named {name!r} to exclude from.")
    rows = {**excludes(session), name: tuple(part for part in patterns if part.strip())}
    write_value(session, installation.clock, EXCLUDE_KEY, {k: list(v) for k, v in rows.items() if v})
    session.commit()


def _settings_source(installation: Installation) -> SettingsSource | None:
    provider = installation.hooks.settings_provider
    names = installation.settings.environment_keys
    return SettingsSource(provider, names) if provider or names else None


def _database_state(setting: DatabaseSetting) -> SourceState:
    try:
        source = _database_source(setting)
    except ConfigurationError as error:
        return SourceState(setting.name, "database", "", str(error))
    place = str(source.path) if isinstance(source, SqliteSource) else source.address.label
    return SourceState(setting.name, "database", place, _problem_of(source))


def _problem_of(source: FileSource | SqliteSource | PostgresSource) -> str:
    try:
        if isinstance(source, FileSource):
            source.check_root()
        else:
            source.check()
    except BackupAdminError as error:
        return str(error)
    return ""
