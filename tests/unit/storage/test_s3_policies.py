"""The policies in the guide allow what our code calls, and nothing that it does not call."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "storage-s3.md").read_text()
SOURCES = "\n".join(path.read_text() for path in (ROOT / "backup_admin" / "storage").glob("s3*.py"))

ACTIONS = {
    "abort_multipart_upload": {"s3:AbortMultipartUpload"},
    "complete_multipart_upload": {"s3:PutObject"},
    "create_bucket": {"s3:CreateBucket", "s3:PutBucketObjectLockConfiguration", "s3:PutBucketVersioning"},
    "create_multipart_upload": {"s3:PutObject", "s3:PutObjectRetention"},
    "delete_object": {"s3:DeleteObject"},
    "delete_objects": {"s3:DeleteObject"},
    "generate_presigned_url": {"s3:GetObject"},
    "get_bucket_versioning": {"s3:GetBucketVersioning"},
    "get_object": {"s3:GetObject"},
    "get_object_lock_configuration": {"s3:GetBucketObjectLockConfiguration"},
    "head_bucket": {"s3:ListBucket"},
    "head_object": {"s3:GetObject", "s3:GetObjectRetention"},
    "list_multipart_uploads": {"s3:ListBucketMultipartUploads"},
    "list_object_versions": {"s3:ListBucketVersions"},
    "list_objects_v2": {"s3:ListBucket"},
    "list_parts": {"s3:ListMultipartUploadParts"},
    "put_object": {"s3:PutObject", "s3:PutObjectRetention"},
    "put_object_retention": {"s3:PutObjectRetention"},
    "upload_part": {"s3:PutObject"},
}
"""What AWS wants allowed for each call of the client library."""

READ = {"s3:ListBucket", "s3:GetObject"}
ADD = READ | {"s3:GetObjectRetention", "s3:PutObject", "s3:PutObjectRetention", "s3:AbortMultipartUpload"}
PRUNE = ADD | {"s3:DeleteObject"}
ON_THE_BUCKET = {"s3:ListBucket"}


def json_blocks() -> list[dict[str, Any]]:
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)]


def policies() -> list[dict[str, Any]]:
    return [block for block in json_blocks() if "Statement" in block]


def allowed(policy: dict[str, Any]) -> set[str]:
    return {
        action
        for statement in policy["Statement"]
        if statement["Effect"] == "Allow"
        for action in statement["Action"]
    }


def test_the_table_has_each_call_of_the_code_and_no_other() -> None:
    called = set(re.findall(r"\bclient\.([a-z0-9_]+)\(", SOURCES.replace("self._client", "client")))

    assert called == set(ACTIONS)


def test_each_key_of_the_guide_may_do_its_work_and_no_more() -> None:
    aws_backup, aws_prune, aws_restore, minio_backup = map(allowed, policies())

    assert aws_backup == minio_backup == ADD
    assert (aws_prune, aws_restore) == (PRUNE, READ)


@pytest.mark.parametrize("policy", policies(), ids=range(len(policies())))
def test_each_action_of_a_policy_is_called_and_stands_on_the_right_thing(policy: dict[str, Any]) -> None:
    known = set.union(*ACTIONS.values())
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        assert set(statement["Action"]) <= known
        resources = statement["Resource"]
        (resource,) = [resources] if isinstance(resources, str) else resources
        on_bucket = set(statement["Action"]) <= ON_THE_BUCKET
        assert resource == "arn:aws:s3:::my-backups" + ("" if on_bucket else "/app/*")


def test_only_the_key_for_pruning_may_delete_and_none_may_bypass_a_lock() -> None:
    texts = [json.dumps(policy) for policy in policies()]

    assert ["s3:Delete" in text for text in texts] == [False, True, False, False]
    assert not any("Bypass" in text or "DeleteObjectVersion" in text for text in texts[:3])


def test_the_rule_of_the_guide_removes_old_versions_and_what_was_cut() -> None:
    (rules,) = [block["Rules"] for block in json_blocks() if "Rules" in block]

    assert rules[0]["NoncurrentVersionExpiration"]["NoncurrentDays"] >= 30
    assert rules[0]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] >= 1
