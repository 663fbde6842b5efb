"""The address of a client. It is never logged."""

import ipaddress
from collections.abc import Iterable
from typing import Protocol
from urllib.parse import unquote

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class _Call(Protocol):
    def peer(self) -> str: ...

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def client_ip(call: _Call) -> str | None:
    """The client's address; None for a Unix socket, which has none.

    Our proxy appends the address of its peer to `x-forwarded-for`. Everything before it came from the client and cannot
    be trusted. The header counts only if it comes from a private network, because our proxies are in one.
    """
    peer = parse_peer(call.peer())
    if peer is not None and not peer.is_private:
        return str(peer)
    for key, value in call.invocation_metadata() or ():
        if key == "x-forwarded-for" and isinstance(value, str):
            forwarded = _parse(value.rpartition(",")[2].strip())
            return str(forwarded or peer or "") or None
    return str(peer) if peer is not None else None


def parse_peer(peer: str) -> Address | None:
    """The address in gRPC's name of a peer: `ipv4:127.0.0.1:5000`, `ipv6:%5B::1%5D:5000`; None for `unix:/path`."""
    family, _, rest = unquote(peer).partition(":")
    if family not in ("ipv4", "ipv6"):
        return None
    return _parse(rest.rpartition(":")[0].strip("[]"))


def _parse(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
