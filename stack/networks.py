"""IP networks in a setting."""

import ipaddress
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def split_networks(text: str) -> Sequence[Network]:
    """The networks in `10.0.3.7, 10.0.4.0/24, fd00::/64`; an address is a network of one.

    Raises:
        ValueError: a part is no network.
    """
    return tuple(ipaddress.ip_network(part) for each in text.split(",") if (part := each.strip()))


def _checked(text: str) -> str:
    try:
        networks = split_networks(text)
    except ValueError as error:
        raise ValueError(
            f"must be IP addresses or networks such as 10.0.4.0/24, separated by commas: {error}"
        ) from None
    if any(network.prefixlen == 0 for network in networks):
        raise ValueError("must not hold every address: a client could then write any address for its own")
    return text


Networks = Annotated[str, AfterValidator(_checked)]
"""A setting that `split_networks` reads."""
