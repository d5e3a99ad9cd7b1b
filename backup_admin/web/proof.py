"""The code of the second factor in a form: checked and remembered for one act."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import request

from backup_admin.access import step_up
from backup_admin.web import current

if TYPE_CHECKING:
    from backup_admin.access.step_up import Act


def prove(act: Act) -> None:
    """Check the code that came with the form; raise `NotPermitted` when it is not right."""
    installation = current.installation()
    step_up.prove(
        current.session(),
        installation.authenticators(),
        installation.audit(),
        actor=current.person(),
        act=act,
        code=request.form.get("code", ""),
    )
