"""How large a batch the device has the memory for. Pure.

What is reckoned is what a batch holds at once at its worst: every token a row can have, every utterance timed and tried
again without its terms.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from server.inference.batch_limits import BatchLimits
from server.inference.decoding.draft import AT_ONCE
from server.inference.whisper.checkpoint import WhisperShape

_FLOAT = 4
_SPECTRUM_VALUES = 2 * (400 + 3 * 201)
"""Floats of an encoder frame while its spectrum is taken: two windows of 400 samples, their spectra and powers."""
_MEL_COPIES = 4
_ENCODER_WIDTHS = 12
"""Of the model's width, what a frame holds in the encoder: the four-fold layer before and after its activation, keys,
queries and values, what is added up."""
_AUDIO_COPIES = 2
"""Of the audio's keys and values: what is tried again or timed is a batch's part, which is copied."""
_SCORE_COPIES = 2
"""Of what a layer's heads that follow the speech look at, while words are timed: themselves and their sum."""
_MEDIAN_COPIES = 16
"""Of the same of one row: a median of seven frames, with where each was found."""
_TIMED_TOKENS = 232
"""A text and its prompt."""
_LOGIT_COPIES = 6
"""Of a step's logits, while a token is chosen of them."""
_SHARE = 0.8
"""Of the free memory: the allocator cannot use it to the last, and libraries take some for themselves."""


@dataclass(frozen=True, slots=True)
class BatchMemory:
    """What a batch takes, in bytes."""

    per_row: int
    """What the decoder remembers of a row's tokens, in all its beams, and the logits of a step."""
    per_frame: int
    """Of every row's frames, padding included."""
    once: int
    """Whatever the batch: one row is timed after the other."""


@dataclass(frozen=True, slots=True)
class ValueBytes:
    """Bytes of a number."""

    encoder: int
    decoder: int


def batch_memory(shape: WhisperShape, watched_heads: int, beams: int, value: ValueBytes) -> BatchMemory:
    """What the batches of a model take.

    Args:
        shape: the model's sizes.
        watched_heads: the most heads of a layer that are watched while words are timed.
        beams: ways to write an utterance that are kept; 1 if the likeliest token is taken each time.
        value: of the model's parts.
    """
    token = 2 * shape.decoder_layers * shape.d_model * value.decoder
    # Each beam's memory is copied when beams are first told apart, and whenever they change places.
    tokens = (2 * beams + 1) * shape.max_target_positions * token
    read_at_once = beams if beams > 1 else 1 + AT_ONCE
    logits = read_at_once * shape.vocab_size * _LOGIT_COPIES * _FLOAT
    features = (_SPECTRUM_VALUES + 2 * shape.num_mel_bins * _MEL_COPIES) * _FLOAT
    encoding = _ENCODER_WIDTHS * shape.d_model * value.encoder
    audio = _AUDIO_COPIES * 2 * shape.decoder_layers * shape.d_model * value.encoder
    scores = watched_heads * _TIMED_TOKENS * _FLOAT
    return BatchMemory(
        per_row=tokens + logits,
        # The spectrum is let go before the encoder begins, and the encoder is done when words are timed.
        per_frame=max(features, audio + max(encoding, _SCORE_COPIES * scores)),
        once=_MEDIAN_COPIES * scores * shape.max_source_positions,
    )


def batch_limits(free: int, models: Sequence[BatchMemory], rows: int, full_window: int, waste: float) -> BatchLimits:
    """The largest batches that `free` bytes have room for, whichever of the models they are for.

    At least one row of the full window: less cannot be done.

    Args:
        free: on the device, beside the models.
        models: what their batches take; one at least.
        rows: the most that are wanted.
        full_window: frames of the longest utterance.
        waste: see `BatchLimits`.
    """
    room = max(0, int(free * _SHARE) - max(model.once for model in models))
    per_row, per_frame = max(model.per_row for model in models), max(model.per_frame for model in models)
    # At most half is for rows: with more of them there would be no room for what they say.
    rows = max(1, min(rows, room // 2 // per_row))
    frames = max(full_window, min(rows * full_window, (room - rows * per_row) // per_frame))
    return BatchLimits(rows=rows, frames=frames, waste=waste, partial_rows=max(1, rows // 2))
