"""Restore security: the second factor of the person, and from where restores may come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, request
from markupsafe import Markup

from backup_admin.access import second_factor, step_up
from backup_admin.access.permissions import Permission
from backup_admin.access.step_up import Act, Purpose
from backup_admin.control import restores
from backup_admin.core.errors import NotPermitted
from backup_admin.records import SecondFactor
from backup_admin.web import current
from backup_admin.web.guards import requires
from backup_admin.web.proof import prove
from backup_admin.web.render import render_page

if TYPE_CHECKING:
    from flask import Response
    from flask.typing import ResponseReturnValue

    from backup_admin.access.second_factor import Enrolment

_ACT = Act(Purpose.SECOND_FACTOR)


def register(blueprint: Blueprint) -> None:
    """Add the routes of this module."""
    add = blueprint.add_url_rule
    add("/settings/security", "security", security)
    add("/settings/security/factor", "factor_start", factor_start, methods=["POST"])
    add("/settings/security/factor/confirm", "factor_confirm", factor_confirm, methods=["POST"])


@requires(Permission.VIEW)
def security() -> ResponseReturnValue:
    """Show the second factor of the person, and from where restores may come."""
    return _show()


@requires(Permission.VIEW)
def factor_start() -> ResponseReturnValue:
    """Begin an enrolment and show its QR code, this once; replacing one takes a code."""
    session, installation, actor = current.session(), current.installation(), current.person()
    installation.require_writable()
    tools = installation.authenticators()
    if second_factor.is_enrolled(session, actor.id):
        try:
            prove(_ACT)
            step_up.consume(session, installation.clock, actor=actor, act=_ACT)
        except NotPermitted as error:
            return _show(status=422, code_error=str(error))
    installation.audit().append(actor, "second_factor.begin", target=actor.id)
    made = second_factor.begin_enrolment(
        session, tools, user_id=actor.id, account=actor.name, issuer=installation.settings.app_name
    )
    return _show(enrolment=made)


@requires(Permission.VIEW)
def factor_confirm() -> ResponseReturnValue:
    """Make the new authenticator active and show its recovery codes, this once."""
    session, installation, actor = current.session(), current.installation(), current.person()
    installation.require_writable()
    code = request.form.get("code", "")
    try:
        codes = second_factor.confirm_enrolment(
            session, installation.authenticators(), user_id=actor.id, address=actor.address, code=code
        )
    except NotPermitted as error:
        return _show(status=422, code_error=str(error))
    installation.audit().append(actor, "second_factor.enrol", target=actor.id)
    return _show(codes=[each.reveal() for each in codes])


def _show(*, status: int = 200, enrolment: Enrolment | None = None, **more: Any) -> Response:
    session, installation, actor = current.session(), current.installation(), current.person()
    factor = session.get(SecondFactor, actor.id)
    context = {"code_error": "", "codes": [], **more}
    return render_page(
        "settings_security",
        status=status,
        factor=factor,
        enrolled=second_factor.is_enrolled(session, actor.id),
        codes_left=second_factor.recovery_codes_left(session, actor.id),
        pending=factor is not None and bool(factor.pending_secret),
        qr=_picture(enrolment),
        secret=enrolment.secret.reveal() if enrolment else "",
        decision=restores.allow_decision(installation, current.origin()),
        allowlist=installation.settings.restore_ip_allowlist,
        proxies=installation.settings.trusted_proxies,
        **context,
    )


def _picture(enrolment: Enrolment | None) -> Markup:
    """Return the QR code; segno draws it from the address, so no text of others is in it."""
    return Markup(enrolment.qr_svg.reveal() if enrolment else "")  # noqa: S704 - our own drawing
