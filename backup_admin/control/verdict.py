"""Is this app protected? Said from evidence, never from the absence of errors."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from backup_admin.control.installation import Installation


class Protection(StrEnum):
    """The three answers."""

    PROTECTED = "protected"
    AT_RISK = "at_risk"
    NOT_PROTECTED = "not_protected"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence, and each fact it rests on."""

    state: Protection
    sentence: str
    details: tuple[str, ...] = ()


def judge(session: Session, installation: Installation) -> Verdict:
    """Return the verdict, from the control database and the state folder alone."""
    raise NotImplementedError
