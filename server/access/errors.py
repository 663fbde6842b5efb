"""Errors by which a call is refused before it is served.

AccessError
├── Unauthenticated
├── PermissionDenied
├── KeyNeeded
├── RateLimited
└── AuthenticationOff
"""

import math


class AccessError(Exception):
    """A call is refused. The message is for the client."""


class Unauthenticated(AccessError):
    """The key is missing, unknown, revoked or expired. Callers receive the same answer for all four."""

    def __init__(self) -> None:
        super().__init__("the key is missing, wrong, revoked or expired: send one as `Authorization: Bearer KEY`")


class PermissionDenied(AccessError):
    """The key does not have the scope of the method."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"the key does not have the scope {scope}")
        self.scope = scope


class KeyNeeded(AccessError):
    """The call was sent with a login, and needs the key itself."""

    def __init__(self) -> None:
        super().__init__("a login cannot make another: send the key as `Authorization: Bearer KEY`")


class RateLimited(AccessError):
    """The caller has exceeded a rate limit."""

    def __init__(self, message: str, seconds: float) -> None:
        """`seconds`: until the next call is served."""
        self.retry_after_seconds = max(1, math.ceil(seconds))
        super().__init__(f"{message}: try again in {self.retry_after_seconds} s")


class AuthenticationOff(AccessError):
    """The method needs a key, and this server runs without authentication."""

    def __init__(self) -> None:
        super().__init__("this server runs without authentication: there are no keys, tokens or logins")
