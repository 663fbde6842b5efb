"""The length of the encoder's input for an utterance. Pure."""

import math

ENCODER_FRAMES_PER_SECOND = 50
_BUCKET = 32
_MARGIN_SECONDS = 1.5


def window(seconds: float, full: int) -> int:
    """Encoder frames for an utterance: its length and 1.5 s of silence, rounded up in steps, `full` at most.

    The silence shows the model that the utterance is over; the steps make lengths similar enough to share a batch.
    """
    return min(full, _BUCKET * math.ceil((seconds + _MARGIN_SECONDS) * ENCODER_FRAMES_PER_SECOND / _BUCKET))
