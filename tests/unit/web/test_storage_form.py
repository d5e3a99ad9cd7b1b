"""The form of a storage and its address say the same, and mistakes are told at their fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from backup_admin.core.errors import ConfigurationError, StorageDenied, StorageUnavailable
from backup_admin.storage.ssh_errors import HostUnknown, NotLetIn
from backup_admin.web.storage_form import (
    Chosen,
    FormMistakes,
    Kind,
    after,
    form_of,
    read_form,
    understand,
)

if TYPE_CHECKING:
    from tests.unit.web.host import Host

KEY = f"SHA256:{'A' * 42}+"
BUCKET = {"kind": "s3", "s3_bucket": "backups", "s3_use_ssl": "on"}
HOST = {"kind": "ssh", "ssh_host": "nas.example", "ssh_folder": "/srv/backups"}


def address(sent: dict[str, str]) -> str:
    return understand(read_form(sent), sent).address


def mistakes(sent: dict[str, str]) -> Any:
    with pytest.raises(FormMistakes) as raised:
        understand(read_form(sent), sent)
    return dict(raised.value.fields)


@pytest.mark.parametrize(
    ("sent", "made"),
    [
        ({"kind": "folder", "folder": " /srv/backups "}, "/srv/backups"),
        ({"storage": "/srv/backups"}, "/srv/backups"),
        ({"kind": "address", "storage": "s3://b/p?lock_days=3", "folder": "/x"}, "s3://b/p?lock_days=3"),
        (BUCKET, "s3://backups"),
        (
            BUCKET | {"s3_prefix": "/app/", "s3_region": "eu-central-1", "s3_path_style": "false"},
            "s3://backups/app?region=eu-central-1&path_style=false",
        ),
        (
            {"kind": "s3", "s3_bucket": "backups", "s3_endpoint": "minio:9000", "s3_ca_file": "/ca.pem"},
            "s3://backups?endpoint=http://minio:9000&ca_file=/ca.pem",
        ),
        (HOST, "ssh://nas.example/srv/backups"),
        (HOST | {"ssh_user": "me", "ssh_port": "2222"}, "ssh://me@nas.example:2222/srv/backups"),
        (HOST | {"ssh_folder": "~/backups"}, "ssh://nas.example/~/backups"),
        (HOST | {"ssh_host": "2001:db8::7"}, "ssh://[2001:db8::7]/srv/backups"),
        (HOST | {"ssh_host_key": KEY}, f"ssh://nas.example/srv/backups?host_key={KEY}"),
    ],
)
def test_what_is_typed_makes_this_address(sent: dict[str, str], made: str) -> None:
    assert address(sent) == made


@pytest.mark.parametrize(
    "made",
    [
        "/srv/backups",
        "file:///srv/backups",
        "s3://backups/app?endpoint=http://minio:9000&region=here&path_style=true&ca_file=/etc/ca.pem",
        "s3://backups?lock_days=30",
        "ssh://me@nas.example:2222/srv/a%20b",
        f"ssh://nas.example/~/backups?host_key={KEY}",
        "ssh://nas.example/srv/b?identity=/etc/key",
    ],
)
def test_the_form_of_an_address_makes_that_address(made: str) -> None:
    form = form_of(made)
    sent = {"kind": form.kind.value, **form.text} | ({"s3_use_ssl": "on"} if form.use_ssl else {})

    assert address(sent) == made


def test_options_without_a_field_keep_the_address_in_one_line() -> None:
    assert form_of("s3://backups?lock_days=30").kind is Kind.ADDRESS
    assert form_of("ssh://nas/srv/b?identity=/etc/key").kind is Kind.ADDRESS
    assert form_of("s3://Not A Bucket").text["storage"] == "s3://Not A Bucket"


@pytest.mark.parametrize(
    ("sent", "fields"),
    [
        ({"kind": "folder"}, ["folder"]),
        ({"kind": "folder", "folder": "s3://backups"}, ["folder"]),
        ({"kind": "address"}, ["storage"]),
        ({"kind": "s3", "s3_use_ssl": "on"}, ["s3_bucket"]),
        (BUCKET | {"s3_endpoint": "http://minio:9000"}, ["s3_endpoint"]),
        (BUCKET | {"s3_region": "Here!", "s3_prefix": "a//b"}, ["s3_prefix", "s3_region"]),
        (BUCKET | {"s3_access_key": "only"}, ["s3_access_key"]),
        (BUCKET | {"s3_secret_key": "only"}, ["s3_access_key"]),
        ({"kind": "ssh"}, ["ssh_folder", "ssh_host"]),
        (HOST | {"ssh_host": "evil/../x"}, ["ssh_host"]),
        (HOST | {"ssh_host": "a@b"}, ["ssh_host"]),
        (HOST | {"ssh_host": "-oProxyCommand=x"}, ["ssh_host"]),
        (HOST | {"ssh_user": "a/b"}, ["ssh_user"]),
        (HOST | {"ssh_user": "-l"}, ["ssh_user"]),
        (HOST | {"ssh_port": "22; x"}, ["ssh_port"]),
        (HOST | {"ssh_port": "70000"}, ["ssh_port"]),
        (HOST | {"ssh_host_key": "MD5:aa"}, ["ssh_host_key"]),
        (HOST | {"ssh_folder": "/a/../b"}, ["ssh_folder"]),
    ],
)
def test_a_mistake_is_at_its_field(sent: dict[str, str], fields: list[str]) -> None:
    assert sorted(mistakes(sent)) == fields


def test_no_part_of_a_host_can_be_taken_for_another() -> None:
    sent = HOST | {"ssh_folder": "/srv/a?identity=/etc/passwd#x"}

    assert address(sent) == "ssh://nas.example/srv/a%3Fidentity%3D/etc/passwd%23x"


def test_keys_count_for_a_bucket_alone() -> None:
    keys = {"s3_access_key": "AKIA:1", "s3_secret_key": " s "}
    bucket = BUCKET | keys
    chosen = understand(read_form(bucket), bucket)

    assert chosen.credentials is not None
    assert (chosen.credentials.access_key, chosen.credentials.secret_key.reveal()) == ("AKIA:1", "s")
    folder = {"kind": "folder", "folder": "/srv/b"} | keys
    assert understand(read_form(folder), folder) == Chosen("/srv/b", None)


def test_a_form_never_holds_the_secret() -> None:
    assert "geheim" not in repr(read_form(BUCKET | {"s3_secret_key": "geheim"}))


def test_an_unknown_host_is_asked_about(host: Host) -> None:
    error = HostUnknown("…", fingerprint=KEY, address="ssh://nas/srv/b?host_key=…")

    form = after(read_form(HOST), error, host.installation.settings)

    assert form.unknown_host is error
    assert form.failed


def test_the_line_to_let_us_in_comes_with_the_fields_of_the_host(host: Host) -> None:
    typed = read_form({"kind": "address", "storage": f"ssh://me@nas/srv/b?host_key={KEY}"})

    form = after(typed, NotLetIn("…", line="restrict ssh-ed25519 AAAA"), host.installation.settings)

    assert (form.kind, form.line) == (Kind.HOST, "restrict ssh-ed25519 AAAA")
    assert (form.text["ssh_user"], form.text["ssh_host_key"]) == ("me", KEY)


@pytest.mark.parametrize(
    ("sent", "error", "field"),
    [
        (BUCKET, StorageUnavailable("no answer"), "s3_endpoint"),
        (BUCKET, StorageDenied("403"), "s3_access_key"),
        (HOST, StorageUnavailable("no answer"), "ssh_host"),
        ({"kind": "folder", "folder": "/srv/b"}, StorageDenied("mode"), "folder"),
        ({"kind": "address", "storage": "ssh://nas/srv/b"}, StorageUnavailable("no answer"), "storage"),
    ],
)
def test_an_error_of_the_storage_is_at_the_field_to_change(
    host: Host, sent: dict[str, str], error: StorageUnavailable, field: str
) -> None:
    form = after(read_form(sent), error, host.installation.settings)

    assert form.errors == {field: str(error)}


def test_any_other_error_stands_above_the_form(host: Host) -> None:
    form = after(read_form(BUCKET), ConfigurationError("No key."), host.installation.settings)

    assert (form.problem, dict(form.errors)) == ("No key.", {})
