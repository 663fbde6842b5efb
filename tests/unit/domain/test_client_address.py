"""The address of a client."""

import pytest

from domain.client_address import client_ip


class Call:
    def __init__(self, peer: str, forwarded: str | None) -> None:
        self._peer = peer
        self._metadata = (("user-agent", "x"), ("x-forwarded-for", forwarded)) if forwarded is not None else None

    def peer(self) -> str:
        return self._peer

    def invocation_metadata(self) -> tuple[tuple[str, str], ...] | None:
        return self._metadata


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("ipv4:127.0.0.1:5000", None, "127.0.0.1"),
        ("ipv6:%5B::1%5D:5000", None, "::1"),
        ("ipv6:[2001:db8::1]:5000", None, "2001:db8::1"),
        ("ipv6:[::ffff:198.51.100.7]:5000", None, "198.51.100.7"),
        ("unix:", None, None),
        ("unix:/tmp/socket", "198.51.100.7", "198.51.100.7"),
        ("ipv4:127.0.0.1:5000", "198.51.100.7", "198.51.100.7"),
        # The client sent the first address, our proxy appended the last one.
        ("ipv4:10.0.0.3:5000", "6.6.6.6, 198.51.100.7", "198.51.100.7"),
        ("ipv4:10.0.0.3:5000", "nonsense", "10.0.0.3"),
        ("ipv4:10.0.0.3:5000", "", "10.0.0.3"),
        # Our proxies have no public address.
        ("ipv4:8.8.8.8:5000", "1.2.3.4", "8.8.8.8"),
        ("nonsense", None, None),
    ],
)
def test_only_the_last_hop_is_trusted(peer: str, forwarded: str | None, expected: str | None) -> None:
    assert client_ip(Call(peer, forwarded)) == expected
