"""What the engine reports about itself."""

from contextlib import AbstractContextManager
from typing import Literal

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

QUEUE_LENGTH = Gauge("dalston_engine_queue_length", "Utterances waiting for the model.")
QUEUE_SECONDS = Histogram(
    "dalston_engine_queue_seconds",
    "From an utterance's arrival to the start of its batch.",
    ["model"],
    buckets=_SECONDS,
)
BATCH_SIZE = Histogram(
    "dalston_engine_batch_size", "Utterances in a batch.", ["model"], buckets=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
)
_STAGE_SECONDS = Histogram(
    "dalston_engine_stage_seconds", "Time a batch spends in each stage of the forward.", ["stage"], buckets=_SECONDS
)
REDONE = Counter(
    "dalston_engine_redone_total",
    "Utterances transcribed again with the full window, by what the first try failed in.",
    ["reason"],
)
SUPPRESSED = Counter("dalston_engine_suppressed_total", "Texts taken to be invented, by reason.", ["reason"])
DROPPED = Counter("dalston_engine_dropped_total", "Utterances given up by their caller before the model saw them.")
REFUSED = Counter("dalston_engine_refused_total", "Utterances refused because the queue was full.")
FAILED_BATCHES = Counter("dalston_engine_failed_batches_total", "Batches in which the model failed.")


def stage(name: Literal["features", "encode", "decode"]) -> AbstractContextManager[object]:
    """Measures the block as one stage of the forward."""
    timer: AbstractContextManager[object] = _STAGE_SECONDS.labels(name).time()
    return timer
