"""The exceptions of the SDK.

DalstonError
├── InvalidRequest            the service rejects a parameter, a message or the audio; `parameter`
│   ├── UnsupportedMedia      the file has none of the formats that the service takes
│   └── FileTooBig            the file exceeds the limit of its size
├── AuthenticationError       the key is missing, wrong, revoked or expired
├── PermissionDenied          the key lacks the scope
├── NotFound                  the session, job or key does not exist, or the requested object is not stored
├── SessionActive             the session is still running, or not completely stored yet
├── SessionResumed            another session already continues it; `resumed_by`
├── SessionEnded              the session was ended by a request
├── SessionTimeout            the session was idle for too long, or reached its maximum length
├── JobRunning                another job of the session is queued or running; `job_id`
├── JobActive                 the job has not ended
├── JobFailed                 the job ended without a transcript; `code`, `job`
├── JobCanceled               the job was canceled; `job`
├── Unsupported               the service does not support the request
├── TooManyKeys               the tenant has reached its limit of keys
├── StorageQuotaExceeded      the tenant has reached its storage quota
├── Busy                      the service cannot take the request now; `retry_after`
│   ├── RateLimited           the tenant has reached its rate limit
│   ├── TooManySessions       the tenant has reached its limit of concurrent sessions
│   ├── TooManyJobs           the tenant has reached its limit of queued jobs
│   └── NoCapacity            no server takes another stream
├── Unavailable               the service cannot be reached or does not respond
│   └── DeadlineExceeded      the service did not respond in time
├── ConnectionLost            a live session was lost and could not be resumed; `session_id`, `finals`
├── AudioOverflow             a live source outran the service until the buffer was full
└── ServerError               a bug of the service; the message names the line of its log

Calls that are wrong regardless of the service raise `TypeError` or `ValueError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dalston.events import FinalResult
    from dalston.records import Job

_NOTHING: Mapping[str, str] = MappingProxyType({})


class DalstonError(Exception):
    """Any failure of a call. Its text is a sentence for users."""

    def __init__(self, message: str, *, reason: str = "", metadata: Mapping[str, str] = _NOTHING) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        """A value of `ErrorReason`, such as `SESSION_NOT_FOUND`; empty if the service sent none."""
        self.metadata = metadata
        """Details that the service sent with the error, as text."""


class InvalidRequest(DalstonError):
    """The service rejects a parameter, a message or the audio."""

    @property
    def parameter(self) -> str | None:
        """The invalid parameter; None if the error concerns no parameter."""
        return self.metadata.get("parameter")


class UnsupportedMedia(InvalidRequest):
    """The file has none of the formats that the service takes."""


class FileTooBig(InvalidRequest):
    """The file exceeds the limit of its size."""


class AuthenticationError(DalstonError):
    """The key is missing, wrong, revoked or expired."""


class PermissionDenied(DalstonError):
    """The key lacks the scope, or the call needs a key and was sent with a login."""


class NotFound(DalstonError):
    """The session, job, key, login or path does not exist, or the object is not stored; `reason` distinguishes them."""


class SessionActive(DalstonError):
    """The session is still running, or not completely stored yet."""


class SessionResumed(DalstonError):
    """Another session already continues this one."""

    @property
    def resumed_by(self) -> str | None:
        """The id of that session."""
        return self.metadata.get("resumed_by")


class SessionEnded(DalstonError):
    """The session was ended by a request; it is not resumed."""


class SessionTimeout(DalstonError):
    """The session was idle for too long, or reached its maximum length."""


class JobRunning(DalstonError):
    """Another batch job of the session is queued or running."""

    @property
    def job_id(self) -> str | None:
        """The id of that job."""
        return self.metadata.get("job_id")


class JobActive(DalstonError):
    """The batch job has not ended."""


class JobFailed(DalstonError):
    """The job ended without a transcript."""

    def __init__(self, message: str, *, job: Job) -> None:
        super().__init__(message)
        self.job = job
        """The job as it ended."""

    @property
    def code(self) -> str | None:
        """Why it failed, for programs: `undecodable`, `audio_damaged`, `no_speech`, ..."""
        return self.job.error_code


class JobCanceled(DalstonError):
    """The job was canceled before it had a transcript."""

    def __init__(self, message: str, *, job: Job) -> None:
        super().__init__(message)
        self.job = job
        """The job as it ended."""


class Unsupported(DalstonError):
    """The service does not support the request, or not in its configuration."""


class Busy(DalstonError):
    """The service cannot take the request now; the same call may succeed later."""

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait before the next attempt; None if the service did not specify them."""
        try:
            return max(0.0, float(self.metadata["retry_after_seconds"]))
        except (KeyError, ValueError):
            return None


class RateLimited(Busy):
    """The tenant has reached its rate limit."""


class TooManySessions(Busy):
    """The tenant has reached its limit of concurrent sessions."""


class TooManyJobs(Busy):
    """The tenant has reached its limit of queued batch jobs."""


class TooManyKeys(DalstonError):
    """The tenant has reached its limit of keys: revoke some."""


class StorageQuotaExceeded(DalstonError):
    """The tenant has reached its storage quota: delete sessions, or start one that stores nothing."""


class NoCapacity(Busy):
    """No server takes another stream at present."""


class Unavailable(DalstonError):
    """The service, or a part of it, cannot be reached or does not respond."""


class DeadlineExceeded(Unavailable):
    """The service did not respond in time."""


class ConnectionLost(DalstonError):
    """A live session was lost and could not be resumed within `give_up_after` seconds."""

    def __init__(self, message: str, *, session_id: str | None, finals: tuple[FinalResult, ...]) -> None:
        super().__init__(message)
        self.session_id = session_id
        """The last session, which can be resumed later; None if none had begun."""
        self.finals = finals
        """All finals so far."""


class AudioOverflow(DalstonError):
    """A live source delivered audio faster than the service took it until the buffer was full."""


class ServerError(DalstonError):
    """A bug of the service."""
