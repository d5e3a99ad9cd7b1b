"""Mounting: the host stays as it was, nobody is let in by accident, a restore closes the door."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, session
from flask_login import LoginManager, UserMixin, login_user
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect

from backup_admin import BackupAdmin, jobs
from backup_admin.access.permissions import Permission
from backup_admin.core.errors import ConfigurationError
from backup_admin.records.upgrade import upgrade
from backup_admin.repository.secrets import generate_application_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from flask.testing import FlaskClient


@dataclass
class Person(UserMixin):  # type: ignore[misc] # publishes no types
    """A person of the host."""

    id: str
    username: str


def make_app(folder: Path, **config: Any) -> Flask:
    app = Flask("gallery", instance_path=str(folder / "instance"))
    app.config.update(
        {
            "SECRET_KEY": "host secret",
            "BACKUP_ADMIN_KEY": generate_application_key().reveal(),
            "BACKUP_ADMIN_STATE_DIR": str(folder / "state"),
            **config,
        }
    )
    logins = LoginManager(app)
    people = {"7": Person("7", "ada"), "8": Person("8", "bob")}
    logins.user_loader(people.get)
    app.add_url_rule("/", "home", lambda: "the host's page")
    app.add_url_rule("/in/<who>", "sign_in", lambda who: (login_user(people[who]), "in")[1])
    return app


def mount(
    app: Flask, loader: Callable[[Any], Iterable[str] | None] | None = lambda _user: ["admin"]
) -> BackupAdmin:
    backup_admin = BackupAdmin(app)
    if loader is not None:
        backup_admin.permission_loader(loader)
    upgrade(jobs.installation_of(app).database)
    return backup_admin


def signed_in(app: Flask, who: str = "7") -> FlaskClient:
    client = app.test_client()
    client.get(f"/in/{who}")
    return client


def test_the_pages_are_below_the_prefix(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    mount(app)
    assert signed_in(app).get("/backup-admin/").status_code == 200
    other = make_app(tmp_path / "b")
    BackupAdmin(other, url_prefix="/ops/backup").permission_loader(lambda _user: ["admin"])
    upgrade(jobs.installation_of(other).database)
    assert signed_in(other).get("/ops/backup/").status_code == 200


def test_without_a_permission_loader_the_answer_names_the_line_to_add(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    mount(app, None)
    answer = signed_in(app).get("/backup-admin/")
    assert answer.status_code == 403
    assert "backup_admin.permission_loader(" in answer.text


def fails(_user: Any) -> list[str]:
    raise LookupError("roles")


@pytest.mark.parametrize(
    "loader",
    [
        lambda _user: None,
        lambda _user: [],
        fails,
        lambda _user: ["owner", "*", "ADMIN"],
        lambda _user: "everything",
    ],
)
def test_no_clear_answer_of_the_host_is_a_no(tmp_path: Path, loader: Callable[[Any], Any]) -> None:
    app = make_app(tmp_path)
    mount(app, loader)
    assert signed_in(app).get("/backup-admin/").status_code == 403


def test_nobody_signed_in_is_nobody(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    mount(app)
    assert app.test_client().get("/backup-admin/").status_code == 403
    app.login_manager.login_view = "home"  # type: ignore[attr-defined] # Flask-Login's own
    answer = app.test_client().get("/backup-admin/")
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/?next=")


def test_an_app_without_flask_login_lets_nobody_in(tmp_path: Path) -> None:
    app = Flask("bare", instance_path=str(tmp_path))
    app.config["SECRET_KEY"] = "x"
    mount(app)
    assert app.test_client().get("/backup-admin/").status_code == 403


def test_roles_and_single_permissions_are_understood(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    backup_admin = mount(app, lambda _user: ["viewer", "backup.run"])
    with app.test_request_context("/", environ_base={"REMOTE_ADDR": "10.0.0.5"}):
        login_user(Person("7", "ada"))
        actor = backup_admin.current_actor()
    assert actor is not None
    assert (actor.id, actor.name, actor.address) == ("7", "ada", "10.0.0.5")
    assert actor.granted == {Permission.VIEW, Permission.RUN}


def test_two_browsers_of_a_person_are_two_logins(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    backup_admin = mount(app)

    def login_id(who: str, kept: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        with app.test_request_context("/"):
            session.update(kept or {})
            login_user(Person(who, who))
            actor = backup_admin.current_actor()
            assert actor is not None
            return actor.login_id, dict(session)

    first, cookie = login_id("7")
    assert first
    assert login_id("7", cookie)[0] == first
    assert login_id("7")[0] != first
    assert login_id("8", cookie)[0] != first


def test_forwarded_addresses_count_from_trusted_proxies_only(tmp_path: Path) -> None:
    app = make_app(tmp_path, BACKUP_ADMIN_TRUSTED_PROXIES=["192.0.2.1"])
    backup_admin = mount(app)
    for peer, expected in (("192.0.2.1", "10.0.0.5"), ("192.0.2.9", "192.0.2.9")):
        environ = {"REMOTE_ADDR": peer}
        with app.test_request_context("/", environ_base=environ, headers={"X-Forwarded-For": "10.0.0.5"}):
            login_user(Person("7", "ada"))
            actor = backup_admin.current_actor()
            assert actor is not None
            assert actor.address == expected


@pytest.mark.parametrize("host_first", [True, False])
def test_the_hosts_extensions_stay_its_own(tmp_path: Path, host_first: bool) -> None:
    app = make_app(tmp_path, SQLALCHEMY_DATABASE_URI="sqlite://")
    db, csrf = SQLAlchemy(), CSRFProtect()
    if not host_first:
        mount(app)
    db.init_app(app)
    csrf.init_app(app)
    if host_first:
        mount(app)
    logins = app.login_manager  # type: ignore[attr-defined] # Flask-Login's own
    app.add_url_rule("/form", "form", lambda: "sent", methods=["POST"])
    assert app.extensions["sqlalchemy"] is db
    assert app.extensions["csrf"] is csrf
    assert "migrate" not in app.extensions
    assert app.login_manager is logins  # type: ignore[attr-defined] # Flask-Login's own
    assert app.test_client().post("/form").status_code == 400
    with app.app_context():
        assert db.engine.url.database in (None, "", ":memory:")


def test_two_apps_in_one_process_do_not_mix(tmp_path: Path) -> None:
    one, two = make_app(tmp_path / "a"), make_app(tmp_path / "b")
    backup_admin = BackupAdmin()
    backup_admin.permission_loader(lambda _user: ["admin"])
    for app in (one, two):
        backup_admin.init_app(app)
    with one.app_context():
        first = backup_admin.installation.settings.state_dir
    with two.app_context():
        second = backup_admin.installation.settings.state_dir
    assert (first, second) == (tmp_path / "a" / "state", tmp_path / "b" / "state")


def test_a_mistyped_key_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="BACKUP_ADMIN_STORAGE"):
        BackupAdmin(make_app(tmp_path, BACKUP_ADMIN_STORGE="x"))


def test_a_refused_key_stops_backups_and_not_the_host(tmp_path: Path) -> None:
    app = make_app(tmp_path, BACKUP_ADMIN_KEY="host secret")
    mount(app)
    assert app.test_client().get("/").status_code == 200
    assert "SECRET_KEY" in signed_in(app).get("/backup-admin/").text


def test_without_its_tables_only_our_pages_are_out_of_order(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    BackupAdmin(app).permission_loader(lambda _user: ["admin"])
    client = signed_in(app)
    assert client.get("/").status_code == 200
    answer = client.get("/backup-admin/")
    assert answer.status_code == 503
    assert "flask backup upgrade" in answer.text
    assert not (tmp_path / "state").exists()
    upgrade(jobs.installation_of(app).database)
    assert client.get("/backup-admin/").status_code == 200


def close(app: Flask) -> None:
    jobs.installation_of(app).state.maintenance_flag.write_text("r1")


def test_a_restore_keeps_everybody_out_but_our_pages(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    mount(app)
    client = signed_in(app)
    close(app)
    with jobs.installation_of(app).state.lock("restore"):
        answer = client.get("/")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
        assert answer.headers["Cache-Control"] == "no-store"
        assert client.get("/nowhere").status_code == 503
        assert client.post("/").status_code == 503
        assert client.get("/backup-admin/").status_code == 200
        assert client.get("/static/missing.css").status_code == 404
    jobs.installation_of(app).state.maintenance_flag.unlink()
    assert client.get("/").status_code == 200


def test_the_gate_stands_before_the_hosts_own_hooks(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    called: list[str] = []
    app.before_request(lambda: called.append("host"))
    mount(app)
    close(app)
    with jobs.installation_of(app).state.lock("restore"):
        app.test_client().get("/")
    assert called == []


def test_the_gate_can_be_left_to_the_host(tmp_path: Path) -> None:
    app = make_app(tmp_path, BACKUP_ADMIN_MAINTENANCE_GATE=False)
    mount(app)
    close(app)
    with jobs.installation_of(app).state.lock("restore"):
        assert app.test_client().get("/").status_code == 200


def test_an_app_left_closed_by_a_dead_restore_opens_itself(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    reopened: list[bool] = []
    backup_admin = mount(app)
    backup_admin.maintenance(reopened.append)
    close(app)
    client = app.test_client()
    assert client.get("/").status_code == 503
    for thread in threading.enumerate():
        if thread.name == "recover":
            thread.join(30)
    assert client.get("/").status_code == 200
    assert reopened == [False]


def test_hooks_are_taken_as_decorators(tmp_path: Path) -> None:
    backup_admin = mount(make_app(tmp_path))

    @backup_admin.settings_provider
    def settings() -> dict[str, object]:
        return {"a": 1}

    @backup_admin.restore_check("smoke")
    def check() -> str:
        return "ok"

    @backup_admin.after_restore
    def after(outcome: str) -> None:
        """Do nothing."""

    assert backup_admin.hooks.settings_provider is settings
    assert backup_admin.hooks.restore_checks == [("smoke", check)]
    assert backup_admin.hooks.after_restore == [after]
