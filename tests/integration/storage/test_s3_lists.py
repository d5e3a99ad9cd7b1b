"""S3 lists that lie: a token that comes back, a list without an end, names twice or out of order."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from backup_admin.core.errors import StorageError
from backup_admin.storage.retrying import Retries
from backup_admin.storage.s3 import S3Storage
from backup_admin.storage.s3_place import parse_s3_address
from tests.services.proxy import Fault, Proxy, Request, proxy_before
from tests.services.s3 import BUCKET, S3Server

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>{bucket}</Name>
<KeyCount>{count}</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>{more}</IsTruncated>
<NextContinuationToken>{token}</NextContinuationToken>{rows}</ListBucketResult>"""
ROW = "<Contents><Key>{prefix}/{name}</Key><Size>1</Size></Contents>"
PREFIX = uuid4().hex


@pytest.fixture
def proxy(seaweedfs: S3Server) -> Iterator[Proxy]:
    with proxy_before(seaweedfs.endpoint) as proxy:
        yield proxy


@pytest.fixture
def storage(proxy: Proxy) -> S3Storage:
    server = S3Server(proxy.endpoint)
    place = parse_s3_address(server.address(PREFIX, create_bucket="true"))
    storage = S3Storage(
        place, credentials=(server.key, server.secret), retries=Retries(attempts=2, sleep=lambda _: None)
    )
    storage.make()
    return storage


def tell(proxy: Proxy, *names: str, more: bool, token: str = "", times: int = 1) -> None:
    rows = "".join(ROW.format(prefix=PREFIX, name=name) for name in names)
    text = PAGE.format(bucket=BUCKET, count=len(names), more=str(more).lower(), token=token, rows=rows)
    proxy.fail(Fault(answer=(200, "OK"), body=text), when=is_list, times=times)


def is_list(request: Request) -> bool:
    return "list-type" in request.path


def test_a_token_that_comes_back_ends_the_list_as_an_error(storage: S3Storage, proxy: Proxy) -> None:
    tell(proxy, "a", more=True, token="again", times=5)

    with pytest.raises(StorageError, match="without an end"):
        list(storage.list_objects(""))
    assert len([request for request in proxy.requests if is_list(request)]) == 2


def test_a_list_that_goes_on_without_a_token_is_an_error(storage: S3Storage, proxy: Proxy) -> None:
    tell(proxy, "a", more=True)

    with pytest.raises(StorageError, match="without an end"):
        list(storage.list_objects(""))


def test_names_out_of_order_are_sorted(storage: S3Storage, proxy: Proxy) -> None:
    tell(proxy, "c", "a", more=True, token="1")
    tell(proxy, "b", more=False)

    assert [info.name for info in storage.list_objects("")] == ["a", "b", "c"]


def test_a_name_that_is_listed_twice_is_an_error(storage: S3Storage, proxy: Proxy) -> None:
    tell(proxy, "a", "b", more=True, token="1")
    tell(proxy, "b", more=False)

    with pytest.raises(StorageError, match="twice"):
        list(storage.list_objects(""))
