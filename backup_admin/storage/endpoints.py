"""Which servers a storage may be asked of: never the ones that hand out secrets of the machine.

Who may edit an address must not be able to read the metadata service of a cloud, whose
answers hold the machine's credentials, nor to look around behind the firewall.
"""

from __future__ import annotations

import ipaddress
import socket

from backup_admin.core.errors import StorageUnavailable, UsageError

# Those that are not link-local: Alibaba Cloud's, and Azure's, which answers to the machine alone.
_METADATA = frozenset({"100.100.100.200", "168.63.129.16"})
_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "instance-data"})
_METADATA_6 = ipaddress.IPv6Address("fd00:ec2::254")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_endpoint(host: str, *, allow_private: bool) -> None:
    """Refuse a host that is, or whose name leads to, an address nobody may ask for a storage.

    Raises `UsageError` when it is refused and `StorageUnavailable` when its name leads nowhere.
    """
    if host.lower().rstrip(".") in _METADATA_NAMES:
        raise _refused(host, "a metadata service")
    for address in _addresses(host):
        _check_address(host, address, allow_private=allow_private)


def _addresses(host: str) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise StorageUnavailable(
            f"The name {host} cannot be resolved: {error}. Check how the endpoint is spelled, and DNS."
        ) from error
    return [_plain(ipaddress.ip_address(str(row[4][0]).partition("%")[0])) for row in found]


def _plain(address: Address) -> Address:
    """Return the IPv4 address inside one that only wraps it: mapped, 6to4 or NAT64 (RFC 6052)."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _check_address(host: str, address: Address, *, allow_private: bool) -> None:
    if str(address) in _METADATA or address == _METADATA_6:
        raise _refused(host, f"{address}, a metadata service")
    if address.is_link_local:
        raise _refused(host, f"{address}, a link-local address")
    if address.is_multicast or address.is_unspecified:
        raise _refused(host, f"{address}, no address of a server")
    if not address.is_global and not allow_private:
        raise _refused(
            host, f"{address}, a private address; the deployment's configuration does not allow those"
        )


def _refused(host: str, what: str) -> UsageError:
    return UsageError(f"The endpoint {host} is refused: it is {what}. Nothing was sent.")
