"""The single settings of a bucket and its address say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backup_admin.control import engine
from backup_admin.control.s3_settings import S3Fields, address_of, fields_of, find_mistakes
from backup_admin.control.stored import read_value
from backup_admin.core.errors import UsageError
from backup_admin.records import StoredSetting
from backup_admin.storage.s3_place import parse_s3_address

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tests.installations import Host

PLAN = S3Fields(
    bucket="picpeak-backups",
    endpoint="https://minio.example.com:9000",
    region="us-east-1",
    path_style=True,
)
PLAN_ADDRESS = "s3://picpeak-backups?endpoint=https://minio.example.com:9000&region=us-east-1&path_style=true"
ADDRESSES = [
    PLAN_ADDRESS,
    "s3://backups",
    "s3://backups/app",
    "s3://backups/a%20b/c?region=eu-central-1",
    "s3://backups/app?endpoint=minio:9000&use_ssl=false",
    "s3://backups/app?endpoint=http://10.0.0.7:9000&path_style=no",
    "s3://backups/app?endpoint=https://minio&ca_file=/etc/a%26b.pem&lock_days=30&lock_mode=compliance",
    "s3://backups/app?profile=of%20mine&storage_class=STANDARD_IA&sse=aws:kms&sse_kms_key=alias/one",
]


def test_the_example_of_the_plan_is_this_address() -> None:
    assert address_of(PLAN) == PLAN_ADDRESS
    assert fields_of(PLAN_ADDRESS) == PLAN


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_taken_apart_and_made_again_names_the_same_place(address: str) -> None:
    made = address_of(fields_of(address))

    assert parse_s3_address(made) == parse_s3_address(address)
    assert address_of(fields_of(made)) == made


@pytest.mark.parametrize("use_ssl", [True, False])
def test_an_endpoint_without_a_scheme_follows_the_switch(use_ssl: bool) -> None:
    made = address_of(S3Fields("backups", endpoint="minio:9000", use_ssl=use_ssl))

    assert made == f"s3://backups?endpoint={'https' if use_ssl else 'http'}://minio:9000"


@pytest.mark.parametrize(
    ("given", "name", "said"),
    [
        (S3Fields(""), "bucket", "no name of a bucket"),
        (S3Fields("Upper_Case"), "bucket", "no name of a bucket"),
        (S3Fields("key:secret@host"), "bucket", "no name of a bucket"),
        (S3Fields("backups", prefix="a/../b"), "prefix", "'..'"),
        (S3Fields("backups", endpoint="https://host/path"), "endpoint", "is no endpoint"),
        (S3Fields("backups", endpoint="https://host", use_ssl=False), "endpoint", "contradict"),
        (S3Fields("backups", region="Frankfurt am Main"), "region", "is no region"),
    ],
)
def test_a_mistake_is_told_at_its_field(given: S3Fields, name: str, said: str) -> None:
    found = find_mistakes(given)

    assert list(found) == [name]
    assert said in found[name]


def test_settings_without_a_mistake_have_none() -> None:
    assert find_mistakes(PLAN) == {}


def test_no_field_can_smuggle_an_option_into_the_address() -> None:
    sly = S3Fields("backups", prefix="a?profile=x&b#c", region="", ca_file="/a&profile=y")

    assert parse_s3_address(address_of(sly)).prefix == "a?profile=x&b#c"
    assert parse_s3_address(address_of(sly)).profile == ""


def test_a_bucket_is_kept_under_the_names_of_the_plan(bare_host: Host, session: Session) -> None:
    engine.keep_address(session, bare_host.installation, PLAN_ADDRESS, by="Ada")
    session.commit()

    names = ("endpoint", "bucket", "region", "use_ssl", "path_style")
    kept = {name: read_value(session, f"backup_s3_{name}") for name in names}
    assert kept == {
        "endpoint": "https://minio.example.com:9000",
        "bucket": "picpeak-backups",
        "region": "us-east-1",
        "use_ssl": True,
        "path_style": True,
    }
    assert engine.storage_address(session, bare_host.installation.settings) == PLAN_ADDRESS


@pytest.mark.parametrize("address", ADDRESSES)
def test_what_is_kept_is_what_is_opened(bare_host: Host, session: Session, address: str) -> None:
    engine.keep_address(session, bare_host.installation, address, by="Ada")
    session.commit()

    assert engine.storage_address(session, bare_host.installation.settings) == engine.as_kept(address)


def test_a_folder_takes_the_place_of_a_bucket_without_a_trace(bare_host: Host, session: Session) -> None:
    engine.keep_address(session, bare_host.installation, PLAN_ADDRESS, by="Ada")
    engine.keep_address(session, bare_host.installation, "/srv/backups", by="Ada")
    session.commit()

    assert engine.storage_address(session, bare_host.installation.settings) == "/srv/backups"
    assert [row.name for row in session.query(StoredSetting) if row.name.startswith("backup_s3_")] == []


def test_an_address_that_cannot_be_read_is_not_kept() -> None:
    with pytest.raises(UsageError, match="no option 'acl'"):
        engine.as_kept("s3://backups?acl=public")
