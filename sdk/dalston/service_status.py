"""The status of a service: its servers and workers, and what waits in all of them together."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Degradation:
    """A condition under which a process serves less than it should."""

    name: str
    """Such as `database`, `object_store` or `behind`: docs/operations.md lists them. Later servers may add names."""
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Latency:
    """Latencies of the last five minutes, or of the last 4096 texts if that is less."""

    count: int
    p50_seconds: float | None = None
    p95_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class StorageBacklog:
    """Recordings on their way from the spool of a server to Postgres and S3."""

    sessions: int
    """Ended sessions that wait to be stored, or are being stored."""
    degraded_sessions: int
    """Running sessions that are not stored as they should be."""
    spool_bytes: float
    max_spool_bytes: float


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """What a server does."""

    sessions: int
    max_sessions: int
    queue_delay_seconds: float
    max_queue_delay_seconds: float
    """Above it further sessions are refused."""
    longest_wait_seconds: float
    """The longest time for which a session is waiting for its next text."""
    finals: Latency
    partials: Latency
    suppressed_partials: float | None
    """The share of the passes that make partials for which the model had no time; None if there was none."""
    storage: StorageBacklog


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """What a worker does."""

    jobs: int
    max_jobs: int


@dataclass(frozen=True, slots=True)
class Process:
    """A server or a worker."""

    id: str
    kind: str
    """`server` or `worker`."""
    state: str
    """`starting`, `ready` or `draining`, as it last reported; empty if it never has."""
    version: str
    started_at: datetime | None
    reported_at: datetime | None
    """When it reported its figures; None if it never has."""
    lease_valid: bool
    lease_expires_at: datetime | None
    degradations: tuple[Degradation, ...]
    """The longest-lasting first."""
    server: ServerFigures | None = None
    """Of a server that has reported."""
    worker: WorkerFigures | None = None
    """Of a worker that has reported."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What there is in the whole service, or of one tenant."""

    active_sessions: int
    unstored_sessions: int
    oldest_unstored_at: datetime | None
    """When the session ended that has waited longest to be stored."""
    sessions_to_recover: int
    """Sessions that a dead process has left and that no other has finished yet."""
    expired_leases: int
    queued_jobs: int
    oldest_queued_at: datetime | None
    """When the job was created that has waited longest."""
    running_jobs: int


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """A service at one moment."""

    checked_at: datetime | None
    """The time of the answer: count ages up to it."""
    view: str
    """`deployment`, or `tenant`: the totals are those of the caller's tenant, and there are no processes."""
    processes: tuple[Process, ...]
    totals: Totals | None
    """None while Postgres is unavailable."""
    answered_by: str | None
    """The id of the server that answered."""
