"""The largest batch that fits into the device's memory. Pure.

This estimates the peak memory of a batch in the worst case: every row has the most tokens, and every utterance is timed
and decoded again without its bias terms.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from server.inference.batch_limits import BatchLimits
from server.inference.decoding.draft import AT_ONCE
from server.inference.whisper.checkpoint import WhisperShape

_FLOAT = 4
_SPECTRUM_VALUES = 2 * (400 + 3 * 201)
"""Floats per encoder frame while its spectrum is computed: two windows of 400 samples, their spectra and powers."""
_MEL_COPIES = 4
_ENCODER_WIDTHS = 12
"""Memory per encoder frame in the encoder, in multiples of the model's width: the four-fold layer before and after its
activation, keys, queries and values, the residual."""
_AUDIO_COPIES = 2
"""Copies of the audio's keys and values: rows that are decoded again or timed are copied out of the batch."""
_SCORE_COPIES = 2
"""Copies of the scores of a layer's alignment heads while words are timed: the scores and their sum."""
_MEDIAN_COPIES = 16
"""Copies of the scores of one row: a median of seven encoder frames, with the index of each."""
_TIMED_TOKENS = 232
"""The most tokens of a text and its prompt."""
_LOGIT_COPIES = 6
"""Copies of a step's logits while a token is chosen."""
_SHARE = 0.8
"""The usable share of the free memory: allocation leaves gaps, and libraries need some themselves."""


@dataclass(frozen=True, slots=True)
class BatchMemory:
    """The memory of a batch, in bytes."""

    per_row: int
    """The keys and values of a row's tokens, in all its beams, and the logits of a step."""
    per_encoder_frame: int
    """For each encoder frame of every row, padding included."""
    once: int
    """Once per batch: rows are timed one after the other."""


@dataclass(frozen=True, slots=True)
class ValueBytes:
    """Bytes per number."""

    encoder: int
    decoder: int


def batch_memory(shape: WhisperShape, alignment_heads: int, beams: int, value: ValueBytes) -> BatchMemory:
    """The memory of a model's batches.

    Args:
        shape: the model's sizes.
        alignment_heads: the most alignment heads of a layer.
        beams: the beam size; 1 for greedy decoding.
        value: the number formats of the model.
    """
    token = 2 * shape.decoder_layers * shape.d_model * value.decoder
    # Each beam's keys and values are copied when the beams are created, and whenever they are reordered.
    tokens = (2 * beams + 1) * shape.max_target_positions * token
    read_at_once = beams if beams > 1 else 1 + AT_ONCE
    logits = read_at_once * shape.vocab_size * _LOGIT_COPIES * _FLOAT
    features = (_SPECTRUM_VALUES + 2 * shape.num_mel_bins * _MEL_COPIES) * _FLOAT
    encoding = _ENCODER_WIDTHS * shape.d_model * value.encoder
    audio = _AUDIO_COPIES * 2 * shape.decoder_layers * shape.d_model * value.encoder
    scores = alignment_heads * _TIMED_TOKENS * _FLOAT
    return BatchMemory(
        per_row=tokens + logits,
        # The spectrum is freed before the encoder begins, and the encoder has finished when words are timed.
        per_encoder_frame=max(features, audio + max(encoding, _SCORE_COPIES * scores)),
        once=_MEDIAN_COPIES * scores * shape.max_source_positions,
    )


def batch_limits(free: int, models: Sequence[BatchMemory], rows: int, full_window: int, waste: float) -> BatchLimits:
    """The largest batches that fit into `free` bytes, for any of the models.

    At least one row of the full window, which is the minimum.

    Args:
        free: free memory of the device, in bytes, with the models loaded.
        models: the memory of their batches; at least one.
        rows: the most rows.
        full_window: encoder frames of the longest utterance.
        waste: see `BatchLimits`.
    """
    room = max(0, int(free * _SHARE) - max(model.once for model in models))
    per_row, per_encoder_frame = (
        max(model.per_row for model in models),
        max(model.per_encoder_frame for model in models),
    )
    # At most half is for rows: with more of them there would be no room for their audio.
    rows = max(1, min(rows, room // 2 // per_row))
    encoder_frames = max(full_window, min(rows * full_window, (room - rows * per_row) // per_encoder_frame))
    return BatchLimits(rows=rows, encoder_frames=encoder_frames, waste=waste, partial_rows=max(1, rows // 2))
