"""Addresses of PostgreSQL databases in every form people have, and no secret in what is shown of them."""

from __future__ import annotations

import sys

import pytest
from sqlalchemy.engine import URL

from backup_admin.core.errors import ConfigurationError, UsageError
from backup_admin.sources.postgres.address import (
    PostgresAddress,
    parse_postgres_address,
)

SECRET = "p:a/s@s%w?o#r&d \\'\"ü"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2"])
def test_an_address_of_sqlalchemy_is_read(scheme: str) -> None:
    url = URL.create(scheme, "app", SECRET, "db.example.org", 5433, "gallery", {"sslmode": "require"})

    found = parse_postgres_address(url.render_as_string(hide_password=False))

    assert dict(found.parameters) == {
        "user": "app",
        "host": "db.example.org",
        "port": "5433",
        "dbname": "gallery",
        "sslmode": "require",
    }
    assert found.password is not None
    assert found.password.reveal() == SECRET


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("postgresql:///app?host=/run/postgresql", "postgresql:///app"),
        ("host=/run/postgresql dbname=app user=me", "postgresql://me@/app"),
        ("host=db port=6432 dbname='my app' password=secret", "postgresql://db:6432/my%20app"),
        ("postgresql://[::1]:5432/app", "postgresql://::1:5432/app"),
        ("postgresql://a,b:5433/app", "postgresql://a,b:,5433/app"),
        ("postgresql+psycopg://u@/app?host=a:5432&host=b:5433", "postgresql://u@a,b:5432,5433/app"),
        ("service=nightly", "postgresql:///?service=nightly"),
        ("postgres://u:secret@h/app", "postgresql://u@h/app"),
    ],
)
def test_the_label_says_where_and_nothing_secret(text: str, label: str) -> None:
    found = parse_postgres_address(text)

    assert found.label == label
    assert "secret" not in f"{found!r}{found.conninfo()}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("postgresql://h/app?no_such_option=1", "no_such_option"),
        ("postgresql://u:hidden@h:port/app", "is a number"),
        ("host=h password='hidden", "cannot be read"),
        ("postgresql://u:hidden%ZZ@h/app", "cannot be read"),
        ("postgresql://", "neither a host nor a database"),
        ("host=h sslpassword=hidden", "sslpassword"),
    ],
)
def test_what_cannot_be_read_is_told_without_the_password(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        parse_postgres_address(text)

    assert "hidden" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_programs_get_the_password_in_their_environment_alone() -> None:
    found = parse_postgres_address("postgresql://u:secret@h/other%20'db'")

    assert dict(parse_postgres_address(found.conninfo()).parameters) == dict(found.parameters)
    assert found.environment()["PGPASSWORD"] == "secret"


def test_without_a_password_none_is_handed_on() -> None:
    assert "PGPASSWORD" not in PostgresAddress((("host", "h"),)).environment()


def test_without_psycopg_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "backup_admin.sources.postgres.driver", raising=False)

    with pytest.raises(ConfigurationError, match=r"backup_admin\[postgres\]"):
        parse_postgres_address("postgresql://h/app")
