"""What can go wrong between the parts of persistence; errors of callers are in `domain.errors`.

DomainError
├── SpoolInUse             another process has the directory of this worker id in the spool
├── NotOwner               the session no longer belongs to this process
├── LeaseLost              this process was considered dead: none of its sessions belongs to it any more
└── StorageUnavailable
    ├── DatabaseUnavailable       Postgres
    │   └── RowLost               it has lost the row of a session that nobody has deleted
    ├── ObjectStoreUnavailable    S3
    │   ├── ObjectNotFound        an object that a record points to is not there
    │   └── UploadNotFound        an unfinished upload that a record names is not there
    └── DiskUnavailable           the disk of the spool
"""

from pathlib import Path

from domain.errors import DomainError, StorageUnavailable


class SpoolInUse(DomainError):
    """Another process has the directory of this worker id in the spool."""

    def __init__(self, worker_id: str, directory: Path) -> None:
        super().__init__(
            f"another process has {directory}: a server that runs as {worker_id}, one that stores what such a one has"
            " left, or a repair. Let it end, or set another DALSTON_WORKER_ID"
        )


class NotOwner(DomainError):
    """The session is not this process's any more: another has taken it over, or it was deleted."""

    def __init__(self) -> None:
        super().__init__("the session belongs to another process now")


class LeaseLost(DomainError):
    """This process was taken for dead: others have its sessions, and it must not write to any of them."""

    def __init__(self) -> None:
        super().__init__("this server was away for too long and has given its sessions up")


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
