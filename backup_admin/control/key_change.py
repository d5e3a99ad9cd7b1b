"""A new application key: what was sealed under the old one is sealed under the new one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.access.audit import AuditLog
from backup_admin.access.second_factor import reseal
from backup_admin.access.secrets_at_rest import derive_key
from backup_admin.control.stored_secrets import reseal_stored
from backup_admin.core.errors import UsageError
from backup_admin.repository.secrets import parse_application_key

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from backup_admin.access.permissions import Actor
    from backup_admin.control.installation import Installation
    from backup_admin.core.secret import Secret


@dataclass(frozen=True, slots=True)
class KeyChange:
    """How many secrets were sealed anew, and the name of the audit log that was put away, if any."""

    secrets: int
    old_log: str


def take_new_key(session: Session, installation: Installation, old: Secret, actor: Actor) -> KeyChange:
    """Seal the app's own secrets under the key of the settings; begin a new audit log.

    The log of before is kept beside it and is verified with the old key. Safe to repeat
    after an interruption. Raises `UsageError`, `BadSecret` or `AuditFailed`.
    """
    new = installation.key()
    if parse_application_key(old.reveal()) == parse_application_key(new.reveal()):
        raise UsageError("The old key is the one in use. Nothing was changed.")
    changed = reseal(session, old, new) + reseal_stored(session, old, new)
    session.commit()
    log = installation.audit()
    old_log = ""
    if not log.verify().ok:
        old_log = AuditLog(log.path, derive_key(old, "audit"), installation.clock).put_away()
    details = {"previous_log": old_log, "sealed_anew": str(changed)}
    log.append(actor, "application_key.change", target=str(installation.settings.state_dir), details=details)
    return KeyChange(changed, old_log)
