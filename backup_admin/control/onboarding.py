"""First steps: where backups go, a repository, and a recovery key that is really kept."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from backup_admin.access import step_up
from backup_admin.access.secrets_at_rest import derive_key
from backup_admin.access.step_up import Act, Purpose
from backup_admin.control import catalogue, engine, s3_keys, storage_tests
from backup_admin.control.s3_settings import SCHEME
from backup_admin.control.stored import read_value, write_value
from backup_admin.core.errors import (
    BackupAdminError,
    BadSecret,
    ConfigurationError,
    NotARepository,
    UsageError,
)
from backup_admin.core.ids import new_ulid
from backup_admin.core.secret import Secret
from backup_admin.operations.key_slots import NewSlot, add_secret
from backup_admin.records import BackupManifest, BackupSchedule
from backup_admin.repository.creation import create_repository
from backup_admin.repository.repository import open_repository
from backup_admin.repository.secrets import (
    generate_recovery_key,
    parse_application_key,
    parse_recovery_key,
    recovery_key_groups,
)
from backup_admin.repository.types import SAFETY
from backup_admin.storage.probe import probe_storage

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from backup_admin.access.permissions import Actor
    from backup_admin.control.installation import Installation
    from backup_admin.repository.repository import Repository
    from backup_admin.storage.base import Storage
    from backup_admin.storage.s3_place import S3Credentials

REPOSITORY_KEY = "repository.id"
ASKED_KEY = "recovery.asked"
CONFIRMED_KEY = "recovery.confirmed"
_SIMILAR = str.maketrans("018", "OIB")


@dataclass(frozen=True, slots=True)
class SetUp:
    """How far the set-up is; nothing counts as protected before `complete`."""

    key_problem: str
    """Why there is no usable application key; empty when there is one."""
    has_sources: bool
    storage: str
    storage_pinned: bool
    """True when the deployment sets the storage, so the page cannot."""
    has_repository: bool
    recovery_asked: tuple[int, ...]
    """Numbers (from one) of the groups to type back; empty when none waits."""
    recovery_confirmed: bool
    has_schedule: bool
    has_verified_backup: bool

    @property
    def complete(self) -> bool:
        """Say whether backups can run and be restored without this server."""
        return not self.key_problem and self.has_repository and self.recovery_confirmed


@dataclass(frozen=True, slots=True)
class NewRecoveryKey:
    """A recovery key, to be shown this once."""

    key: Secret
    groups: tuple[Secret, ...]
    asked: tuple[int, ...]
    """Numbers (from one) of the groups to type back."""
    repo_id: str


def look(session: Session, installation: Installation) -> SetUp:
    """Return how far the set-up is, from the control database alone."""
    settings = installation.settings
    return SetUp(
        key_problem=_key_problem(installation),
        has_sources=bool(
            settings.databases
            or settings.files
            or settings.environment_keys
            or installation.hooks.settings_provider
        ),
        storage=engine.storage_address(session, settings),
        storage_pinned=bool(settings.storage),
        has_repository=bool(_repo_id(session)),
        recovery_asked=tuple(read_value(session, ASKED_KEY, {}).get("asked", ())),
        recovery_confirmed=is_recovery_confirmed(session),
        has_schedule=session.scalar(
            select(BackupSchedule.id).where(BackupSchedule.enabled.is_(True)).limit(1)
        )
        is not None,
        has_verified_backup=session.scalar(
            select(BackupManifest.id)
            .where(BackupManifest.verified_at.is_not(None), BackupManifest.kind != SAFETY)
            .limit(1)
        )
        is not None,
    )


def is_recovery_confirmed(session: Session) -> bool:
    """Say whether a person proved to have the recovery key of this repository."""
    confirmed = read_value(session, CONFIRMED_KEY, {})
    return bool(confirmed) and confirmed.get("repo_id") == _repo_id(session)


def require_recovery_key(session: Session, installation: Installation) -> None:
    """Raise `ConfigurationError` while backups would depend on this server alone."""
    if installation.settings.require_recovery_key and not is_recovery_confirmed(session):
        raise ConfigurationError(
            "No recovery key is confirmed, so a backup would be lost with this server: "
            "finish the set-up, or set BACKUP_ADMIN_REQUIRE_RECOVERY_KEY to false."
        )


def choose_storage(
    session: Session,
    installation: Installation,
    address: str,
    actor: Actor,
    *,
    credentials: S3Credentials | None = None,
) -> str:
    """Set where backups go, after writing, reading back and deleting an object there; then test it.

    `credentials` open a bucket and are kept sealed; without them, those that are kept stay, as long as
    it is a bucket. Once a repository is in use this needs a step-up (`Purpose.STORAGE`). Returns
    the address as it is kept. Raises `StorageError`, `UsageError`,
    `ConfigurationError` or `NotPermitted`.
    """
    installation.require_writable()
    if installation.settings.storage:
        raise ConfigurationError("BACKUP_ADMIN_STORAGE sets the storage; it cannot be changed here.")
    kept = engine.as_kept(address)
    if kept == engine.storage_address(session, installation.settings):
        if credentials is not None:
            change_keys(session, installation, credentials, actor)
        return kept
    if credentials is not None:
        s3_keys.require_changeable(installation.settings, kept)
    storage = _open_with(session, installation, kept, credentials)
    _confirm_storage(session, installation, actor)
    installation.audit().append(actor, "storage.choose", target=kept, details=s3_keys.told(credentials))
    probe_storage(storage, new_ulid(installation.clock.now()))
    engine.keep_address(session, installation, kept, by=actor.name)
    _keep_keys(session, installation, kept, credentials, actor)
    repository = _repository_in_use(session, installation, storage)
    if repository is None:
        _use_repository(session, installation, "")
    else:  # the same place by another address, or its mirror
        catalogue.reindex(session, repository)
    session.commit()
    storage_tests.examine_and_keep(session, installation, kept, storage)
    return kept


def change_keys(
    session: Session, installation: Installation, credentials: S3Credentials | None, actor: Actor
) -> None:
    """Keep other keys for the bucket in use, after a probe with them; None removes those that are kept.

    Once a repository is in use this needs a step-up (`Purpose.STORAGE`). Raises as `choose_storage`.
    """
    installation.require_writable()
    address = engine.storage_address(session, installation.settings)
    s3_keys.require_changeable(installation.settings, address)
    storage = engine.open_chosen(address, installation.settings, credentials=credentials, quick=True)
    _confirm_storage(session, installation, actor)
    installation.audit().append(actor, "storage.keys", target=address, details=s3_keys.told(credentials))
    if credentials is None:
        s3_keys.forget_keys(session)
    else:
        probe_storage(storage, new_ulid(installation.clock.now()))
        s3_keys.write_keys(session, installation, credentials, by=actor.name)
    session.commit()
    storage_tests.examine_and_keep(session, installation, address, storage)


def make_repository(session: Session, installation: Installation, actor: Actor) -> NewRecoveryKey:
    """Make the repository with a slot for the application key and one for a recovery key."""
    installation.require_writable()
    storage = engine.open_storage(session, installation)
    application = parse_application_key(installation.key().reveal())
    recovery = generate_recovery_key()
    installation.audit().append(actor, "repository.make", target=storage.label)
    made = create_repository(
        storage,
        [
            (application, "application key"),
            (parse_recovery_key(recovery.reveal()), "recovery key"),
        ],
        clock=installation.clock,
    )
    _use_repository(session, installation, made.repo_id)
    asked = _ask(session, installation, recovery, made.repo_id)
    session.commit()
    return asked


def adopt_repository(session: Session, installation: Installation, actor: Actor) -> tuple[str, ...]:
    """Use the repository that is in the storage already; return problems with its snapshots.

    The application key must open it. A recovery key has to be confirmed anew.
    """
    installation.require_writable()
    repository = engine.open_repository(session, installation)
    installation.audit().append(actor, "repository.adopt", target=repository.label)
    if _repo_id(session) != repository.repo_id:
        _use_repository(session, installation, repository.repo_id)
    return catalogue.reindex(session, repository)


def holds_repository(session: Session, installation: Installation) -> bool:
    """Ask the storage whether a repository is in it that our key opens.

    Raises `WrongKey` when it is another's.
    """
    try:
        engine.open_repository(session, installation)
    except NotARepository:
        return False
    return True


def renew_recovery_key(session: Session, installation: Installation, actor: Actor) -> NewRecoveryKey:
    """Add another recovery key to the repository; the ones before stay valid.

    Once one is confirmed this needs a step-up (`Purpose.KEYS`).
    """
    installation.require_writable()
    if is_recovery_confirmed(session):
        step_up.consume(session, installation.clock, actor=actor, act=Act(Purpose.KEYS))
    repository = engine.open_repository(session, installation)
    installation.audit().append(actor, "recovery_key.renew", target=repository.repo_id)
    recovery = generate_recovery_key()
    new = NewSlot(parse_recovery_key(recovery.reveal()), "recovery key")
    add_secret(repository, new, actor=actor.name, clock=installation.clock)
    asked = _ask(session, installation, recovery, repository.repo_id)
    session.commit()
    return asked


def confirm_recovery_key(
    session: Session, installation: Installation, typed: tuple[str, ...], actor: Actor
) -> None:
    """Compare the groups a person typed back, in the order asked; raise `BadSecret`."""
    waiting = read_value(session, ASKED_KEY, {})
    if not waiting or waiting["repo_id"] != _repo_id(session):
        raise UsageError("No recovery key waits to be confirmed; make one first.")
    proofs = [
        _proof(installation, waiting["repo_id"], number, text)
        for number, text in zip(waiting["asked"], typed, strict=False)
    ]
    right = len(typed) == len(waiting["asked"]) and all(
        hmac.compare_digest(*pair) for pair in zip(proofs, waiting["proofs"], strict=True)
    )
    if not right:
        raise BadSecret("These are not the groups that were asked for; look at the key you kept.")
    installation.audit().append(actor, "recovery_key.confirm", target=waiting["repo_id"])
    _confirmed(session, installation, waiting["repo_id"], actor)


def confirm_whole_recovery_key(
    session: Session, installation: Installation, key: Secret, actor: Actor
) -> None:
    """Confirm a recovery key made earlier by opening the repository with it."""
    repository = open_repository(
        engine.open_storage(session, installation),
        parse_recovery_key(key.reveal()),
        state=installation.state,
        clock=installation.clock,
    )
    installation.audit().append(actor, "recovery_key.confirm", target=repository.repo_id)
    _confirmed(session, installation, repository.repo_id, actor)


def _open_with(
    session: Session, installation: Installation, address: str, credentials: S3Credentials | None
) -> Storage:
    if credentials is None and address.startswith(SCHEME):
        credentials = s3_keys.find_credentials(session, installation)
    return engine.open_chosen(address, installation.settings, credentials=credentials, quick=True)


def _repository_in_use(session: Session, installation: Installation, storage: Storage) -> Repository | None:
    """Return the repository in a storage when it is the one that was in use until now."""
    if not _repo_id(session):
        return None
    try:
        secret = parse_application_key(installation.key().reveal())
        found = open_repository(storage, secret, state=installation.state, clock=installation.clock)
    except BackupAdminError:
        return None  # the set-up says what is in the way, when it is to be used
    return found if found.repo_id == _repo_id(session) else None


def _keep_keys(
    session: Session,
    installation: Installation,
    address: str,
    credentials: S3Credentials | None,
    actor: Actor,
) -> None:
    if credentials is not None:
        s3_keys.write_keys(session, installation, credentials, by=actor.name)
    elif not address.startswith(SCHEME):
        s3_keys.forget_keys(session)  # what nothing needs should not lie about


def _confirm_storage(session: Session, installation: Installation, actor: Actor) -> None:
    if _repo_id(session):
        step_up.consume(session, installation.clock, actor=actor, act=Act(Purpose.STORAGE))


def _repo_id(session: Session) -> str:
    return str(read_value(session, REPOSITORY_KEY, ""))


def _key_problem(installation: Installation) -> str:
    try:
        installation.key()
    except BackupAdminError as error:
        return str(error)
    return ""


def _use_repository(session: Session, installation: Installation, repo_id: str) -> None:
    """Note which repository is in use; what was known of another one is dropped."""
    catalogue.forget_all(session)
    write_value(session, installation.clock, REPOSITORY_KEY, repo_id)
    write_value(session, installation.clock, ASKED_KEY, {})


def _ask(session: Session, installation: Installation, key: Secret, repo_id: str) -> NewRecoveryKey:
    """Choose two groups to ask back; keep proofs of them, never the groups."""
    groups = recovery_key_groups(key)
    first = secrets.randbelow(len(groups))
    second = (first + 1 + secrets.randbelow(len(groups) - 1)) % len(groups)
    asked = tuple(sorted((first + 1, second + 1)))
    waiting: dict[str, Any] = {
        "repo_id": repo_id,
        "asked": list(asked),
        "proofs": [_proof(installation, repo_id, number, groups[number - 1]) for number in asked],
    }
    write_value(session, installation.clock, ASKED_KEY, waiting)
    return NewRecoveryKey(key, tuple(Secret(group) for group in groups), asked, repo_id)


def _proof(installation: Installation, repo_id: str, number: int, group: str) -> str:
    clean = "".join(group.split()).replace("-", "").upper().translate(_SIMILAR)
    key = derive_key(installation.key(), "recovery-groups")
    return hmac.new(key, f"{repo_id}/{number}/{clean}".encode(), "sha256").hexdigest()


def _confirmed(session: Session, installation: Installation, repo_id: str, actor: Actor) -> None:
    value = {"repo_id": repo_id, "by": actor.name}
    write_value(session, installation.clock, CONFIRMED_KEY, value, by=actor.name)
    write_value(session, installation.clock, ASKED_KEY, {})
    session.commit()
