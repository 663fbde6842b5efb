"""The metadata of a gRPC call: the key, the address and the user agent of the client."""

import re
from collections.abc import Callable

from edge.refusal import Refused

Metadata = tuple[tuple[str, str], ...]

MAX_VALUE_BYTES = 4096
_LOGIN_HEADER = "x-dalston-login"

# gRPC fails a call with a header value of any other form, with a status that explains nothing.
_PRINTABLE_ASCII = re.compile(r"[\x20-\x7e]+")


def call_metadata(values: Callable[[str], list[str]], peer: str, authorization: str) -> Metadata:
    """The metadata of a call for a request, of whose headers `values` returns those of a name.

    * `authorization`: as the client sent it.
    * `x-forwarded-for`: the header that the proxy in front of this process set, or the address of the peer. Without
      such a proxy it must not be trusted, because then the client writes it.
    * `x-user-agent`: the client's `User-Agent`; gRPC puts its own into `user-agent`.

    Raises:
        Refused: UNAUTHENTICATED, the key has characters or a length that no key has.
    """
    if authorization and not _is_sendable(authorization):
        raise Refused("UNAUTHENTICATED", "the key was not accepted")
    forwarded = ", ".join(values("X-Forwarded-For"))
    optional = {
        "authorization": authorization,
        "x-forwarded-for": forwarded if _is_sendable(forwarded) else peer,
        "x-user-agent": _first_sendable(values("User-Agent")),
    }
    return tuple((name, value) for name, value in optional.items() if value)


def login_metadata(values: Callable[[str], list[str]]) -> Metadata:
    """The mark that the key of a request is a login from the cookie of a browser; empty where it is none.

    Envoy sets the header, and removes it from what clients send. Without it the server accepts no login.
    """
    return ((_LOGIN_HEADER, "1"),) if values(_LOGIN_HEADER) == ["1"] else ()


def authorization(headers: list[str], key: str | None) -> str:
    """The one `authorization` that `Authorization` headers and a key from elsewhere amount to; empty without a key.

    Raises:
        Refused: UNAUTHENTICATED, there are two different ones.
    """
    given = {header.strip() for header in headers}
    if key is not None:
        given.add(f"Bearer {key}")
    if len(given) > 1:
        raise Refused("UNAUTHENTICATED", "more than one key was given")
    return given.pop() if given else ""


def _first_sendable(values: list[str]) -> str:
    return values[0] if values and _is_sendable(values[0]) else ""


def _is_sendable(value: str) -> bool:
    return len(value) <= MAX_VALUE_BYTES and _PRINTABLE_ASCII.fullmatch(value) is not None
