"""Settings are captured as plain data, with what is secret apart."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import SourceInvalid
from backup_admin.core.secret import Secret
from backup_admin.sources.app_settings import SettingsCapture, SettingsSource, sounds_secret

if TYPE_CHECKING:
    from collections.abc import Mapping


def capture(values: Mapping[str, object], **more: tuple[str, ...]) -> SettingsCapture:
    return SettingsSource(lambda: values, **more).capture()


def test_settings_and_secrets_are_kept_apart() -> None:
    result = capture(
        {
            "TITLE": "Gallery",
            "SIZES": (1, 2.5, None, True),
            "NESTED": {"a": {"b": [1]}},
            "SECRET_KEY": "s1",
            "MAIL": {"server": "x", "options": [{"password": "s2"}]},
            "DATABASE_URI": "postgresql://me:s3@host/db",
            "PUBLIC": "https://example.org/a:b@c",
            "WRAPPED": Secret("s4"),
            "PLAIN": "s5",
        },
        secret_names=("PLAIN",),
    )

    assert result.values == {
        "TITLE": "Gallery",
        "SIZES": [1, 2.5, None, True],
        "NESTED": {"a": {"b": [1]}},
        "PUBLIC": "https://example.org/a:b@c",
    }
    assert result.secrets == {
        "SECRET_KEY": "s1",
        "MAIL": {"server": "x", "options": [{"password": "s2"}]},
        "DATABASE_URI": "postgresql://me:s3@host/db",
        "WRAPPED": "s4",
        "PLAIN": "s5",
    }
    assert not any(secret in repr(result) for secret in ("s1", "s2", "s3", "s4", "s5"))


def test_environment_variables_are_secret_and_missing_ones_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALLERY_TITLE", "x")
    monkeypatch.delenv("GALLERY_GONE", raising=False)

    result = SettingsSource(environment=("GALLERY_TITLE", "GALLERY_GONE")).capture()

    assert result == SettingsCapture({}, {"GALLERY_TITLE": "x"}, ("GALLERY_GONE",))


@pytest.mark.parametrize("name", ["API_KEY", "sentry_dsn", "AuthToken", "DB_PASSWORD", "PWD_SALT"])
def test_names_that_sound_secret_are(name: str) -> None:
    assert sounds_secret(name)


@pytest.mark.parametrize("value", [timedelta(1), float("nan"), object(), b"x", {1: 2}, [[{"a": {1}}]]])
def test_a_setting_that_json_cannot_hold_is_refused_by_name(value: object) -> None:
    with pytest.raises(SourceInvalid, match="The setting LIFETIME"):
        capture({"LIFETIME": value})
