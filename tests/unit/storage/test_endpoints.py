"""No address of a storage leads to the secrets of a machine, whatever it is written as."""

from __future__ import annotations

import socket

import pytest

from backup_admin.core.errors import StorageUnavailable, UsageError
from backup_admin.storage.endpoints import check_endpoint

NEVER = [
    "169.254.169.254",
    "169.254.170.2",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "[::ffff:169.254.169.254]",
    "fe80::1",
    "fd00:ec2::254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    "100.100.100.200",
    "168.63.129.16",
    "0.0.0.0",
    "::",
    "224.0.0.1",
    "metadata.google.internal",
    "METADATA.google.internal.",
]
PRIVATE = ["127.0.0.1", "localhost", "10.1.2.3", "172.16.0.1", "192.168.1.1", "::1", "fd12::1", "100.64.0.1"]
PUBLIC = ["8.8.8.8", "2001:4860:4860::8888"]


@pytest.mark.parametrize("host", NEVER)
def test_what_hands_out_secrets_is_refused_always(host: str) -> None:
    with pytest.raises(UsageError, match="Nothing was sent"):
        check_endpoint(host.strip("[]"), allow_private=True)


@pytest.mark.parametrize("host", PRIVATE)
def test_private_addresses_need_permission(host: str) -> None:
    check_endpoint(host, allow_private=True)
    with pytest.raises(UsageError, match="private address"):
        check_endpoint(host, allow_private=False)


@pytest.mark.parametrize("host", PUBLIC)
def test_public_addresses_are_fine(host: str) -> None:
    check_endpoint(host, allow_private=False)


def test_a_name_is_judged_by_every_address_it_leads_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        addresses = ("8.8.8.8", "169.254.169.254")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(UsageError, match="link-local"):
        check_endpoint("backups.example", allow_private=True)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70 + ".example"])
def test_a_name_that_leads_nowhere_is_told(host: str) -> None:
    with pytest.raises(StorageUnavailable, match="cannot be resolved"):
        check_endpoint(host, allow_private=True)
