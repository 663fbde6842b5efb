"""Errors inside persistence; the errors that callers see are in `domain.errors`.

DomainError
├── SpoolInUse             another process uses the spool directory of this worker id
├── NotOwner               the session no longer belongs to this process
├── JobLost                a batch job no longer belongs to this process, or not to this claim
├── AudioDamaged           the audio object of a session is shorter than its row states, or is no recording
├── LeaseLost              this process was considered dead and has lost all its sessions
└── StorageUnavailable
    ├── DatabaseUnavailable       Postgres
    │   └── RowLost               it has lost the row of a session that was not deleted
    ├── ObjectStoreUnavailable    S3
    │   ├── ObjectNotFound        an object that a record refers to does not exist
    │   ├── ObjectTooShort        an object is shorter than a record states
    │   └── UploadNotFound        an unfinished upload that a record refers to does not exist
    └── DiskUnavailable           the disk of the spool
"""

from pathlib import Path

from domain.errors import DomainError, StorageUnavailable


class SpoolInUse(DomainError):
    """Another process uses the spool directory of this worker id."""

    def __init__(self, worker_id: str, directory: Path) -> None:
        super().__init__(
            f"another process uses {directory}: a server with the worker id {worker_id}, a server that recovers its"
            " spool, or a repair. Wait until it has ended, or set another DALSTON_WORKER_ID"
        )


class NotOwner(DomainError):
    """The session no longer belongs to this process: another has taken it over, or it was deleted."""

    def __init__(self) -> None:
        super().__init__("the session belongs to another process now")


class JobLost(DomainError):
    """A batch job no longer belongs to this claim: another process has it, it has ended, or it was deleted."""

    def __init__(self) -> None:
        super().__init__("the job belongs to another process now, or does not exist any more")


class AudioDamaged(DomainError):
    """The audio of a session cannot be read to the end that its row states."""

    def __init__(self, seconds: float, expected_seconds: float) -> None:
        """
        Args:
            seconds: where the readable audio ends, in the recording that is read.
            expected_seconds: the length of that recording.
        """
        super().__init__(f"the stored audio is damaged: it ends after {seconds:.3f} of {expected_seconds:.3f} seconds")
        self.seconds = seconds


class LeaseLost(DomainError):
    """This process was considered dead: others have taken its sessions, and it must not write to any of them."""

    def __init__(self) -> None:
        super().__init__("this server was unreachable for too long and has lost its sessions")


class DatabaseUnavailable(StorageUnavailable):
    """Postgres is unavailable."""

    component = "database"


class ObjectStoreUnavailable(StorageUnavailable):
    """S3 is unavailable."""

    component = "object_store"


class DiskUnavailable(StorageUnavailable):
    """The disk of the spool is unavailable."""

    component = "disk"


class RowLost(DatabaseUnavailable):
    """Postgres has lost the row of a session that was not deleted; the row must be inserted again."""

    def __init__(self) -> None:
        super().__init__("the database has lost the row of a session")


class ObjectNotFound(ObjectStoreUnavailable):
    """An object that a record refers to is not in the bucket."""


class ObjectTooShort(ObjectStoreUnavailable):
    """An object is shorter than a record states."""

    def __init__(self) -> None:
        super().__init__("an object is shorter than it was")


class UploadNotFound(ObjectStoreUnavailable):
    """An unfinished upload that a record refers to is not in the bucket: it is complete, aborted or never began."""
