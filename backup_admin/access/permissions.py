"""What people may be allowed, and the roles we offer; nothing implies another."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from backup_admin.core.errors import NotPermitted


class Permission(StrEnum):
    """One thing a person may do. Unknown to a person means: denied."""

    VIEW = "backup.view"
    RUN = "backup.run"
    CONFIGURE = "backup.configure"
    DOWNLOAD = "backup.download"
    DELETE = "backup.delete"
    VERIFY = "backup.verify"
    PLAN_RESTORE = "restore.plan"
    RESTORE = "restore.execute"
    APPROVE_RESTORE = "restore.approve"
    AUDIT = "audit.view"
    STORAGE = "storage.manage"
    KEYS = "key.manage"


class Role(StrEnum):
    """Roles a host may map its people to."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    RESTORER = "restorer"
    ADMIN = "admin"


ROLES: dict[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset({Permission.VIEW}),
    Role.OPERATOR: frozenset({Permission.VIEW, Permission.RUN, Permission.VERIFY}),
    Role.RESTORER: frozenset({Permission.VIEW, Permission.PLAN_RESTORE, Permission.RESTORE}),
    Role.ADMIN: frozenset(Permission),
}


@dataclass(frozen=True, slots=True)
class Actor:
    """A person as we remember one: by stable id, with the name of that day."""

    id: str
    name: str
    address: str = ""
    """Where the request came from; empty for the command line."""
    login_id: str = ""
    """Digest of the login; a step-up counts in that login only."""
    request_id: str = ""
    granted: frozenset[Permission] = frozenset()

    def may(self, permission: Permission) -> bool:
        """Say whether the person has the permission."""
        return permission in self.granted


def require(actor: Actor, permission: Permission) -> None:
    """Raise `NotPermitted` unless the person has the permission."""
    if not actor.may(permission):
        raise NotPermitted(f"{actor.name or 'This person'} lacks the permission {permission}.")


def role_permissions(role: str) -> frozenset[Permission]:
    """Return what a role may do; an unknown role may nothing."""
    return ROLES.get(Role(role), frozenset()) if role in set(Role) else frozenset()
