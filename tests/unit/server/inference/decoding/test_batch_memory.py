from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.inference.decoding.batch_memory import BatchMemory, ValueBytes, batch_limits, batch_memory
from server.inference.whisper.checkpoint import WhisperShape

GIB = 2**30
HALF = ValueBytes(encoder=2, decoder=2)
LARGE = WhisperShape(
    vocab_size=51866,
    d_model=1280,
    num_mel_bins=128,
    encoder_layers=32,
    decoder_layers=32,
    encoder_attention_heads=20,
    decoder_attention_heads=20,
    max_source_positions=1500,
    max_target_positions=448,
)
TURBO = LARGE.model_copy(update={"decoder_layers": 4})
GREEDY = batch_memory(LARGE, alignment_heads=2, beams=1, value=HALF)
WITH_BEAMS = batch_memory(LARGE, alignment_heads=2, beams=5, value=HALF)


def test_a_row_holds_its_keys_and_values_twice_per_beam() -> None:
    keys_and_values = 448 * 2 * 32 * 1280 * 2
    assert GREEDY.per_row >= 3 * keys_and_values
    assert WITH_BEAMS.per_row >= 11 * keys_and_values


def test_beams_share_the_audio() -> None:
    assert WITH_BEAMS.per_encoder_frame == GREEDY.per_encoder_frame


def test_an_encoder_frame_holds_keys_and_values_of_every_decoder_layer() -> None:
    turbo = batch_memory(TURBO, alignment_heads=2, beams=1, value=HALF)
    assert GREEDY.per_encoder_frame - turbo.per_encoder_frame == 2 * 28 * 2 * 1280 * 2
    assert turbo.per_row < GREEDY.per_row / 4


def test_numbers_of_twice_the_size_take_twice_the_memory() -> None:
    single = batch_memory(LARGE, alignment_heads=2, beams=1, value=ValueBytes(encoder=4, decoder=4))
    assert single.per_encoder_frame == pytest.approx(2 * GREEDY.per_encoder_frame, rel=0.02)


def test_a_large_device_allows_all_rows_with_the_full_window() -> None:
    limits = batch_limits(75 * GIB, [WITH_BEAMS], rows=32, full_window=1500, waste=0.5)
    assert (limits.rows, limits.encoder_frames, limits.partial_rows, limits.waste) == (32, 32 * 1500, 16, 0.5)


def test_less_memory_makes_smaller_batches() -> None:
    limits = batch_limits(12 * GIB, [WITH_BEAMS], rows=32, full_window=1500, waste=0.5)
    assert 1 < limits.rows < 32
    assert 1500 <= limits.encoder_frames < 32 * 1500


def test_the_model_with_the_most_memory_determines_the_limits() -> None:
    both = batch_limits(12 * GIB, [GREEDY, WITH_BEAMS], rows=32, full_window=1500, waste=0.5)
    assert both == batch_limits(12 * GIB, [WITH_BEAMS], rows=32, full_window=1500, waste=0.5)


def test_without_free_memory_one_full_window_is_allowed() -> None:
    limits = batch_limits(0, [WITH_BEAMS], rows=32, full_window=1500, waste=0.5)
    assert (limits.rows, limits.encoder_frames, limits.partial_rows) == (1, 1500, 1)


@given(free=st.integers(0, 200 * GIB), rows=st.integers(1, 256), beams=st.integers(1, 10))
def test_a_batch_within_the_limits_fits(free: int, rows: int, beams: int) -> None:
    memory = batch_memory(LARGE, alignment_heads=20, beams=beams, value=HALF)
    limits = batch_limits(free, [memory], rows, full_window=1500, waste=0.5)
    taken = memory.once + limits.rows * memory.per_row + limits.encoder_frames * memory.per_encoder_frame
    assert 1 <= limits.rows <= rows
    assert taken <= free or limits.encoder_frames == 1500


def test_a_model_without_memory_is_limited_by_rows_alone() -> None:
    small = replace(GREEDY, per_row=1, per_encoder_frame=1, once=0)
    assert batch_limits(GIB, [small], rows=8, full_window=1500, waste=0.5).encoder_frames == 8 * 1500
    assert isinstance(small, BatchMemory)
