"""Metrics of the engine."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

QUEUE_LENGTH = Gauge("dalston_engine_queue_length", "Utterances waiting for the model.")
QUEUE_SECONDS = Histogram(
    "dalston_engine_queue_seconds",
    "Time from an utterance's arrival to the start of its batch.",
    ["model", "kind"],
    buckets=_SECONDS,
)
BATCH_SIZE = Histogram(
    "dalston_engine_batch_size",
    "Utterances in a batch.",
    ["model", "kind"],
    buckets=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64),
)
_STAGE_SECONDS = Histogram(
    "dalston_engine_stage_seconds",
    "Time that a batch spends in each stage of the forward pass.",
    ["stage"],
    buckets=_SECONDS,
)
REDONE = Counter(
    "dalston_engine_redone_total",
    "Utterances transcribed again, by the defect of the first attempt: `echo` without bias terms, others with 30 s.",
    ["reason"],
)
DIVIDED = Counter(
    "dalston_engine_divided_total",
    "Utterances, or parts of them, transcribed again in parts, by the defect of the attempt with 30 s.",
    ["reason"],
)
SUPPRESSED = Counter(
    "dalston_engine_suppressed_total",
    "Texts suppressed, by reason: hallucinations, and partials with a defect that makes a final be transcribed again.",
    ["kind", "reason"],
)
DROPPED = Counter(
    "dalston_engine_dropped_total",
    "Utterances dropped before their turn: abandoned by the caller; partials replaced by newer ones, or under load.",
    ["kind", "reason"],
)
REFUSED = Counter("dalston_engine_refused_total", "Utterances refused because the queue was full.", ["kind"])
FAILED_BATCHES = Counter("dalston_engine_failed_batches_total", "Batches in which the model failed.")

_stages: ContextVar[dict[str, float] | None] = ContextVar("stages", default=None)


@contextmanager
def stage(name: Literal["features", "encode", "decode", "align"]) -> Iterator[None]:
    """Measures the block as one stage of the forward pass."""
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - started
        _STAGE_SECONDS.labels(name).observe(seconds)
        if (stages := _stages.get()) is not None:
            stages[name] = stages.get(name, 0.0) + seconds


@contextmanager
def stages() -> Iterator[dict[str, float]]:
    """The seconds that each stage takes within the block; updated while it runs."""
    seconds: dict[str, float] = {}
    token = _stages.set(seconds)
    try:
        yield seconds
    finally:
        _stages.reset(token)
