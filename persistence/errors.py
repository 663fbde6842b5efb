"""Errors inside persistence; the errors that callers see are in `domain.errors`.

DomainError
├── SpoolInUse             another process uses the spool directory of this worker id
├── NotOwner               the session no longer belongs to this process
├── LeaseLost              this process was considered dead and has lost all its sessions
└── StorageUnavailable
    ├── DatabaseUnavailable       Postgres
    │   └── RowLost               it has lost the row of a session that was not deleted
    ├── ObjectStoreUnavailable    S3
    │   ├── ObjectNotFound        an object that a record refers to does not exist
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


class UploadNotFound(ObjectStoreUnavailable):
    """An unfinished upload that a record refers to is not in the bucket: it is complete, aborted or never began."""
