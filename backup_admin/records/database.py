"""The control database on an app that may have a Flask-SQLAlchemy of its own."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import URL, Engine, NullPool, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from backup_admin.core.durable import make_folders
from backup_admin.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask import Flask

    from backup_admin.core.secret import Secret

EXTENSION = "backup_admin.sqlalchemy"
_BUSY_MILLISECONDS = 10_000


class Database(SQLAlchemy):
    """Our own Flask-SQLAlchemy object, one for each app.

    Flask-SQLAlchemy allows one object on an app and reads its configuration
    from keys that belong to the host. Both are set aside while ours begins, so
    the host's object works beside it, whichever comes first.
    """

    def __init__(self, address: Secret) -> None:
        super().__init__(add_models_to_shell=False, session_options={"expire_on_commit": False})
        self.address = address
        self._own_engine: Engine | None = None

    def init_app(self, app: Flask) -> None:
        """Make our engine and session for the app; leave the host's alone."""
        url = _checked(self.address)
        ours: dict[str, Any] = {"SQLALCHEMY_DATABASE_URI": url, "SQLALCHEMY_ENGINE_OPTIONS": _options(url)}
        with _parked(app, ours):
            super().init_app(app)
        app.extensions[EXTENSION] = self
        self._own_engine = self._app_engines[app][None]
        if url.get_backend_name() == "sqlite":
            _prepare_sqlite(self._own_engine)

    @property
    def own_engine(self) -> Engine:
        """Return the engine, also outside of an app context and in threads."""
        if self._own_engine is None:
            raise ConfigurationError("The control database belongs to no app yet; call init_app first.")
        return self._own_engine

    @property
    def file(self) -> Path | None:
        """Return the file of a SQLite control database."""
        return _file(self.own_engine.url)

    @contextmanager
    def new_session(self) -> Iterator[Session]:
        """Open a session of its own, for work outside of an app context."""
        with Session(self.own_engine, expire_on_commit=False) as session:
            yield session

    def forget_connections(self) -> None:
        """Drop what a parent process had open; call it after a fork."""
        self.own_engine.dispose(close=False)


@contextmanager
def _parked(app: Flask, ours: dict[str, Any]) -> Iterator[None]:
    theirs = {key: app.config[key] for key in app.config if key.startswith("SQLALCHEMY_")}
    host = app.extensions.pop("sqlalchemy", None)
    for key in theirs:
        del app.config[key]
    app.config.update(ours)
    try:
        yield
    finally:
        for key in [key for key in app.config if key.startswith("SQLALCHEMY_")]:
            del app.config[key]
        app.config.update(theirs)
        app.extensions.pop("sqlalchemy", None)
        if host is not None:
            app.extensions["sqlalchemy"] = host


def _checked(address: Secret) -> URL:
    try:
        url = make_url(address.reveal())
    except ArgumentError as error:
        raise ConfigurationError("BACKUP_ADMIN_DATABASE_URI is no database address.") from error
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise ConfigurationError("BACKUP_ADMIN_DATABASE_URI must name SQLite or PostgreSQL.")
    file = _file(url)
    if url.get_backend_name() == "sqlite" and (file is None or not file.is_absolute()):
        raise ConfigurationError(
            "BACKUP_ADMIN_DATABASE_URI must name a file by its full path: sqlite:////srv/app/state.db."
        )
    return url


def _file(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database))


def _options(url: URL) -> dict[str, Any]:
    # SQLite connections must not be carried through a fork: closing one in the
    # child drops the parent's locks. Without a pool there is none to carry.
    return {"poolclass": NullPool} if url.get_backend_name() == "sqlite" else {"pool_pre_ping": True}


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "do_connect")
    def create_private(*_about: Any) -> None:
        file = _file(engine.url)
        if file is not None and not file.exists():
            make_folders(file.parent)
            os.close(os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        # Legacy transactions begin at the first write, so a reader never
        # holds an old state that it cannot write from.
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_MILLISECONDS}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()
