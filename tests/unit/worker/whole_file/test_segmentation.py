import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from server.vad.silero import WINDOW_SAMPLES
from worker.whole_file.segmentation import SegmentationOptions, SpokenSegment, segments

RATE = 16_000
PAD = RATE // 5
Windows = NDArray[np.float32]


def windows(*stretches: tuple[float, float]) -> Windows:
    """Windows with these probabilities, each for so many seconds."""
    return np.concatenate([np.full(round(seconds * RATE / WINDOW_SAMPLES), p, np.float32) for p, seconds in stretches])


def cut(probabilities: Windows, powers: Windows | None = None) -> list[SpokenSegment]:
    loud = np.full(len(probabilities), 0.01, np.float32) if powers is None else powers
    return segments(probabilities, loud, len(probabilities) * WINDOW_SAMPLES)


def test_a_recording_without_speech_has_no_segments() -> None:
    assert cut(windows((0.0, 100))) == []
    assert cut(np.zeros(0, np.float32)) == []


def test_a_segment_has_a_margin_on_both_sides() -> None:
    (segment,) = cut(windows((0, 1.024), (0.9, 2.048), (0, 1.024)))
    (speech,) = segment.speech
    assert (segment.start, segment.end) == (speech[0] - PAD, speech[1] + PAD)


def test_speech_is_divided_at_half_a_second_of_silence_and_not_before() -> None:
    assert len(cut(windows((0.9, 1), (0, 0.4), (0.9, 1)))) == 1
    assert len(cut(windows((0.9, 1), (0, 0.6), (0.9, 1)))) == 2


def test_a_click_is_no_speech() -> None:
    assert cut(windows((0, 1), (0.9, 0.1), (0, 1))) == []


def test_a_long_stretch_is_cut_at_its_quietest_points_with_what_comes_after_known() -> None:
    probabilities = windows((0.9, 60))
    powers = np.full(len(probabilities), 0.01, np.float32)
    # A live stream would cut at 27 s, the quietest point of the first 28 s, and then at a loud one.
    for second, power in ((15, 1e-4), (27, 2e-4), (40, 1e-4)):
        at = int(second * RATE / WINDOW_SAMPLES)
        powers[at - 2 : at + 3] = power
    found = cut(probabilities, powers)
    assert [round(segment.end / RATE) for segment in found[:-1]] == [15, 40]


def test_quiet_speech_is_found_where_there_is_none_otherwise_for_half_a_minute() -> None:
    quiet = ((0.0, 20.0), (0.3, 3.0), (0.0, 20.0))
    assert len(cut(windows((0.9, 5), *quiet))) == 2
    assert len(cut(windows((0.9, 5), (0, 5), (0.3, 3), (0, 5), (0.9, 5)))) == 2, "there is speech nearby"


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.3, 0.6, 0.95]), st.floats(0.1, 70)), max_size=12), st.integers(0, 99))
def test_segments_are_in_order_disjoint_short_enough_and_hold_all_confirmed_speech(
    stretches: list[tuple[float, float]], seed: int
) -> None:
    probabilities = windows((0, 0.1), *stretches)
    powers = np.random.default_rng(seed).random(len(probabilities)).astype(np.float32)
    samples = len(probabilities) * WINDOW_SAMPLES - 100
    found = segments(probabilities, powers, samples)
    longest = SegmentationOptions().longest_seconds * RATE
    position = 0
    for segment in found:
        assert position <= segment.start < segment.end <= samples
        assert segment.end - segment.start <= longest
        position = segment.end
        assert segment.speech
        assert all(segment.start <= start < end <= segment.end for start, end in segment.speech)
    spoken = sum(end - start for segment in found for start, end in segment.speech)
    clear = sum(round(s * RATE / WINDOW_SAMPLES) for p, s in stretches if p >= 0.5 and s >= 0.3) * WINDOW_SAMPLES
    assert spoken >= clear - 100
