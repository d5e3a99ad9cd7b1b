"""Addresses of S3 storages are read exactly, and refused with a reason."""

from __future__ import annotations

import pytest

from backup_admin.core.errors import UsageError
from backup_admin.storage.s3_place import LockMode, S3Place, Sealing, parse_s3_address


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("s3://backups", S3Place("backups")),
        ("s3://backups/", S3Place("backups")),
        ("s3://backups/app/daily/", S3Place("backups", "app/daily")),
        ("s3://backups/a%20b/%C3%A4", S3Place("backups", "a b/ä")),
        ("s3://backups?region=eu-central-1", S3Place("backups", region="eu-central-1")),
        ("s3://backups?endpoint=minio:9000", S3Place("backups", endpoint="https://minio:9000")),
        ("s3://backups?endpoint=minio:9000&use_ssl=false", S3Place("backups", endpoint="http://minio:9000")),
        ("s3://backups?endpoint=http://minio:9000/", S3Place("backups", endpoint="http://minio:9000")),
        ("s3://backups?endpoint=https%3A%2F%2F[::1]:9000", S3Place("backups", endpoint="https://[::1]:9000")),
        ("s3://backups?path_style=yes", S3Place("backups", path_style=True)),
        ("s3://backups?path_style=false", S3Place("backups", path_style=False)),
        ("s3://backups?create_bucket=true", S3Place("backups", create_bucket=True)),
        ("s3://backups?ca_file=/etc/ca%20file.pem", S3Place("backups", ca_file="/etc/ca file.pem")),
        ("s3://backups?profile=nightly", S3Place("backups", profile="nightly")),
        ("s3://backups?lock_days=30", S3Place("backups", lock_days=30)),
        (
            "s3://backups?lock_days=1&lock_mode=compliance",
            S3Place("backups", lock_days=1, lock_mode=LockMode.COMPLIANCE),
        ),
        ("s3://backups?storage_class=STANDARD_IA", S3Place("backups", storage_class="STANDARD_IA")),
        ("s3://backups?sse=AES256", S3Place("backups", sse=Sealing.ITS_OWN_KEY)),
        (
            "s3://backups?sse=aws:kms&sse_kms_key=alias/backups",
            S3Place("backups", sse=Sealing.KMS, sse_kms_key="alias/backups"),
        ),
    ],
)
def test_an_address_says_where(address: str, place: S3Place) -> None:
    assert parse_s3_address(address) == place


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("s3://", "no name of a bucket"),
        ("s3://ab", "no name of a bucket"),
        ("s3://Backups", "no name of a bucket"),
        ("s3://back_ups", "no name of a bucket"),
        ("s3://back..ups", "no name of a bucket"),
        ("s3://10.0.0.1", "no name of a bucket"),
        ("s3://-backups", "no name of a bucket"),
        ("s3://key:secret@backups", "neither keys nor a port"),
        ("s3://backups:9000/app", "neither keys nor a port"),
        ("s3://backups/a//b", "empty part"),
        ("s3://backups/a/../b", "empty part"),
        ("s3://backups/a%0Ab", "characters"),
        ("s3://backups/%FF", "characters"),
        ("s3://backups/a%5Cb", "characters"),
        ("s3://backups/" + "a" * 801, "more than 800 bytes"),
        ("s3://backups/app#1", "%23"),
        ("s3://backups?bucket=other", "no option 'bucket'"),
        ("s3://backups?region", "cannot be read"),
        ("s3://backups?region=a&region=b", "given twice"),
        ("s3://backups?region=Europe!", "no region"),
        ("s3://backups?path_style=maybe", "true or false"),
        ("s3://backups?endpoint=ftp://minio", "no endpoint"),
        ("s3://backups?endpoint=https://", "no endpoint"),
        ("s3://backups?endpoint=https://u:p@minio", "no endpoint"),
        ("s3://backups?endpoint=https://minio/path", "no endpoint"),
        ("s3://backups?endpoint=https://minio:99999", "no endpoint"),
        ("s3://backups?endpoint=https://[::1", "no endpoint"),
        ("s3://backups?endpoint=https://minio&use_ssl=false", "contradict"),
        ("s3://backups?lock_days=0", "from 1 to 36500"),
        ("s3://backups?lock_days=36501", "from 1 to 36500"),
        ("s3://backups?lock_days=-1", "from 1 to 36500"),
        ("s3://backups?lock_days=", "from 1 to 36500"),
        ("s3://backups?lock_days=1.5", "from 1 to 36500"),
        ("s3://backups?lock_days=%D9%A3", "from 1 to 36500"),
        ("s3://backups?lock_mode=governance", "give lock_days"),
        ("s3://backups?lock_days=1&lock_mode=strict", "governance or compliance"),
        ("s3://backups?storage_class=GLACIER", "cannot be read at once"),
        ("s3://backups?storage_class=cheap", "no storage class"),
        ("s3://backups?sse=none", "AES256 or aws:kms"),
        ("s3://backups?sse_kms_key=alias/a", "give that too"),
        ("s3://backups?sse=AES256&sse_kms_key=alias/a", "give that too"),
        ("s3://backups?sse=aws:kms&sse_kms_key=a%20b", "no id, alias or ARN"),
    ],
)
def test_an_address_that_makes_no_sense_is_refused_with_the_reason(address: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_s3_address(address)


def test_a_refusal_shows_no_secret() -> None:
    with pytest.raises(UsageError) as raised:
        parse_s3_address("s3://backups?secret_key=hunter2")

    assert "hunter2" not in str(raised.value)


def test_keys_stand_behind_the_prefix() -> None:
    assert S3Place("backups").key("config") == "config"
    assert S3Place("backups", "app").key("chain/1") == "app/chain/1"
    assert S3Place("backups", "app").key("") == "app/"


@pytest.mark.parametrize(
    ("endpoint", "is_aws"),
    [
        ("", True),
        ("https://s3.eu-west-1.amazonaws.com", True),
        ("https://minio:9000", False),
        ("https://amazonaws.com.example", False),
        ("https://notamazonaws.com", False),
    ],
)
def test_only_amazon_is_taken_for_amazon(endpoint: str, is_aws: bool) -> None:
    assert S3Place("backups", endpoint=endpoint).is_aws is is_aws
