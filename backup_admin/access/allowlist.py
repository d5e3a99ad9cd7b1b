"""From which addresses a restore may be started; in doubt, from none."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class AllowDecision:
    """Whether an address may, which one it was, and why."""

    allowed: bool
    address: str
    reason: str


def decide(
    allowlist: Sequence[str],
    trusted_proxies: Sequence[str],
    *,
    peer: str,
    forwarded_for: Iterable[str] = (),
) -> AllowDecision:
    """Decide about one request.

    `peer` is the address of the TCP connection, `forwarded_for` the values of
    all X-Forwarded-For headers in their order. An empty list lets everyone in;
    a list or an address that cannot be read lets nobody in.
    """
    if not allowlist:
        return AllowDecision(True, client_address(trusted_proxies, peer, forwarded_for), "no list is set")
    try:
        networks = [_network(text) for text in allowlist]
        address = _client(trusted_proxies, peer, forwarded_for)
    except ValueError as error:
        return AllowDecision(False, "", f"denied: {error}")
    if any(address in network for network in networks):
        return AllowDecision(True, str(address), f"{address} is on the list")
    return AllowDecision(False, str(address), f"denied: {address} is not on the list")


def client_address(trusted_proxies: Sequence[str], peer: str, forwarded_for: Iterable[str] = ()) -> str:
    """Return the address a request came from; empty when it cannot be known."""
    try:
        return str(_client(trusted_proxies, peer, forwarded_for))
    except ValueError:
        return ""


def _client(trusted_proxies: Sequence[str], peer: str, forwarded_for: Iterable[str]) -> Address:
    """Walk from the nearest hop outwards, as far as the hops are trusted."""
    trusted = [_network(text) for text in trusted_proxies]
    hops = [part for header in forwarded_for for part in header.split(",")]
    address = _address(peer)
    while hops and any(address in network for network in trusted):
        address = _address(hops.pop())
    return address


def _address(text: str) -> Address:
    clean = text.strip()
    if "%" in clean:
        raise ValueError(f"{clean[:60]!r} has a zone")
    try:
        address = ip_address(clean)
    except ValueError as error:
        raise ValueError(f"{clean[:60]!r} is no address") from error
    return getattr(address, "ipv4_mapped", None) or address


def _network(text: str) -> Network:
    try:
        network = ip_network(text.strip(), strict=True)
    except ValueError as error:
        raise ValueError(f"the list holds {text[:60]!r}, which is no address or network") from error
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= 96:
        return ip_network(f"{mapped}/{network.prefixlen - 96}")
    return network
