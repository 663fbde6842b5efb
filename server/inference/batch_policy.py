"""Which of the waiting utterances the model does next. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

FRAMES_PER_SECOND = 50
_BUCKET = 32
_MARGIN_SECONDS = 1.5


def window(seconds: float, full: int) -> int:
    """Encoder frames for an utterance: its length and a second and a half of silence, in steps, `full` at most.

    The silence tells the model that the utterance is over; the steps make lengths alike enough to share a batch.
    """
    return min(full, _BUCKET * math.ceil((seconds + _MARGIN_SECONDS) * FRAMES_PER_SECOND / _BUCKET))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A waiting utterance, as far as batching is concerned."""

    model: str
    frames: int


@dataclass(frozen=True, slots=True)
class BatchLimits:
    rows: int
    """Utterances in a batch."""
    frames: int
    """Frames in a batch, padding included: what bounds its memory."""
    waste: float
    """The share of a batch's frames that may be padding. Every row is computed at the longest one's length."""


def next_batch(queue: Sequence[Candidate], limits: BatchLimits) -> list[int]:
    """Indices into `queue` of the next batch; empty only if the queue is.

    The utterance that has waited longest is always in it, so nothing starves and models take turns by arrival. Others
    of its model join it in the order of their arrival while the batch stays within its limits.
    """
    if not queue:
        return []
    head = queue[0]
    chosen, longest, used = [0], head.frames, head.frames
    for index, candidate in enumerate(queue[1:], start=1):
        if len(chosen) >= limits.rows:
            break
        if candidate.model != head.model:
            continue
        longest_then = max(longest, candidate.frames)
        total = longest_then * (len(chosen) + 1)
        if total > limits.frames or total - used - candidate.frames > limits.waste * total:
            continue
        chosen.append(index)
        longest, used = longest_then, used + candidate.frames
    return chosen
