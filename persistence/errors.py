"""What can go wrong when sessions are recorded and read back.

PersistenceError
├── InvalidSessionId       the text is not a session id
├── InvalidFilter          a parameter of the list is out of range
├── SessionNotFound        no such session for this tenant
├── SessionActive          it is running, or not stored to its end yet
├── SessionResumed         another session continues it
├── InvalidResumption      what is asked for is not what the earlier session has
├── AudioNotStored         the session stored no audio
├── TranscriptNotStored    the session stored no transcript
├── KeyNotFound            no such key for this tenant
├── InvalidKeyId           the text is not the id of a key
├── KeyEnded               the key with which something is to be done was revoked or has expired
├── TenantNotFound         the operator has named a tenant that there is not
├── TooManyKeys            the tenant has as many keys as it may
├── StorageQuotaExceeded   the tenant stores as much as it may
├── TooManySessions        the tenant runs as many sessions as it may
├── TokenSpent             a token that was good has opened its session meanwhile, or ran out
├── SpoolInUse             another process has the directory of this worker id in the spool
├── NotOwner               the session is not this process's any more
├── LeaseLost              this process was taken for dead: none of its sessions is its own any more
└── StorageUnavailable     Postgres, S3 or the spool's disk does not do its part now
    ├── DatabaseUnavailable       Postgres
    │   └── RowLost               it has lost the row of a session that nobody has deleted
    ├── ObjectStoreUnavailable    S3
    │   ├── ObjectNotFound        an object that a record points to is not there
    │   └── UploadNotFound        an unfinished upload that a record names is not there
    └── DiskUnavailable           the spool's disk
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar


class PersistenceError(Exception):
    """Base of all errors of this package."""


class InvalidSessionId(PersistenceError):
    """The text is not a session id."""

    def __init__(self) -> None:
        super().__init__("a session id is `sess_` and 32 hexadecimal digits")


class InvalidFilter(PersistenceError):
    """A parameter of the list is out of range; `parameter` names it."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter
        self.message = message


class _SessionError(PersistenceError):
    def __init__(self, session_id: str, what: str) -> None:
        self.session_id = session_id
        super().__init__(f"session {session_id} {what}")


class SessionNotFound(_SessionError):
    """The tenant has no session of this id: it never was, is deleted, or is another tenant's, all alike."""

    def __init__(self, session_id: str) -> None:
        super().__init__(session_id, "was not found")


class TenantNotFound(PersistenceError):
    """There is no tenant of this name. The message says which one may have been meant."""

    def __init__(self, name: str, near: Sequence[str]) -> None:
        """`near`: names of tenants that are like it, the most alike first."""
        super().__init__(f"there is no tenant {name!r}" + "".join(f"; did you mean {each!r}?" for each in near[:1]))


class SessionActive(_SessionError):
    """The session is running, or not stored to its end yet."""

    def __init__(self, session_id: str, what: str = "is still active") -> None:
        super().__init__(session_id, what)


class SessionResumed(_SessionError):
    """Another session, `resumed_by`, continues the session, or is about to: then it has no name yet."""

    def __init__(self, session_id: str, resumed_by: str | None = None) -> None:
        what = "is being continued over another connection"
        if resumed_by is not None:
            what = f"is continued by session {resumed_by} already: resume that one"
        super().__init__(session_id, what)
        self.resumed_by = resumed_by


class InvalidResumption(PersistenceError):
    """A session cannot be continued in this way; `parameter` names what is in the way."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(f"{parameter}: {message}")
        self.parameter = parameter


class AudioNotStored(_SessionError):
    """The session did not ask for its audio to be stored."""

    def __init__(self, session_id: str) -> None:
        super().__init__(session_id, "stored no audio")


class TranscriptNotStored(_SessionError):
    """The session did not ask for its transcript to be stored."""

    def __init__(self, session_id: str) -> None:
        super().__init__(session_id, "stored no transcript")


class KeyNotFound(PersistenceError):
    """The tenant has no key of this id: it never was or is another tenant's, both alike."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"key {key_id} was not found")


class InvalidKeyId(PersistenceError):
    """The text is not the id of a key."""

    def __init__(self) -> None:
        super().__init__("a key id is `key_` and 32 hexadecimal digits")


class KeyEnded(PersistenceError):
    """The key that the call was made with was revoked or has expired; the server that took the call remembered it."""

    def __init__(self) -> None:
        super().__init__("the key was revoked or has expired")


class StorageQuotaExceeded(PersistenceError):
    """The tenant stores as much as it may."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the tenant stores as much audio as it may, {limit} bytes: delete sessions, or begin one that stores"
            " nothing"
        )
        self.limit = limit


class TooManyKeys(PersistenceError):
    """The tenant has as many keys that have not ended as it may."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the tenant has {limit} keys, which is the limit: revoke those that nobody uses")


class TooManySessions(PersistenceError):
    """The tenant runs as many sessions as it may."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the limit of sessions at a time is {limit}: end one, or try again in a while")
        self.limit = limit


class TokenSpent(PersistenceError):
    """A token that was good when the call came has opened its session meanwhile, or ran out."""

    def __init__(self) -> None:
        super().__init__("the token has begun another session, or ran out")


class SpoolInUse(PersistenceError):
    """Another process has the directory of this worker id in the spool."""

    def __init__(self, worker_id: str, directory: Path) -> None:
        super().__init__(
            f"another process has {directory}: a server that runs as {worker_id}, one that stores what such a one has"
            " left, or a repair. Let it end, or set another DALSTON_WORKER_ID"
        )


class NotOwner(PersistenceError):
    """The session is not this process's any more: another has taken it over, or it was deleted."""

    def __init__(self) -> None:
        super().__init__("the session belongs to another process now")


class LeaseLost(PersistenceError):
    """This process was taken for dead: others have its sessions, and it must not write to any of them."""

    def __init__(self) -> None:
        super().__init__("this server was away for too long and has given its sessions up")


class StorageUnavailable(PersistenceError):
    """Postgres, S3 or the spool's disk does not do its part now.

    The message is for the operator: it names the part, and nothing private. Clients are told `PUBLIC`.
    """

    PUBLIC: ClassVar[str] = "the storage of the service is not available now: try again in a while"
    component: ClassVar[str] = "storage"
    """Which part, as metrics and the log name it."""


class DatabaseUnavailable(StorageUnavailable):
    """Postgres does not do its part now."""

    component = "database"


class ObjectStoreUnavailable(StorageUnavailable):
    """S3 does not do its part now."""

    component = "object_store"


class DiskUnavailable(StorageUnavailable):
    """The spool's disk does not do its part now."""

    component = "disk"


class RowLost(DatabaseUnavailable):
    """Postgres has lost the row of a session that nobody has deleted: it is to be inserted again."""

    def __init__(self) -> None:
        super().__init__("the database has lost the row of a session")


class ObjectNotFound(ObjectStoreUnavailable):
    """An object that a record points to is not in the bucket."""


class UploadNotFound(ObjectStoreUnavailable):
    """An unfinished upload that a record names is not in the bucket: complete, aborted or never begun."""
