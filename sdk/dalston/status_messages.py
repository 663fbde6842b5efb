"""Converts the messages about the status of a service to the types of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dalston.messages import optional, when
from dalston.service_status import (
    Degradation,
    Latency,
    Process,
    ServerFigures,
    ServiceStatus,
    StorageBacklog,
    Totals,
    WorkerFigures,
)

if TYPE_CHECKING:
    from dalston.v1 import status_pb2 as pb


def service_status(message: pb.ServiceStatus) -> ServiceStatus:
    return ServiceStatus(
        checked_at=when(message, "checked_at"),
        view=message.view,
        processes=tuple(map(_process, message.processes)),
        totals=_totals(message.totals) if message.HasField("totals") else None,
        answered_by=optional(message, "answered_by"),
    )


def _process(message: pb.Process) -> Process:
    return Process(
        id=message.id,
        kind=message.kind,
        state=message.state,
        version=message.version,
        started_at=when(message, "started_at"),
        reported_at=when(message, "reported_at"),
        lease_valid=message.lease_valid,
        lease_expires_at=when(message, "lease_expires_at"),
        degradations=tuple(Degradation(each.name, when(each, "since")) for each in message.degradations),
        server=_server(message.server) if message.HasField("server") else None,
        worker=WorkerFigures(message.worker.jobs, message.worker.max_jobs) if message.HasField("worker") else None,
    )


def _server(message: pb.ServerFigures) -> ServerFigures:
    return ServerFigures(
        sessions=message.sessions,
        max_sessions=message.max_sessions,
        queue_delay_seconds=message.queue_delay_seconds,
        max_queue_delay_seconds=message.max_queue_delay_seconds,
        longest_wait_seconds=message.longest_wait_seconds,
        finals=_latency(message.finals),
        partials=_latency(message.partials),
        suppressed_partials=optional(message, "suppressed_partials"),
        storage=StorageBacklog(
            sessions=message.storage.sessions,
            degraded_sessions=message.storage.degraded_sessions,
            spool_bytes=message.storage.spool_bytes,
            max_spool_bytes=message.storage.max_spool_bytes,
        ),
    )


def _latency(message: pb.Latency) -> Latency:
    return Latency(message.count, optional(message, "p50_seconds"), optional(message, "p95_seconds"))


def _totals(message: pb.Totals) -> Totals:
    return Totals(
        active_sessions=message.active_sessions,
        unstored_sessions=message.unstored_sessions,
        oldest_unstored_at=when(message, "oldest_unstored_at"),
        sessions_to_recover=message.sessions_to_recover,
        expired_leases=message.expired_leases,
        queued_jobs=message.queued_jobs,
        oldest_queued_at=when(message, "oldest_queued_at"),
        running_jobs=message.running_jobs,
    )
