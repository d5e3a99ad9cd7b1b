"""The one tree of errors: each has a stable code and an exit status."""

from __future__ import annotations


class BackupAdminError(Exception):
    """Something failed; the message says what, on what, and what to do next."""

    code = "failed"
    exit_code = 1


class UsageError(BackupAdminError):
    """The caller asked for something that makes no sense."""

    code = "usage"
    exit_code = 2


class FieldMistake(UsageError):
    """One field of a form cannot be as it was typed."""

    code = "field"

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class ConfigurationError(BackupAdminError):
    """A setting is missing, unknown or contradicts another."""

    code = "configuration"
    exit_code = 2


class Cancelled(BackupAdminError):
    """A person asked to stop and the work stopped at a safe place."""

    code = "cancelled"


class Busy(BackupAdminError):
    """Other work on the same thing is under way."""

    code = "busy"
    exit_code = 5


class NotPermitted(BackupAdminError):
    """The person or the file permissions do not allow it."""

    code = "not_permitted"
    exit_code = 6


class LocalDiskFailed(BackupAdminError):
    """A disk of this machine is full or not to be written."""

    code = "local_disk"


class ProgramFailed(BackupAdminError):
    """A program we started did not end well."""

    code = "program_failed"


# --- storage -------------------------------------------------------------


class StorageError(BackupAdminError):
    """A storage did not do what was asked."""

    code = "storage"


class StorageUnavailable(StorageError):
    """The storage cannot be reached or its folder is not there."""

    code = "storage_unavailable"
    exit_code = 75


class StorageFull(StorageError):
    """No space is left in the storage."""

    code = "storage_full"


class NotDurable(StorageError):
    """What was stored is there, and may be gone after a power cut."""

    code = "not_durable"


class StorageDenied(StorageError):
    """Owner or mode of the storage do not let us in."""

    code = "storage_denied"
    exit_code = 6


class ObjectMissing(StorageError):
    """The named object is not in the storage."""

    code = "object_missing"


class BadObjectName(StorageError):
    """The name is not one that every storage can keep."""

    code = "bad_object_name"


# --- repository ----------------------------------------------------------


class RepositoryError(BackupAdminError):
    """A repository cannot be used as asked."""

    code = "repository"


class NotARepository(RepositoryError):
    """The storage holds no repository: its marker `config` is missing."""

    code = "not_a_repository"


class RepositoryExists(RepositoryError):
    """The storage already holds a repository."""

    code = "repository_exists"


class StorageNotEmpty(RepositoryError):
    """The storage holds other things; no repository is made among them."""

    code = "storage_not_empty"


class WrongKey(RepositoryError):
    """No slot of the repository opens with the given secret."""

    code = "wrong_key"
    exit_code = 12


class OldKey(WrongKey):
    """The secret opens a slot, but the keys were rotated without it."""

    code = "old_key"


class BadSecret(RepositoryError):
    """A key, passphrase or recovery key is malformed or unsafe to use."""

    code = "bad_secret"
    exit_code = 12


class NewerVersion(RepositoryError):
    """The repository was made by a newer version; nothing was written."""

    code = "newer_version"


class Damaged(RepositoryError):
    """Stored bytes are not what was written."""

    code = "damaged"
    exit_code = 4


class SnapshotMissing(RepositoryError):
    """No snapshot of that name is in the repository."""

    code = "snapshot_missing"


class EntryMissing(RepositoryError):
    """A snapshot has no file, folder or database of this name."""

    code = "entry_missing"


class ChainConflict(RepositoryError):
    """Others kept committing; try again."""

    code = "chain_conflict"
    exit_code = 75


class HistoryChanged(RepositoryError):
    """The repository is older than, or differs from, what was seen before."""

    code = "history_changed"
    exit_code = 4


class PacksCollected(RepositoryError):
    """A collector claimed packs that this snapshot refers to; store them again."""

    code = "packs_collected"
    exit_code = 75


# --- sources and operations ----------------------------------------------


class SourceError(BackupAdminError):
    """A source could not be captured."""

    code = "source"


class SourceMissing(SourceError):
    """The root of a source is not there or cannot be read."""

    code = "source_missing"


class SourceDenied(SourceMissing):
    """A server does not let us in: a wrong password, or no right to enter."""

    code = "source_denied"


class NotExchanged(SourceError):
    """What is live could not be exchanged, and is surely as it was."""

    code = "not_exchanged"


class SourceInvalid(SourceError):
    """The captured copy of a source is not sound."""

    code = "source_invalid"


class VerificationFailed(BackupAdminError):
    """What was read back differs from what the manifest says."""

    code = "verification_failed"
    exit_code = 4


class RestoreRefused(BackupAdminError):
    """The restore cannot be carried out as planned; nothing was touched."""

    code = "restore_refused"


class ForgetRefused(BackupAdminError):
    """A snapshot that must stay was to be forgotten; nothing was."""

    code = "forget_refused"


class KeyRefused(BackupAdminError):
    """A change of keys would leave too few ways in, or a secret out; nothing was changed."""

    code = "key_refused"


class JournalFailed(BackupAdminError):
    """A step of a restore could not be written down, so it was not taken."""

    code = "journal_failed"


class NeedsAttention(BackupAdminError):
    """A restore could neither be finished nor undone by itself."""

    code = "needs_attention"
