"""What servers and workers report of themselves, and the totals of the deployment.

Each process writes one row every few seconds, in a task and a transaction of its own: a report that fails, or that
cannot be made, delays no lease and no session.
"""

import asyncio
import random
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Literal
from uuid import UUID

from dalston.v1.status_pb2 import Process, Totals
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from sqlalchemy import Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import RowMapping

from domain.errors import StorageUnavailable
from persistence.postgres.database import Database
from persistence.postgres.lease import Lease
from persistence.postgres.tables import HAS_SERVER, UNFINISHED
from telemetry.logs import get_logger

log = get_logger(__name__)

FORGOTTEN_SECONDS: Final = 600.0
"""How long the last report of a process that was killed is kept."""
_MOST_PROCESSES: Final = 1000
_DEADLINE_SECONDS: Final = 3.0
_REMOVE_SECONDS: Final = 1.0

Describe = Callable[[Process], Collection[str]]
"""Fills in the state and the figures of this process; returns the names of the degradations whose beginning it does not
know."""

_WRITE = text("""
    INSERT INTO process_reports (id, started_at, reported_at, report)
    VALUES (:id, :started_at, now(), :report)
    ON CONFLICT (id) DO UPDATE SET
        started_at = excluded.started_at, reported_at = excluded.reported_at, report = excluded.report
    WHERE process_reports.started_at <= excluded.started_at
""").bindparams(bindparam("report", type_=JSONB))
_FORGET = text("""
    DELETE FROM process_reports AS r WHERE r.reported_at < now() - make_interval(secs => :seconds)
        AND NOT EXISTS (SELECT FROM workers AS w WHERE w.id = r.id AND w.lease_expires_at > now())
""")
_REMOVE = text("DELETE FROM process_reports WHERE id = :id AND started_at = :started_at")

# A report of an earlier run has nothing to say about the process that has its id now. A process of an earlier release
# has a lease and no report.
_READ = text("""
    SELECT coalesce(w.id, r.id) AS id, w.kind, coalesce(w.started_at, r.started_at) AS started_at,
        w.lease_expires_at, coalesce(w.lease_expires_at > now(), false) AS lease_valid,
        r.reported_at, r.report, w.id IS NULL OR w.started_at = r.started_at AS is_current
    FROM workers AS w FULL JOIN process_reports AS r ON r.id = w.id
    WHERE w.id IS NOT NULL OR r.reported_at > now() - make_interval(secs => :seconds)
    ORDER BY coalesce(w.kind, r.report ->> 'kind'), coalesce(w.id, r.id) LIMIT :limit
""")

_UNSTORED = """
    s.status <> 'active'
    AND ((s.store_audio AND s.audio_uri IS NULL) OR (s.store_transcript AND s.transcript_uri IS NULL))
"""
# The first condition is that of a partial index, which has unfinished sessions only.
_SESSIONS = text(f"""
    SELECT
        count(*) FILTER (WHERE status = 'active' AND has_server) AS active_sessions,
        count(*) FILTER (WHERE is_unstored) AS unstored_sessions,
        min(ended_at) FILTER (WHERE is_unstored) AS oldest_unstored_at,
        count(*) FILTER (WHERE NOT has_server OR recover_after IS NOT NULL) AS sessions_to_recover
    FROM (
        SELECT s.status, s.ended_at, s.recover_after, {HAS_SERVER} AS has_server, {_UNSTORED} AS is_unstored
        FROM realtime_sessions AS s
        WHERE ({UNFINISHED}) AND s.deleted_at IS NULL
            AND (CAST(:tenant_id AS uuid) IS NULL OR s.tenant_id = :tenant_id)
    ) AS unfinished
""").bindparams(bindparam("tenant_id", type_=Uuid))  # noqa: S608 - no input
_JOBS = text("""
    SELECT
        count(*) FILTER (WHERE status = 'queued') AS queued_jobs,
        min(created_at) FILTER (WHERE status = 'queued') AS oldest_queued_at,
        count(*) FILTER (WHERE status = 'running') AS running_jobs
    FROM transcription_jobs
    WHERE status IN ('queued', 'running') AND (CAST(:tenant_id AS uuid) IS NULL OR tenant_id = :tenant_id)
""").bindparams(bindparam("tenant_id", type_=Uuid))
_EXPIRED = text("SELECT count(*) FROM workers WHERE lease_expires_at < now()")


@dataclass(frozen=True, slots=True)
class Deployment:
    """All processes, and the totals, at one moment."""

    now: datetime
    """By the clock of Postgres."""
    processes: tuple[Process, ...]
    totals: Totals


