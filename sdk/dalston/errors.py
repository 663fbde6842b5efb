"""Everything the SDK raises of its own accord.

DalstonError
├── InvalidRequest            a parameter, a message or audio that the service does not take; `parameter`
├── AuthenticationError       no key, or a wrong, revoked or expired one
├── PermissionDenied          the key lacks the scope
├── NotFound                  no such session or key, or nothing of that kind is stored
├── SessionActive             the session still runs, or is not stored to its end yet
├── SessionResumed            another session continues it already; `resumed_by`
├── SessionEnded              somebody ended the session
├── SessionTimeout            nothing was sent for too long, or the session grew too long
├── Unsupported               the service does not have this
├── TooManyKeys               the tenant has as many keys as it may
├── StorageQuotaExceeded      the tenant stores as much as it may
├── Busy                      not now; `retry_after`
│   ├── RateLimited           the tenant's limit of requests
│   ├── TooManySessions       the tenant's limit of concurrent sessions
│   └── NoCapacity            no server takes another stream
├── Unavailable               the service cannot be reached or does not answer
│   └── DeadlineExceeded      not within the time given
├── ConnectionLost            a live session broke and could not be resumed; `session_id`, `finals`
├── AudioOverflow             a live source came faster than the service took it, and memory is bounded
└── ServerError               a bug of the service; the message names the line of its log

`TypeError` and `ValueError` are raised for calls that are wrong whatever the service says.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dalston.events import FinalResult

_NOTHING: Mapping[str, str] = MappingProxyType({})


class DalstonError(Exception):
    """Any failure of a call. Its text is a sentence for a person."""

    def __init__(self, message: str, *, reason: str = "", metadata: Mapping[str, str] = _NOTHING) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        """A value of `ErrorReason`, such as `SESSION_NOT_FOUND`; empty where the service did not say one."""
        self.metadata = metadata
        """What the service said about it, as text."""


class InvalidRequest(DalstonError):
    """The service does not take a parameter, a message or the audio."""

    @property
    def parameter(self) -> str | None:
        """The parameter that is wrong, where it is one."""
        return self.metadata.get("parameter")


class AuthenticationError(DalstonError):
    """There is no key, or it is wrong, revoked or expired."""


class PermissionDenied(DalstonError):
    """The key lacks the scope."""


class NotFound(DalstonError):
    """There is no such session, key or path, or nothing of that kind is stored. `reason` names which."""


class SessionActive(DalstonError):
    """The session still runs, or is not stored to its end yet."""


class SessionResumed(DalstonError):
    """Another session continues this one already."""

    @property
    def resumed_by(self) -> str | None:
        """The session that does."""
        return self.metadata.get("resumed_by")


class SessionEnded(DalstonError):
    """Somebody ended the session; it is not resumed."""


class SessionTimeout(DalstonError):
    """Nothing was sent for too long, or the session grew too long."""


class Unsupported(DalstonError):
    """The service does not have this, or not in the way it is run."""


class Busy(DalstonError):
    """The same call may be served later."""

    @property
    def retry_after(self) -> float | None:
        """Seconds until it is worth trying again, where the service said so."""
        try:
            return max(0.0, float(self.metadata["retry_after_seconds"]))
        except (KeyError, ValueError):
            return None


class RateLimited(Busy):
    """The tenant's limit of requests is reached."""


class TooManySessions(Busy):
    """The tenant's limit of concurrent sessions is reached."""


class TooManyKeys(DalstonError):
    """The tenant has as many keys as it may: revoke some."""


class StorageQuotaExceeded(DalstonError):
    """The tenant stores as much as it may: delete sessions, or begin one that stores nothing."""


class NoCapacity(Busy):
    """No server takes another stream now."""


class Unavailable(DalstonError):
    """The service cannot be reached, or a part of it does not answer."""


class DeadlineExceeded(Unavailable):
    """The service did not answer in the time given."""


class ConnectionLost(DalstonError):
    """A live session broke, and could not be resumed in the time given."""

    def __init__(self, message: str, *, session_id: str | None, finals: tuple[FinalResult, ...]) -> None:
        super().__init__(message)
        self.session_id = session_id
        """The last session, to be resumed later; None if none had begun."""
        self.finals = finals
        """All finals so far."""


class AudioOverflow(DalstonError):
    """A live source came faster than the service took it, for longer than the memory allowed for it lasts."""


class ServerError(DalstonError):
    """A bug of the service."""
