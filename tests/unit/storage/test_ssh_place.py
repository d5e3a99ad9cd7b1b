"""Addresses of folders on hosts: what they say, and that nothing in them reaches a shell or an option."""

from __future__ import annotations

import pytest

from backup_admin.core.errors import UsageError
from backup_admin.storage.ssh_place import SshPlace, parse_ssh_address

FINGERPRINT = "SHA256:" + "Ab1+/" * 8 + "xyz"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ssh://nas/srv/backups", SshPlace("nas", "/srv/backups")),
        ("ssh://ann@nas.example:2222/srv/b/", SshPlace("nas.example", "/srv/b", "ann", 2222)),
        ("ssh://ann@[2001:db8::1]/srv/b", SshPlace("2001:db8::1", "/srv/b", "ann")),
        ("ssh://nas/~/backups/app", SshPlace("nas", "./backups/app")),
        ("ssh://nas/a%20b/it's;$(x)", SshPlace("nas", "/a b/it's;$(x)")),
        ("ssh://nas/b?identity=/etc/my%20key", SshPlace("nas", "/b", identity="/etc/my key")),
        ("ssh://nas/b?bandwidth=2.5", SshPlace("nas", "/b", bandwidth=2_621_440)),
    ],
)
def test_an_address_says_where(address: str, expected: SshPlace) -> None:
    assert parse_ssh_address(address) == expected


@pytest.mark.parametrize("written", [FINGERPRINT, FINGERPRINT.replace("+", "%2B"), f"{FINGERPRINT}="])
def test_a_fingerprint_may_be_pasted_as_it_is_shown(written: str) -> None:
    assert parse_ssh_address(f"ssh://nas/b?host_key={written}").host_key == FINGERPRINT


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ssh:///srv/b", "no name or address of a host"),
        ("ssh://-oProxyCommand=x/srv/b", "no name or address of a host"),
        ("ssh://na%20s/srv/b", "no name or address of a host"),
        ("ssh://-l@nas/srv/b", "no name of a user"),
        ("ssh://a%0Ab@nas/srv/b", "no name of a user"),
        ("ssh://ann:secret@nas/srv/b", "holds no password"),
        ("ssh://nas", "no folder"),
        ("ssh://nas/", "no folder"),
        ("ssh://nas/~", "no folder"),
        ("ssh://nas/a/../b", "no folder"),
        ("ssh://nas//a", "no folder"),
        ("ssh://nas/a%0Ab", "cannot be named"),
        ("ssh://nas/a%00b", "cannot be named"),
        ("ssh://nas/" + "a" * 1001, "cannot be named"),
        ("ssh://nas:0/b", "port"),
        ("ssh://nas:99999/b", "cannot be read"),
        ("ssh://nas/b?password=x", "no option 'password'"),
        ("ssh://nas/b?identity=a&identity=b", "given twice"),
        ("ssh://nas/b?identity=a%22b", "without quotes"),
        ("ssh://nas/b?identity=a%0Ab", "without quotes"),
        ("ssh://nas/b?host_key=MD5:ab", "no fingerprint"),
        ("ssh://nas/b?bandwidth=fast", "MiB a second"),
        ("ssh://nas/b?bandwidth=nan", "MiB a second"),
        ("ssh://nas/b#c", "%23"),
    ],
)
def test_a_wrong_address_is_told(address: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_ssh_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "ssh://ann@nas:2222/srv/a%20b?identity=/etc/k&bandwidth=2.5",
        "ssh://[2001:db8::1]/srv/b",
        "ssh://nas/~/b/c",
    ],
)
def test_the_address_with_a_fingerprint_is_the_same_place(address: str) -> None:
    place = parse_ssh_address(address)

    again = parse_ssh_address(place.address_with(FINGERPRINT))

    assert again == SshPlace(
        place.host, place.folder, place.user, place.port, place.identity, FINGERPRINT, place.bandwidth
    )


def test_the_label_shows_no_option() -> None:
    place = parse_ssh_address(f"ssh://ann@nas:2222/~/b?identity=/etc/k&host_key={FINGERPRINT}")

    assert place.label == "ssh://ann@nas:2222/~/b"
