"""Batch jobs as rows and in words."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dalston.cli import measures, output

if TYPE_CHECKING:
    from dalston.records import Job

COLUMNS = ("ID", "STATUS", "PROGRESS", "SESSION", "KIND", "MODEL", "LANGUAGE", "AUDIO", "CREATED", "STATE")

_WAITS = {
    "worker": "no worker is running",
    "retry": "an attempt failed, and it is tried again",
    "capacity": "live sessions need the machine",
}
_DOES = {
    "listening": "detecting language and speech",
    "transcribing": "transcribing",
    "storing": "storing the transcript",
    "capacity": "live sessions need the machine",
}


def row(job: Job) -> tuple[str, ...]:
    """The cells under `COLUMNS`."""
    seconds = job.audio_duration_seconds
    return (
        job.id,
        job.status.value,
        f"{job.progress:.0%}",
        job.session_id,
        f"{job.kind}, linked" if job.linked else job.kind,
        job.model,
        job.language,
        measures.length(seconds) if output.is_terminal(sys.stdout) else f"{seconds:.1f} s",
        _time(job.created_at),
        state(job),
    )


def state(job: Job, now: datetime | None = None) -> str:
    """What a job does, waits for or has ended with, as a phrase for people."""
    now = now or datetime.now(UTC)
    match job.status.value:
        case "queued":
            return "; ".join(part for part in (f"queued since {_since(job.created_at, now)}", _wait(job)) if part)
        case "running" if job.cancel_requested:
            return "being canceled"
        case "running":
            left = "" if job.eta_seconds is None else f", {measures.length(job.eta_seconds)} left"
            return f"{_DOES.get(job.step, job.step)}, {job.progress:.0%} done{left}"
        case "completed":
            made = "completed" if job.version is None else f"version {job.version} of the transcript"
            return f"{made}, doubtful: {job.verdict_reason or 'unknown'}" if job.verdict == "doubtful" else made
        case _:
            return f"{job.status.value}: {job.error}" if job.error else job.status.value


def _wait(job: Job) -> str:
    if job.step in _WAITS:
        return _WAITS[job.step]
    if not job.queue_position:
        return ""
    number = "1000 or more" if job.queue_position >= 1000 else str(job.queue_position)
    return f"{number} job{'' if job.queue_position == 1 else 's'} before it"


def _since(time: datetime | None, now: datetime) -> str:
    seconds = 0.0 if time is None else max(0.0, (now - time).total_seconds())
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _time(time: datetime | None) -> str:
    if time is None:
        return "-"
    local = time.astimezone()
    return f"{local:%m-%d %H:%M}" if output.is_terminal(sys.stdout) else local.isoformat(timespec="seconds")
