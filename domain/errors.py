"""Errors that callers receive.

DomainError
├── InvalidSessionId       the text is not a session id
├── InvalidFilter          a parameter of the list is out of range
├── SessionNotFound        no such session for this tenant
├── SessionActive          it is running, or not stored to its end yet
├── SessionResumed         another session continues it
├── InvalidResumption      the earlier session cannot be continued as requested
├── AudioNotStored         the session stored no audio
├── TranscriptNotStored    the session stored no transcript
├── TranscriptNotFound     the session has no transcript of this version
├── JobNotFound            no such batch job for this tenant
├── InvalidJobId           the text is not the id of a job
├── NoEnhancement          the session has had no batch job
├── EnhancementRunning     a job of the session is queued or running
├── JobActive              the job has not ended
├── UnsupportedMedia       the file is of none of the formats that are taken
├── FileTooBig             the file is over the limit
├── TooManyJobs            the tenant has reached its limit of queued jobs
├── KeyNotFound            no such key for this tenant
├── InvalidKeyId           the text is not the id of a key
├── KeyEnded               the key of the call was revoked or has expired
├── TenantNotFound         the operator has named a tenant that does not exist
├── TooManyKeys            the tenant has reached its limit of keys
├── StorageQuotaExceeded   the tenant has reached its storage quota
├── TooManySessions        the tenant has reached its limit of concurrent sessions
├── TokenSpent             the token has already opened a session, or has expired
└── StorageUnavailable     Postgres, S3 or the disk of the spool is unavailable
"""

from collections.abc import Sequence
from typing import ClassVar


class DomainError(Exception):
    """Base of all errors that callers receive. The message is for them."""


class InvalidSessionId(DomainError):
    """The text is not a session id."""

    def __init__(self) -> None:
        super().__init__("a session id is `sess_` and 32 hexadecimal digits")


class InvalidFilter(DomainError):
    """A parameter of the list is out of range; `parameter` names it."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter
        self.message = message


class _SessionError(DomainError):
    def __init__(self, session_id: str, what: str) -> None:
        self.session_id = session_id
        super().__init__(f"session {session_id} {what}")


class SessionNotFound(_SessionError):
    """The tenant has no such session: it never existed, was deleted, or belongs to another tenant."""

    def __init__(self, session_id: str) -> None:
        super().__init__(session_id, "was not found")


class TenantNotFound(DomainError):
    """No tenant has this name. The message suggests the most similar name."""

    def __init__(self, name: str, near: Sequence[str]) -> None:
        """`near`: similar names of tenants, the most similar first."""
        super().__init__(f"there is no tenant {name!r}" + "".join(f"; did you mean {each!r}?" for each in near[:1]))


class SessionActive(_SessionError):
    """The session is running, or not stored to its end yet."""

    def __init__(self, session_id: str, what: str = "is still active") -> None:
        super().__init__(session_id, what)


class SessionResumed(_SessionError):
    """Another session continues this one; `resumed_by` is None while that one has not begun."""

    def __init__(self, session_id: str, resumed_by: str | None = None) -> None:
        what = "is being continued over another connection"
        if resumed_by is not None:
            what = f"is continued by session {resumed_by} already: resume that one"
        super().__init__(session_id, what)
        self.resumed_by = resumed_by


class InvalidResumption(DomainError):
    """A session cannot be continued as requested; `parameter` names the reason."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(f"{parameter}: {message}")
        self.parameter = parameter


class AudioNotStored(_SessionError):
    """The session did not ask for its audio to be stored, or what is made of it does not exist."""

    def __init__(self, session_id: str, what: str = "stored no audio") -> None:
        super().__init__(session_id, what)


class TranscriptNotStored(_SessionError):
    """The session did not ask for its transcript to be stored."""

    def __init__(self, session_id: str) -> None:
        super().__init__(session_id, "stored no transcript")


class TranscriptNotFound(_SessionError):
    """The session has no transcript of this version."""

    def __init__(self, session_id: str, version: int) -> None:
        super().__init__(session_id, f"has no version {version} of its transcript")


class JobNotFound(DomainError):
    """The tenant has no such job: it never existed, went with its session, or belongs to another tenant."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id} was not found")


class InvalidJobId(DomainError):
    """The text is not the id of a job."""

    def __init__(self) -> None:
        super().__init__("a job id is `job_` and 32 hexadecimal digits")


class NoEnhancement(_SessionError):
    """The session has had no batch job."""

    def __init__(self, session_id: str) -> None:
        super().__init__(session_id, "has had no batch job")


class EnhancementRunning(_SessionError):
    """A batch job of the session is queued or running."""

    def __init__(self, session_id: str, job_id: str) -> None:
        super().__init__(session_id, f"is being transcribed by job {job_id}: wait for it, or cancel it")
        self.job_id = job_id


class JobActive(DomainError):
    """The job has not ended."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id} has not ended: wait for it, or cancel it")


class UnsupportedMedia(DomainError):
    """The file is of none of the formats that are taken."""

    def __init__(self, formats: str) -> None:
        """`formats`: the formats that are taken, separated by commas."""
        super().__init__(f"the file is none of the formats that are taken: {formats}")


class FileTooBig(DomainError):
    """The file is over the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the file is too big: {limit} bytes are allowed")
        self.limit = limit


class TooManyJobs(DomainError):
    """The tenant has reached its limit of queued jobs."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} jobs are queued, which is the limit: try again when some have ended")
        self.limit = limit


class KeyNotFound(DomainError):
    """The tenant has no such key: it never existed, or belongs to another tenant."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"key {key_id} was not found")


class InvalidKeyId(DomainError):
    """The text is not the id of a key."""

    def __init__(self) -> None:
        super().__init__("a key id is `key_` and 32 hexadecimal digits")


class KeyEnded(DomainError):
    """The key of the call, or its login, was ended or has expired since the server cached it."""

    def __init__(self) -> None:
        super().__init__("the key was revoked or has expired")


class LoginNotFound(DomainError):
    """The key has no such login: it never existed, has ended, or belongs to another key."""

    def __init__(self, login_id: str) -> None:
        super().__init__(f"login {login_id} was not found")


class InvalidLoginId(DomainError):
    """The text is not the id of a login."""

    def __init__(self) -> None:
        super().__init__("a login id is `login_` and 32 hexadecimal digits")


class StorageQuotaExceeded(DomainError):
    """The tenant has reached its storage quota."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the tenant stores as much audio as it may, {limit} bytes: delete sessions, or begin one that stores"
            " nothing"
        )
        self.limit = limit


class TooManyKeys(DomainError):
    """The tenant has reached its limit of keys that are neither revoked nor expired."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the tenant has {limit} keys, which is the limit: revoke unused ones")


class TooManySessions(DomainError):
    """The tenant has reached its limit of concurrent sessions."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the limit of sessions at a time is {limit}: end one, or try again in a while")
        self.limit = limit


class TokenSpent(DomainError):
    """The token was valid when the call arrived; since then it has opened a session, or has expired."""

    def __init__(self) -> None:
        super().__init__("the token has opened another session, or has expired")


class StorageUnavailable(DomainError):
    """Postgres, S3 or the spool's disk is unavailable.

    The message is for the operator: it names the component, and nothing private. Clients receive `PUBLIC`.
    """

    PUBLIC: ClassVar[str] = "the storage of the service is unavailable: try again later"
    component: ClassVar[str] = "storage"
    """The component as metrics and the log name it."""
