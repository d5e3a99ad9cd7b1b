"""No route is open by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backup_admin.access.permissions import ROLES, Permission, Role
from backup_admin.web.guards import MARK, OPEN_TO_ALL
from backup_admin.web.standalone import create_app
from tests.unit.web.forms import get, post, token
from tests.unit.web.host import PREFIX, Host

if TYPE_CHECKING:
    from flask import Flask
    from werkzeug.routing import Rule

_OURS = ("backup_admin.", "backup_admin_standalone.")
_OPEN = {
    "backup_admin.set_theme",
    "backup_admin_standalone.sign_in",
    "backup_admin_standalone.do_sign_in",
    "backup_admin_standalone.sign_out",
    "backup_admin_standalone.first_admin",
    "backup_admin_standalone.do_first_admin",
}


def our_rules(app: Flask) -> list[Rule]:
    """Return our routes but the static files."""
    rules = [rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith(_OURS)]
    return [rule for rule in rules if not rule.endpoint.endswith(".static")]


def guarded_rules(app: Flask) -> list[Rule]:
    """Return our routes that need a person with a permission."""
    return [rule for rule in our_rules(app) if rule.endpoint not in _OPEN]


def address(rule: Rule) -> str:
    """Return an address of a route, with ids that nothing has."""
    return rule.rule.replace("<int:schedule_id>", "99").replace("<", "").replace(">", "")


def changes(rule: Rule) -> bool:
    return "POST" in (rule.methods or ())


def test_every_route_names_its_permission(host: Host) -> None:
    marks = {
        rule.endpoint: getattr(host.app.view_functions[rule.endpoint], MARK, None)
        for rule in our_rules(host.app)
    }

    assert len(marks) > 30
    assert [endpoint for endpoint, mark in marks.items() if mark is None] == []
    assert {endpoint for endpoint, mark in marks.items() if mark == OPEN_TO_ALL} <= _OPEN


def test_every_route_of_the_standalone_app_names_its_permission(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(dict(host.app.config))

    marks = {rule.endpoint: getattr(app.view_functions[rule.endpoint], MARK, None) for rule in our_rules(app)}

    assert [endpoint for endpoint, mark in marks.items() if mark is None] == []
    assert {endpoint for endpoint, mark in marks.items() if mark == OPEN_TO_ALL} == _OPEN


def test_nobody_signed_in_is_sent_to_the_sign_in_page_everywhere(host: Host) -> None:
    client = host.client()
    field = {"csrf_token": token(client)}
    with client.session_transaction() as data:
        del data["person"]

    for rule in guarded_rules(host.app):
        method = client.post if changes(rule) else client.get
        answer = method(address(rule), data=field)
        assert answer.status_code == 302, rule
        assert answer.location.startswith("/sign-in?next="), rule


def test_a_person_without_any_permission_is_refused_everywhere(host: Host) -> None:
    client = host.client(person="stranger")

    for rule in guarded_rules(host.app):
        path = address(rule).removeprefix(PREFIX)
        answer = post(client, path) if changes(rule) else get(client, path)
        assert answer.status_code == 403, rule


@pytest.mark.parametrize("role", list(Role))
def test_a_role_reaches_exactly_what_it_grants(host: Host, role: Role) -> None:
    client = host.client(person=role.value)

    for rule in guarded_rules(host.app):
        permission = Permission(getattr(host.app.view_functions[rule.endpoint], MARK))
        path = address(rule).removeprefix(PREFIX)
        answer = post(client, path) if changes(rule) else get(client, path)
        assert (answer.status_code != 403) == (permission in ROLES[role]), (rule, answer.status_code)


def test_a_refused_change_is_in_the_audit_log(ready: Host) -> None:
    post(ready.client("viewer"), "/backups")

    with ready.app.app_context():
        entry = ready.installation.audit().read_page(limit=1)[0]
    assert (entry.actor, entry.action, entry.outcome) == ("id-viewer", "backup_admin.start_backup", "denied")


def test_unknown_ids_and_drafts_of_others_look_alike(ready: Host) -> None:
    unknown = get(ready.client(), "/restore/01aaaaaaaaaaaaaaaaaaaaaaaa/type")

    assert unknown.status_code == 404
    assert "There is no such restore." in unknown.text


def test_without_a_permission_loader_the_page_names_the_line_to_add(host: Host) -> None:
    host.app.extensions["backup_admin"]._load_permissions = None

    answer = get(host.client())

    assert answer.status_code == 403
    assert "backup_admin.permission_loader(" in answer.text
