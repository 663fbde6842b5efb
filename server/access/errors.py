"""Why a call is refused before it is served.

AccessError
├── Unauthenticated
├── PermissionDenied
├── RateLimited
└── AuthenticationOff
"""

import math


class AccessError(Exception):
    """A call is refused. The message is for the client."""


class Unauthenticated(AccessError):
    """No key, or one that is wrong, revoked or expired: all alike to whoever tries."""

    def __init__(self) -> None:
        super().__init__("the key is missing, wrong, revoked or expired: send one as `Authorization: Bearer KEY`")


class PermissionDenied(AccessError):
    """The key lacks the scope."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"the key does not have the scope {scope}")
        self.scope = scope


class RateLimited(AccessError):
    """Too many calls."""

    def __init__(self, message: str, seconds: float) -> None:
        """`seconds`: when the next call is served."""
        self.retry_after_seconds = max(1, math.ceil(seconds))
        super().__init__(f"{message}: try again in {self.retry_after_seconds} s")


class AuthenticationOff(AccessError):
    """The server has no keys."""

    def __init__(self) -> None:
        super().__init__("this server runs without authentication: there are no keys and no tokens")
