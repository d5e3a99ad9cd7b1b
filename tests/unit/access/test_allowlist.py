"""From where a restore may start: in doubt, from nowhere."""

from __future__ import annotations

import pytest

from backup_admin.access.allowlist import client_address, decide

OFFICE = ("10.0.0.0/8", "2001:db8::/32")
PROXY = ("192.0.2.1",)


@pytest.mark.parametrize(
    ("peer", "forwarded", "allowed", "address"),
    [
        ("10.1.2.3", (), True, "10.1.2.3"),
        ("::ffff:10.1.2.3", (), True, "10.1.2.3"),
        ("2001:db8::5", (), True, "2001:db8::5"),
        ("11.0.0.1", (), False, "11.0.0.1"),
        # Only a trusted proxy may speak for others, and only for the hop before it.
        ("11.0.0.1", ("10.1.2.3",), False, "11.0.0.1"),
        ("192.0.2.1", ("10.1.2.3",), True, "10.1.2.3"),
        ("192.0.2.1", ("10.1.2.3, 11.0.0.1",), False, "11.0.0.1"),
        ("192.0.2.1", ("11.0.0.1, 10.1.2.3",), True, "10.1.2.3"),
        ("192.0.2.1", ("11.0.0.1", "10.1.2.3"), True, "10.1.2.3"),
        ("192.0.2.1", ("10.1.2.3, 192.0.2.1",), True, "10.1.2.3"),
        ("192.0.2.1", (), False, "192.0.2.1"),
        # What cannot be read is nobody's address.
        ("192.0.2.1", ("not-an-ip",), False, ""),
        ("192.0.2.1", ("10.0.0.1:1234",), False, ""),
        ("192.0.2.1", ("10.1.2.3,",), False, ""),
        ("192.0.2.1", ("",), False, ""),
        ("fe80::1%eth0", (), False, ""),
        ("2130706433", (), False, ""),
        ("0x7f.1", (), False, ""),
        ("", (), False, ""),
    ],
)
def test_who_may(peer: str, forwarded: tuple[str, ...], allowed: bool, address: str) -> None:
    decision = decide(OFFICE, PROXY, peer=peer, forwarded_for=forwarded)
    assert (decision.allowed, decision.address) == (allowed, address)
    assert decision.reason


def test_an_empty_list_lets_everyone_in_and_still_knows_the_address() -> None:
    decision = decide((), (), peer="203.0.113.9")
    assert (decision.allowed, decision.address) == (True, "203.0.113.9")
    assert decide((), (), peer="garbage").allowed is True


@pytest.mark.parametrize("bad", ["10.0.0.0/33", "office", "10.0.0.1/8", "", "*"])
def test_a_list_that_cannot_be_read_lets_nobody_in(bad: str) -> None:
    decision = decide(("10.0.0.0/8", bad), (), peer="10.1.2.3")
    assert decision.allowed is False
    assert "no address or network" in decision.reason


def test_proxies_that_cannot_be_read_let_nobody_in() -> None:
    assert decide(OFFICE, ("proxy.example",), peer="10.1.2.3").allowed is False
    assert client_address(("proxy.example",), "10.1.2.3") == ""


def test_mapped_networks_are_the_networks_they_map() -> None:
    assert decide(("::ffff:10.0.0.0/104",), (), peer="10.9.9.9").allowed is True
