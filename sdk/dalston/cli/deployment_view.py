"""The status of a service as fields and rows of a table. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from dalston.cli import measures

if TYPE_CHECKING:
    from dalston.service_status import Latency, Process, ServiceStatus, Totals

COLUMNS = ("ID", "KIND", "STATE", "WORK", "DELAY", "FINALS", "PARTIALS", "TO STORE", "SPOOL", "REPORTED", "VERSION")
_NONE = "-"


def fields(status: ServiceStatus) -> list[tuple[str, str]]:
    """The totals, and what is wrong with the processes."""
    if status.totals is None:
        totals = [("totals", "unknown: the database does not answer")]
    else:
        totals = _totals(status.totals, status.checked_at)
    wrong = [
        ("degraded", f"{process.id}: {each.name}, {_age(each.since, status.checked_at)}")
        for process in status.processes
        for each in process.degradations
    ]
    return [*totals, *wrong]


def rows(status: ServiceStatus) -> list[tuple[str, ...]]:
    """A row of `COLUMNS` for each process."""
    return [_row(process, status.checked_at) for process in status.processes]


def _totals(totals: Totals, now: datetime | None) -> list[tuple[str, str]]:
    unstored = _waiting(totals.unstored_sessions, totals.oldest_unstored_at, now)
    queued = _waiting(totals.queued_jobs, totals.oldest_queued_at, now)
    shown = [
        ("active sessions", str(totals.active_sessions)),
        ("not stored yet", unstored),
        ("jobs", f"{queued} queued, {totals.running_jobs} running"),
    ]
    if totals.sessions_to_recover or totals.expired_leases:
        shown.append(("to recover", f"{totals.sessions_to_recover} sessions, {totals.expired_leases} expired leases"))
    return shown


def _waiting(count: int, oldest: datetime | None, now: datetime | None) -> str:
    return str(count) if oldest is None else f"{count} (oldest {_age(oldest, now)})"


def _row(process: Process, now: datetime | None) -> tuple[str, ...]:
    head = (process.id, process.kind, _state(process))
    tail = (_age(process.reported_at, now), process.version or _NONE)
    if process.worker is not None:
        return (*head, f"{process.worker.jobs}/{process.worker.max_jobs}", *[_NONE] * 5, *tail)
    figures = process.server
    if figures is None:
        return (*head, *[_NONE] * 6, *tail)
    return (
        *head,
        f"{figures.sessions}/{figures.max_sessions}",
        _seconds(figures.queue_delay_seconds),
        _p95(figures.finals),
        _p95(figures.partials),
        str(figures.storage.sessions),
        measures.size(int(figures.storage.spool_bytes)),
        *tail,
    )


def _state(process: Process) -> str:
    return process.state or "unknown" if process.lease_valid else "no lease"


def _p95(latency: Latency) -> str:
    return _NONE if latency.p95_seconds is None else f"p95 {_seconds(latency.p95_seconds)}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s"


def _age(since: datetime | None, now: datetime | None) -> str:
    if since is None or now is None:
        return _NONE
    return measures.length(max(0.0, (now - since).total_seconds()))
