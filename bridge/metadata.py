"""What of the handshake travels with the gRPC stream: who calls, from where, with what."""

import re

from websockets.datastructures import Headers

from bridge.refusal import Refused

Metadata = tuple[tuple[str, str], ...]

MAX_VALUE_BYTES = 4096

# What gRPC takes as the value of a header; anything else fails the call with a status that explains nothing.
_PRINTABLE_ASCII = re.compile(r"[\x20-\x7e]+")


def call_metadata(headers: Headers, peer: str, key: str | None) -> Metadata:
    """The metadata of the stream for a handshake.

    * `authorization`: as the header has it, or `Bearer` and the key of the query string.
    * `x-forwarded-for`: as the proxy in front has it, or the address of the socket's other end. Whoever runs the
      bridge without a proxy must not trust it, for then a client writes it.
    * `x-user-agent`: the client's `User-Agent`; gRPC puts its own into `user-agent`.

    Raises:
        Refused: UNAUTHENTICATED, two different keys, or one that cannot be one.
    """
    forwarded = ", ".join(headers.get_all("X-Forwarded-For"))
    optional = {
        "authorization": _authorization(headers.get_all("Authorization"), key),
        "x-forwarded-for": forwarded if _is_sendable(forwarded) else peer,
        "x-user-agent": _first_sendable(headers.get_all("User-Agent")),
    }
    return tuple((name, value) for name, value in optional.items() if value)


def _authorization(headers: list[str], key: str | None) -> str:
    given = {header.strip() for header in headers}
    if key is not None:
        given.add(f"Bearer {key}")
    if len(given) > 1:
        raise Refused("UNAUTHENTICATED", "more than one key was given")
    value = given.pop() if given else ""
    if value and not _is_sendable(value):
        raise Refused("UNAUTHENTICATED", "the key was not accepted")
    return value


def _first_sendable(values: list[str]) -> str:
    return values[0] if values and _is_sendable(values[0]) else ""


def _is_sendable(value: str) -> bool:
    return len(value) <= MAX_VALUE_BYTES and _PRINTABLE_ASCII.fullmatch(value) is not None
