"""S3 over a wire that fails: nothing is stored twice, taken for stored when it is not, or read wrong."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from backup_admin.core.errors import ObjectMissing, StorageDenied, StorageError, StorageUnavailable
from backup_admin.storage.base import ObjectInfo, PutResult
from backup_admin.storage.retrying import Retries
from backup_admin.storage.s3 import S3Storage
from backup_admin.storage.s3_place import parse_s3_address
from tests.services.proxy import Fault, Proxy, Request, proxy_before
from tests.services.s3 import BUCKET, KEY, SECRET, S3Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LARGE = os.urandom(40 << 20)
SMALL = os.urandom(100_000)

pytestmark = pytest.mark.integration


@pytest.fixture
def proxy(seaweedfs: S3Server) -> Iterator[Proxy]:
    with proxy_before(seaweedfs.endpoint) as proxy:
        yield proxy


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def storage(proxy: Proxy, waits: list[float]) -> S3Storage:
    opened = open_through(proxy, waits)
    opened.make()
    opened.put("zz", b"the bucket is there")
    opened.delete("zz")
    proxy.requests.clear()
    return opened


def open_through(
    proxy: Proxy, waits: list[float], *, bucket: str = BUCKET, attempts: int = 5, secret: str = ""
) -> S3Storage:
    server = S3Server(proxy.endpoint)
    place = parse_s3_address(server.address(uuid4().hex, bucket=bucket, create_bucket="true"))
    retries = Retries(attempts=attempts, sleep=waits.append)
    return S3Storage(place, credentials=(server.key, secret or server.secret), retries=retries)


def is_put(request: Request) -> bool:
    return request.method == "PUT"


def is_get(request: Request) -> bool:
    return request.method == "GET" and "list-type" not in request.path


def is_list(request: Request) -> bool:
    return "list-type" in request.path


def is_part(request: Request) -> bool:
    return "partNumber=" in request.path


def is_completion(request: Request) -> bool:
    return request.method == "POST" and "uploadId=" in request.path


@pytest.mark.parametrize("at", [0, 1, 5_000, 99_999])
def test_an_upload_that_is_cut_is_sent_again_and_whole(storage: S3Storage, proxy: Proxy, at: int) -> None:
    proxy.fail(Fault(cut_request_at=at), when=is_put, times=2)

    assert storage.put("packs/ab/cd", SMALL) is PutResult.STORED
    assert storage.get("packs/ab/cd") == SMALL


def test_a_lost_reply_to_our_own_put_is_no_stranger(storage: S3Storage, proxy: Proxy) -> None:
    proxy.fail(Fault(lose_reply=True), when=is_put)

    assert storage.put("chain/1", SMALL) is PutResult.STORED
    assert storage.get("chain/1") == SMALL


def test_what_another_stored_meanwhile_is_kept(storage: S3Storage, proxy: Proxy, waits: list[float]) -> None:
    def another_puts(seconds: float) -> None:
        other.put("chain/1", b"from another writer")

    other = S3Storage(storage.place, credentials=(S3Server("").key, S3Server("").secret))
    racing = S3Storage(
        storage.place,
        credentials=(S3Server("").key, S3Server("").secret),
        retries=Retries(sleep=another_puts),
    )
    proxy.fail(Fault(cut_request_at=10), when=is_put)

    assert racing.put("chain/1", SMALL) is PutResult.EXISTS
    assert storage.get("chain/1") == b"from another writer"


@pytest.mark.parametrize(
    "answer",
    [(500, "InternalError"), (503, "SlowDown"), (503, "ServiceUnavailable"), (429, "TooManyRequests")],
)
@pytest.mark.parametrize(
    "act",
    [
        lambda storage: storage.put("a", SMALL),
        lambda storage: storage.get("kept"),
        lambda storage: storage.stat("kept"),
        lambda storage: list(storage.list_objects("")),
        lambda storage: storage.delete("kept"),
    ],
    ids=["put", "get", "stat", "list", "delete"],
)
def test_a_server_that_is_busy_is_asked_again(
    storage: S3Storage,
    proxy: Proxy,
    waits: list[float],
    answer: tuple[int, str],
    act: Callable[[S3Storage], object],
) -> None:
    storage.put("kept", SMALL)
    proxy.fail(Fault(answer=answer), times=3)

    act(storage)

    assert len(waits) == 3


def test_a_server_that_stays_busy_is_named_in_the_end(storage: S3Storage, proxy: Proxy) -> None:
    proxy.fail(Fault(answer=(503, "SlowDown")), times=5)

    with pytest.raises(StorageUnavailable, match="SlowDown and did not recover"):
        storage.get("a")


def test_the_wait_a_server_asks_for_is_kept(storage: S3Storage, proxy: Proxy, waits: list[float]) -> None:
    proxy.fail(Fault(answer=(503, "SlowDown"), headers={"Retry-After": "33"}))

    storage.stat("a")

    assert waits == [33]


@pytest.mark.parametrize("at", [0, 1, 50_000, 99_999])
def test_an_answer_that_is_cut_is_asked_for_again(storage: S3Storage, proxy: Proxy, at: int) -> None:
    storage.put("a", SMALL)
    proxy.fail(Fault(cut_reply_at=at), when=is_get, times=2)

    assert storage.get("a") == SMALL
    buffer = bytearray(50_000)
    proxy.fail(Fault(cut_reply_at=min(at, 49_999)), when=is_get)
    assert storage.get_into("a", 20_000, buffer) == 50_000
    assert buffer == SMALL[20_000:70_000]


def test_large_objects_go_up_in_parts_and_survive_lost_ones(storage: S3Storage, proxy: Proxy) -> None:
    proxy.fail(Fault(cut_request_at=1_000_000), when=is_part, times=2)
    proxy.fail(Fault(lose_reply=True), when=is_part)

    assert storage.put("packs/ab/cd", LARGE) is PutResult.STORED
    assert storage.get("packs/ab/cd") == LARGE
    assert sum(map(is_part, proxy.requests)) == 3 + 3
    assert list(storage.uploads()) == []


def test_a_lost_reply_to_the_last_step_of_a_large_put_is_settled(storage: S3Storage, proxy: Proxy) -> None:
    proxy.fail(Fault(lose_reply=True), when=is_completion)

    assert storage.put("packs/ab/cd", LARGE) is PutResult.STORED
    assert storage.get("packs/ab/cd") == LARGE
    assert list(storage.uploads()) == []


def test_an_upload_that_fails_for_good_leaves_nothing_that_costs(storage: S3Storage, proxy: Proxy) -> None:
    proxy.fail(Fault(answer=(403, "AccessDenied")), when=is_part, times=3)

    with pytest.raises(StorageDenied):
        storage.put("packs/ab/cd", LARGE)

    assert list(storage.uploads()) == []
    assert storage.stat("packs/ab/cd") is None


def test_an_upload_that_was_left_is_found_and_given_up(storage: S3Storage) -> None:
    key = storage.place.key("packs/ab/cd")
    storage._client.create_multipart_upload(Bucket=BUCKET, Key=key)

    (left,) = storage.uploads()
    assert left.key == key
    storage.abort_upload(left)
    assert list(storage.uploads()) == []


@pytest.mark.parametrize(
    ("answer", "kind", "advice"),
    [
        ((403, "AccessDenied"), StorageDenied, "may not do that"),
        ((403, "InvalidAccessKeyId"), StorageDenied, "does not know the access key"),
        ((400, "ExpiredToken"), StorageDenied, "has expired"),
        ((403, "RequestTimeTooSkewed"), StorageUnavailable, "clock"),
        ((301, "PermanentRedirect"), StorageDenied, "another region"),
        ((400, "AuthorizationHeaderMalformed"), StorageDenied, "another region"),
        ((404, "NoSuchBucket"), StorageUnavailable, "no bucket"),
        ((404, "NoSuchKey"), ObjectMissing, "is not in"),
        ((418, "Teapot"), StorageError, "said Teapot"),
    ],
)
def test_what_does_not_pass_is_told_at_once_with_advice(
    storage: S3Storage,
    proxy: Proxy,
    waits: list[float],
    answer: tuple[int, str],
    kind: type[StorageError],
    advice: str,
) -> None:
    proxy.fail(Fault(answer=answer), when=is_get)

    with pytest.raises(kind, match=advice):
        storage.get("a")
    assert waits == []


@pytest.mark.parametrize(
    "keys",
    [(KEY, "wrong"), ("nobody", SECRET), (KEY, SECRET, "no token")],
    ids=["secret", "key", "session token"],
)
@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda storage: list(storage.list_objects("")), "does not know the access key, or the secret"),
        (lambda storage: storage.get("a"), "does not know the access key, or the secret"),
        (lambda storage: storage.stat("a"), "said 403 and no more: the access key or its secret is wrong"),
        (lambda storage: storage.make(), "said 403 and no more: the access key or its secret is wrong"),
    ],
    ids=["list", "get", "stat", "make"],
)
def test_wrong_credentials_are_told_at_once(
    proxy: Proxy,
    waits: list[float],
    keys: tuple[str, ...],
    act: Callable[[S3Storage], object],
    said: str,
) -> None:
    place = open_through(proxy, waits).place
    storage = S3Storage(place, credentials=keys, retries=Retries(sleep=waits.append))

    with pytest.raises(StorageDenied, match=said):
        act(storage)
    assert waits == []


@pytest.mark.parametrize("code", ["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"])
@pytest.mark.parametrize("size", [100, 40 << 20], ids=["whole", "in parts"])
def test_a_session_that_ends_in_the_middle_of_a_put_leaves_nothing_and_says_so(
    storage: S3Storage, proxy: Proxy, waits: list[float], code: str, size: int
) -> None:
    parts = -(-size // (16 << 20))
    proxy.fail(Fault(answer=(400, code)), when=is_part if size > 1000 else is_put, times=parts)

    with pytest.raises(StorageDenied, match=r"has expired\. Give a new one, then run this again"):
        storage.put("packs/ab/cd", LARGE[:size])

    assert waits == []
    assert storage.stat("packs/ab/cd") is None
    assert list(storage.uploads()) == []
    assert storage.put("packs/ab/cd", LARGE[:size]) is PutResult.STORED


@pytest.mark.parametrize("status", [301, 400])
def test_a_bucket_in_another_region_is_told_with_its_name(
    storage: S3Storage, proxy: Proxy, waits: list[float], status: int
) -> None:
    code = "PermanentRedirect" if status == 301 else "AuthorizationHeaderMalformed"
    proxy.fail(Fault(answer=(status, code), headers={"x-amz-bucket-region": "eu-north-1"}), times=9)

    with pytest.raises(StorageDenied, match=r"another region, eu-north-1. Name it with region="):
        storage.get("a")
    assert waits == []


def test_a_bucket_that_goes_away_is_no_empty_storage(proxy: Proxy, waits: list[float]) -> None:
    storage = open_through(proxy, waits, bucket=f"gone-{uuid4().hex[:8]}")
    storage.make()
    storage._client.delete_bucket(Bucket=storage.place.bucket)

    for act in (lambda: storage.stat("a"), lambda: list(storage.list_objects("")), lambda: storage.get("a")):
        with pytest.raises(StorageUnavailable, match="no bucket"):
            act()


def test_an_answer_that_drips_is_given_up(
    storage: S3Storage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backup_admin.storage.s3_client._READ_SECONDS", 2)
    storage.put("a", SMALL)
    proxy.fail(Fault(drip=10), when=is_get)

    assert storage.get("a") == SMALL


def test_lists_of_more_than_a_page_are_whole_and_half_ones_are_asked_for_again(
    storage: S3Storage, proxy: Proxy
) -> None:
    names = [f"n/{number:04d}" for number in range(1_100)]
    for name in names:
        storage.put(name, b"x")
    proxy.fail(Fault(cut_reply_at=3_000), when=is_list, times=2)

    found = list(storage.list_objects("n/"))

    assert found == [ObjectInfo(name, 1) for name in names]
    storage.delete_all(names)
    assert list(storage.list_objects("")) == []


def test_a_bandwidth_is_kept_by_all_threads_together(seaweedfs: S3Server) -> None:
    place = parse_s3_address(seaweedfs.address(uuid4().hex, create_bucket="true", bandwidth="8"))
    limited = S3Storage(place, credentials=(seaweedfs.key, seaweedfs.secret))
    limited.make()
    began = time.monotonic()

    limited.put("packs/ab/1", LARGE)  # 40 MiB, in parts

    assert time.monotonic() - began > 4
    assert limited.get("packs/ab/1") == LARGE


def test_a_small_object_is_sent_at_once_and_a_large_one_when_the_server_wants_it(
    storage: S3Storage, proxy: Proxy
) -> None:
    storage.put("small", SMALL)
    storage.put("large", LARGE[: 2 << 20])

    assert [request.waits for request in proxy.requests if is_put(request)] == [False, True]
    assert storage.get("small") == SMALL
    assert storage.get("large") == LARGE[: 2 << 20]
