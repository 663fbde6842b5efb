"""The state of a job from its row in `transcription_jobs`, as expressions of SQL."""

from sqlalchemy import ColumnElement, and_, case, exists, func, literal, select

from persistence.postgres.tables import transcription_jobs, workers

_j = transcription_jobs.c
_w = workers.c

HAS_WORKER: ColumnElement[bool] = exists(select(_w.id).where(_w.kind == "worker", _w.lease_expires_at > func.now()))
"""Whether a worker is running."""

STEP: ColumnElement[str] = case(
    (_j.status == "running", func.coalesce(_j.step, literal("listening"))),
    (_j.status != "queued", literal("")),
    (~HAS_WORKER, literal("worker")),
    (and_(_j.attempts > 0, _j.due_at > func.now()), literal("retry")),
    else_=literal("turn"),
)
"""What a running job does, and what a queued one waits for; empty once it has ended."""

PROGRESS: ColumnElement[float] = case(
    (_j.status == "completed", literal(1.0)),
    (_j.audio_seconds > 0, func.least(literal(1.0), _j.done_seconds / _j.audio_seconds)),
    else_=literal(0.0),
)
"""The share of the audio that is transcribed, 0 to 1."""
