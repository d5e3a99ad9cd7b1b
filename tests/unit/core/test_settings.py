"""What the configuration says, and what it must not say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from backup_admin.core.errors import ConfigurationError
from backup_admin.core.parsing import DatabaseSetting, FilesSetting
from backup_admin.core.settings import SETTINGS, Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping


def load(config: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
    return load_settings(config, environment or {}, instance=Path("/srv/app/instance"), app_name="gallery")


def test_defaults_need_nothing_but_an_instance_folder() -> None:
    settings = load({})
    assert settings.state_dir == Path("/srv/app/instance/backup_admin")
    assert settings.database_uri.reveal() == "sqlite:////srv/app/instance/backup_admin/state.db"
    assert settings.app_name == "gallery"
    assert (settings.url_prefix, settings.queue, settings.undo_hours) == ("/backup-admin", "backup_admin", 24)
    assert settings.require_recovery_key is True
    assert settings.key is None


def test_without_instance_folder_the_state_folder_must_be_named() -> None:
    with pytest.raises(ConfigurationError, match="BACKUP_ADMIN_STATE_DIR"):
        load_settings({}, {})


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="did you mean BACKUP_ADMIN_STORAGE"):
        load({"BACKUP_ADMIN_STORAGES": "/srv/backups"})


def test_keys_of_others_are_none_of_our_business() -> None:
    assert load({"SQLALCHEMY_DATABASE_URI": "sqlite://", "BACKUP": 1}).storage == ""


def test_the_environment_wins_over_the_configuration() -> None:
    settings = load({"BACKUP_ADMIN_QUEUE": "one"}, {"BACKUP_ADMIN_QUEUE": "two"})
    assert settings.queue == "two"


def test_tables_are_read_from_configuration_and_environment() -> None:
    in_config = load({"BACKUP_ADMIN_DATABASES": {"main": "sqlite:////srv/app.db"}})
    in_environment = load({}, {"BACKUP_ADMIN_DATABASES": '{"main": "sqlite:////srv/app.db"}'})
    assert in_config.databases == (DatabaseSetting("main", "sqlite:////srv/app.db"),)
    assert in_environment.databases == in_config.databases


def test_a_folder_may_have_excludes() -> None:
    settings = load(
        {"BACKUP_ADMIN_FILES": {"a": "/srv/a", "b": {"path": "/srv/b", "exclude": ["temp/", "*.tmp"]}}}
    )
    assert settings.files == (
        FilesSetting("a", Path("/srv/a")),
        FilesSetting("b", Path("/srv/b"), ("temp/", "*.tmp")),
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("URL_PREFIX", "backup"),
        ("URL_PREFIX", "/with space"),
        ("TIMEZONE", "Mars/Olympus"),
        ("TIMEZONE", "../../etc/passwd"),
        ("QUEUE", "with:colon"),
        ("JOB_TIMEOUT", 0),
        ("JOB_TIMEOUT", True),
        ("JOB_TIMEOUT", "soon"),
        ("UNDO_HOURS", 10_000),
        ("HEARTBEAT_SECONDS", 60),
        ("READ_ONLY", "maybe"),
        ("STATE_DIR", "a\0b"),
        ("DATABASES", ["a"]),
        ("DATABASES", "not json"),
        ("DATABASES", {"../x": "y"}),
        ("FILES", {"a": {"paths": "/x"}}),
        ("FILES", {"a": {"path": "/x", "include": []}}),
        ("ENVIRONMENT_KEYS", 5),
        ("POSTGRES_CLUSTERS", {"a": "postgresql://db/postgres"}),
        ("POSTGRES_CLUSTERS", {"a": {"address": "postgresql://db/postgres"}}),
        ("POSTGRES_CLUSTERS", {"a": {"address": "x", "storage": "/mnt", "schedule": "daily"}}),
        ("POSTGRES_CLUSTERS", {"a": {"address": "x", "storage": "/mnt", "every_hours": 0}}),
        ("KEY", 5),
        ("APP_NAME", "two\nlines"),
    ],
)
def test_a_value_that_makes_no_sense_names_its_setting(key: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^BACKUP_ADMIN_{key} "):
        load({f"BACKUP_ADMIN_{key}": value})


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"STREAMS": "main, other"}, "names 'other', which is none of BACKUP_ADMIN_DATABASES"),
        ({"STREAMS": ["server"]}, "names 'server', which is no SQLite database"),
        ({"STREAMS": ["main"], "FILES": {"backup_admin_streams": "/x"}}, "is ours"),
    ],
)
def test_only_sqlite_databases_that_are_protected_are_streamed(config: dict[str, Any], said: str) -> None:
    databases = {"main": "/srv/app.db", "server": "postgresql://app@db/app", "more": "sqlite:////srv/x.db"}

    def read(config: dict[str, Any]) -> Settings:
        return load({f"BACKUP_ADMIN_{name}": value for name, value in config.items()})

    assert read({"DATABASES": databases, "STREAMS": "main, more"}).streams == ("main", "more")
    with pytest.raises(ConfigurationError, match=said):
        read({"DATABASES": databases, **config})


@pytest.mark.parametrize(("text", "value"), [("true", True), ("0", False), ("Off", False), (True, True)])
def test_flags_are_words_too(text: Any, value: bool) -> None:
    assert load({"BACKUP_ADMIN_READ_ONLY": text}).read_only is value


def test_secrets_do_not_show_themselves() -> None:
    server = {"address": "postgresql://replica:pw@host/postgres", "storage": "/mnt"}
    settings = load(
        {
            "BACKUP_ADMIN_KEY": "bkm1_xyzzy",
            "BACKUP_ADMIN_REDIS_URL": "redis://:pw@host",
            "BACKUP_ADMIN_POSTGRES_CLUSTERS": {"main": server},
        }
    )
    assert "xyzzy" not in repr(settings)
    assert ":pw@" not in repr(settings)


def test_the_secret_key_of_the_host_is_refused_as_application_key() -> None:
    settings = load({"SECRET_KEY": "abc", "BACKUP_ADMIN_KEY": "abc"})
    assert settings.key is None
    assert "SECRET_KEY" in settings.key_problem


def test_two_sources_of_the_key_are_refused() -> None:
    settings = load({"BACKUP_ADMIN_KEY": "abc", "BACKUP_ADMIN_KEY_FILE": "/srv/key"})
    assert (settings.key, settings.key_file) == (None, None)
    assert "both" in settings.key_problem


def test_every_setting_is_a_field_and_has_help() -> None:
    fields = set(Settings.__dataclass_fields__)
    for setting in SETTINGS:
        assert setting.name.lower() in fields
        assert setting.help.endswith(".")
