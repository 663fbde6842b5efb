"""What the engine reports about itself."""

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
    "From an utterance's arrival to the start of its batch.",
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
    "dalston_engine_stage_seconds", "Time a batch spends in each stage of the forward.", ["stage"], buckets=_SECONDS
)
REDONE = Counter(
    "dalston_engine_redone_total",
    "Utterances transcribed again, by what the first try failed in; `echo` without vocabulary, others with 30 s.",
    ["reason"],
)
DIVIDED = Counter(
    "dalston_engine_divided_total",
    "Utterances, or parts of them, done again in parts, by why the model did not get through them with 30 s.",
    ["reason"],
)
SUPPRESSED = Counter(
    "dalston_engine_suppressed_total",
    "Texts not told, by reason: taken to be invented, or of a partial for which a final would be transcribed again.",
    ["kind", "reason"],
)
DROPPED = Counter(
    "dalston_engine_dropped_total",
    "Utterances that the model did not see: abandoned by their caller; partials merged with newer ones, or given up.",
    ["kind", "reason"],
)
REFUSED = Counter("dalston_engine_refused_total", "Utterances refused because the queue was full.", ["kind"])
FAILED_BATCHES = Counter("dalston_engine_failed_batches_total", "Batches in which the model failed.")

_stages: ContextVar[dict[str, float] | None] = ContextVar("stages", default=None)


@contextmanager
def stage(name: Literal["features", "encode", "decode", "align"]) -> Iterator[None]:
    """Measures the block as one stage of the forward."""
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
    """What the stages within the block take, in seconds; filled in while it runs."""
    noted: dict[str, float] = {}
    token = _stages.set(noted)
    try:
        yield noted
    finally:
        _stages.reset(token)
