"""Where a restore reads from: the storage, or a mirror while that cannot be used."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from backup_admin.control import engine
from backup_admin.control.destinations import mirror_addresses
from backup_admin.core.errors import BackupAdminError, NotARepository, StorageError
from backup_admin.repository.repository import Repository, open_repository
from backup_admin.repository.secrets import parse_application_key
from backup_admin.repository.seen import forget_mirror, read_seen

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from backup_admin.control.installation import Installation


def open_for_restore(session: Session, installation: Installation) -> tuple[Repository, str]:
    """Open the repository in its storage, or in the first mirror that can be used instead.

    The second is a sentence about why it is a mirror, or nothing. Raises what is wrong with the
    storage when no mirror helps.
    """
    try:
        return engine.open_repository(session, installation), ""
    except (StorageError, NotARepository) as error:
        failure = error
    main = engine.storage_address(session, installation.settings)
    for address in mirror_addresses(session, installation.settings):
        with suppress(BackupAdminError):
            found = _open_mirror(installation, address)
            return (
                found,
                f"{found.label} is used, a mirror, since {main.partition('?')[0]} cannot be: {failure}",
            )
    raise failure


def _open_mirror(installation: Installation, address: str) -> Repository:
    """Open a mirror; one that has all that was seen is followed.

    So what is committed there is missed in the storage until a backup brought it up to date.
    """
    secret = parse_application_key(installation.key().reveal())
    storage = engine.open_chosen(address, installation.settings)
    found = open_repository(storage, secret, state=installation.state, clock=installation.clock)
    heads = installation.state.heads
    seen = read_seen(heads / f"{found.repo_id}.json", bytes.fromhex(found.repo_id))
    if seen is None or seen.head != found.head:
        return found
    forget_mirror(heads, storage.label)
    return open_repository(storage, secret, state=installation.state, clock=installation.clock)