class ProcessReports:
    """The reports of all processes, and the report of this one. `run` writes the latter."""

    def __init__(
        self,
        database: Database,
        lease: Lease,
        worker_id: str,
        kind: Literal["server", "worker"],
        pause_seconds: float,
        degraded_since: Callable[[], Mapping[str, datetime]],
    ) -> None:
        """
        Args:
            pause_seconds: the time between two reports.
            degraded_since: returns the degradations of the storage by name, and since when each lasts.
        """
        self._database = database
        self._lease = lease
        self._worker_id = worker_id
        self._kind = kind
        self._pause_seconds = pause_seconds
        self._degraded_since = degraded_since
        self._seen_since: dict[str, datetime] = {}
        self._is_failing = False
        self.describe: Describe = lambda _process: ()

    @property
    def worker_id(self) -> str:
        """The id of this process."""
        return self._worker_id

    def own(self) -> Process:
        """This process at this moment. Never raises: what cannot be found out is missing."""
        now = datetime.now(UTC)
        process = Process(
            id=self._worker_id,
            kind=self._kind,
            state="starting",
            version=_release(),
            lease_valid=self._lease.is_held,
        )
        process.started_at.FromDatetime(self._lease.started_at)
        process.reported_at.FromDatetime(now)
        if (expires_at := self._lease.expires_at) is not None:
            process.lease_expires_at.FromDatetime(expires_at)
        try:
            self._fill(process, now)
            self._is_failing = False
        except Exception:
            # A bug in a figure must not hide the process. Only the first of consecutive failures is logged.
            if not self._is_failing:
                log.exception("the figures of this process cannot be gathered")
            self._is_failing = True
        return process

    def _fill(self, process: Process, now: datetime) -> None:
        names = self.describe(process)
        self._seen_since = {name: self._seen_since.get(name, now) for name in names}
        since = {**self._seen_since, **self._degraded_since()}
        for name, began in sorted(since.items(), key=lambda each: (each[1], each[0])):
            process.degradations.add(name=name).since.FromDatetime(began)

    async def run(self) -> None:
        """Reports until cancelled."""
        while True:
            try:
                await self.write()
            except (StorageUnavailable, TimeoutError):
                pass  # the lease reports the outage
            except Exception:
                log.exception("this process cannot report its figures")
            await asyncio.sleep(self._pause_seconds * random.uniform(0.9, 1.0))  # noqa: S311 - jitter, not a secret

    async def write(self) -> None:
        """Writes the report of this process, and removes those of processes that are long gone.

        Raises:
            StorageUnavailable, TimeoutError: Postgres does not answer in time.
        """
        report = MessageToDict(self.own(), preserving_proto_field_name=True)
        for of_lease in ("lease_valid", "lease_expires_at", "started_at", "reported_at"):
            report.pop(of_lease, None)
        async with asyncio.timeout(_DEADLINE_SECONDS), self._database.transaction() as connection:
            await connection.execute(_WRITE, self._identity | {"report": report})
            await connection.execute(_FORGET, {"seconds": FORGOTTEN_SECONDS})

    async def remove(self) -> None:
        """Removes the report of this process, which ends. It disappears by itself if that fails."""
        with suppress(StorageUnavailable, TimeoutError):
            async with asyncio.timeout(_REMOVE_SECONDS), self._database.transaction() as connection:
                await connection.execute(_REMOVE, self._identity)

    async def read(self) -> Deployment:
        """All processes, and the totals of all tenants. This process is as it is at this moment.

        Raises:
            StorageUnavailable: Postgres is unavailable.
        """
        async with self._database.transaction() as connection:
            wanted = {"seconds": FORGOTTEN_SECONDS, "limit": _MOST_PROCESSES}
            rows = (await connection.execute(_READ, wanted)).mappings().all()
            totals = await _totals(connection, None)
            totals.expired_leases = (await connection.execute(_EXPIRED)).scalar_one()
            now: datetime = (await connection.execute(text("SELECT now()"))).scalar_one()
        others = [_process(row) for row in rows if row["id"] != self._worker_id]
        processes = sorted([self.own(), *others], key=lambda process: (process.kind, process.id))
        return Deployment(now, tuple(processes), totals)

    async def totals_of(self, tenant_id: UUID) -> Totals:
        """The totals of one tenant.

        Raises:
            StorageUnavailable: Postgres is unavailable.
        """
        async with self._database.transaction() as connection:
            return await _totals(connection, tenant_id)

    @property
    def _identity(self) -> dict[str, Any]:
        return {"id": self._worker_id, "started_at": self._lease.started_at}


async def _totals(connection: Any, tenant_id: UUID | None) -> Totals:
    found: dict[str, Any] = {}
    for statement in (_SESSIONS, _JOBS):
        found |= (await connection.execute(statement, {"tenant_id": tenant_id})).mappings().one()
    return Totals(**{name: value for name, value in found.items() if value is not None})


def _process(row: RowMapping) -> Process:
    """A process by its report and its lease, of which it has at least one."""
    process = Process()
    if row["report"] is not None and row["is_current"]:
        # Another release may report fields that this one does not know, and the reverse.
        with suppress(ParseError):
            ParseDict(row["report"], process, ignore_unknown_fields=True)
        process.reported_at.FromDatetime(row["reported_at"])
    process.id = row["id"]
    process.kind = row["kind"] or process.kind
    process.started_at.FromDatetime(row["started_at"])
    process.lease_valid = row["lease_valid"]
    if row["lease_expires_at"] is not None:
        process.lease_expires_at.FromDatetime(row["lease_expires_at"])
    return process


def _release() -> str:
    try:
        return version("dalston")
    except PackageNotFoundError:
        return "unknown"
