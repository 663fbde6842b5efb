from itertools import pairwise, product

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from server.session.options import VadOptions
from server.session.segmenter import Segmenter, SegmenterEvent, SpeechEnd, SpeechSegment, SpeechStart
from server.vad.silero import WINDOW_SAMPLES, Window

PAD = 3200


def windows(seconds: float) -> int:
    return round(seconds * 16_000 / WINDOW_SAMPLES)


def run(segmenter: Segmenter, pattern: list[tuple[float, float]], power: float = 0.01) -> list[SegmenterEvent]:
    """Feeds stretches of (seconds, probability). Returns the events."""
    events: list[SegmenterEvent] = []
    for seconds, probability in pattern:
        for _ in range(windows(seconds)):
            events += segmenter.push(Window(probability, power))
    return events


def test_speech_between_silences_is_one_utterance_with_its_margins() -> None:
    events = run(Segmenter(VadOptions()), [(1, 0.0), (1, 0.9), (1, 0.0)])
    start, end = windows(1) * WINDOW_SAMPLES - PAD, windows(1) * 2 * WINDOW_SAMPLES + PAD
    assert events == [SpeechStart(start), SpeechEnd(end), SpeechSegment(start, end)]


def test_sound_shorter_than_the_minimum_is_noise() -> None:
    assert run(Segmenter(VadOptions(min_speech_ms=250)), [(0.5, 0.0), (0.2, 0.9), (1, 0.0)]) == []


def test_a_pause_shorter_than_the_minimum_does_not_split() -> None:
    events = run(Segmenter(VadOptions()), [(1, 0.9), (0.4, 0.0), (1, 0.9), (1, 0.0)])
    assert len([s for s in events if isinstance(s, SpeechSegment)]) == 1


def test_a_pause_longer_than_the_minimum_splits() -> None:
    events = run(Segmenter(VadOptions(min_silence_ms=300)), [(1, 0.9), (0.4, 0.0), (1, 0.9), (1, 0.0)])
    assert len([s for s in events if isinstance(s, SpeechSegment)]) == 2


def test_speech_wavering_just_below_the_threshold_continues() -> None:
    events = run(Segmenter(VadOptions()), [(1, 0.9), (0.8, 0.4), (1, 0.9), (1, 0.0)])
    assert len([s for s in events if isinstance(s, SpeechSegment)]) == 1


def test_long_speech_is_cut_at_its_quiet_point() -> None:
    segmenter = Segmenter(VadOptions(max_utterance_seconds=10))
    events = run(segmenter, [(8, 0.9)])
    events += run(segmenter, [(0.2, 0.9)], power=0.0001)
    events += run(segmenter, [(4, 0.9), (1, 0.0)])
    first, second = (s for s in events if isinstance(s, SpeechSegment))
    assert 8.0 <= first.end / 16_000 <= 8.2
    assert second.start == first.end
    assert sum(isinstance(s, SpeechStart) for s in events) == 1


def test_silence_after_a_cut_is_no_segment() -> None:
    segmenter = Segmenter(VadOptions(max_utterance_seconds=2, min_silence_ms=2000))
    events = run(segmenter, [(1, 0.9)])
    events += run(segmenter, [(3, 0.0)], power=0.0)
    assert [type(s) for s in events] == [SpeechStart, SpeechSegment, SpeechEnd]


def test_flush_ends_the_utterance_where_the_audio_ends() -> None:
    segmenter = Segmenter(VadOptions())
    run(segmenter, [(1, 0.9)])
    received = windows(1) * WINDOW_SAMPLES + 100
    assert segmenter.flush(received) == [SpeechEnd(received), SpeechSegment(0, received)]
    assert segmenter.flush(received) == []


def test_flush_does_not_cut_unconfirmed_speech() -> None:
    segmenter = Segmenter(VadOptions())
    run(segmenter, [(1, 0.0), (0.2, 0.9)])
    assert segmenter.flush(windows(1.2) * WINDOW_SAMPLES) == []
    events = run(segmenter, [(1, 0.9), (1, 0.0)])
    assert events[0] == SpeechStart(windows(1) * WINDOW_SAMPLES - PAD)


def test_the_shortest_speech_and_the_longest_utterance_are_both_honoured() -> None:
    segmenter = Segmenter(VadOptions(min_speech_ms=1000, max_utterance_seconds=1.1))
    events = run(segmenter, [(1, 0.0), (3, 0.9), (1, 0.0)])
    segments = [s for s in events if isinstance(s, SpeechSegment)]
    assert all(s.end - s.start <= 1.1 * 16_000 for s in segments)
    assert segments[0].start <= 16_000
    assert segments[-1].end >= 4 * 16_000
    assert all(one.end == other.start for one, other in pairwise(segments))
    assert sum(isinstance(s, SpeechStart) for s in events) == 1
    assert run(segmenter, [(0.9, 0.9), (1, 0.0)]) == [], "shorter speech is noise"


@pytest.mark.parametrize("min_silence", [50, 500, 2000])
@pytest.mark.parametrize(
    ("min_speech", "longest"),
    [pair for pair in product([50, 250, 900, 1500, 2000], [1.0, 1.1, 2.1, 28.0]) if pair[0] < pair[1] * 1000],
)
def test_no_combination_of_parameters_loses_speech(min_speech: int, longest: float, min_silence: int) -> None:
    """Words of 0.4 s with a window between them, twice 4 s of them."""
    segmenter = Segmenter(VadOptions(0.89, min_speech, min_silence, longest))
    words = [(0.4, 0.9), (0.032, 0.0)] * 10
    segments = [s for s in run(segmenter, [*words, (3, 0.0), *words, (3, 0.0)]) if isinstance(s, SpeechSegment)]
    spoken = sum(windows(seconds) for seconds, _ in words) * WINDOW_SAMPLES
    for start in (0, spoken + windows(3) * WINDOW_SAMPLES):
        covered = sum(max(0, min(s.end, start + spoken) - max(s.start, start)) for s in segments)
        assert covered >= 0.8 * spoken


def test_speech_confirmed_late_is_cut_within_the_longest_utterance() -> None:
    """A pause lies where the longest utterance would end, before there is enough speech to confirm it."""
    options = VadOptions(min_speech_ms=1500, min_silence_ms=2000, max_utterance_seconds=1.6)
    events = run(Segmenter(options), [(1.2, 0.9), (1.5, 0.0), (1, 0.9), (3, 0.0)])
    segments = [s for s in events if isinstance(s, SpeechSegment)]
    assert segments[0].start == 0
    assert all(s.end - s.start <= 1.6 * 16_000 for s in segments)
    assert segments[-1].end >= 3.6 * 16_000


def test_without_more_audio_speech_ends_where_silence_would_end_it() -> None:
    segmenter = Segmenter(VadOptions())
    run(segmenter, [(1, 0.9), (0.4, 0.0)])
    received = windows(1.4) * WINDOW_SAMPLES + 100
    end = windows(1) * WINDOW_SAMPLES + PAD
    assert segmenter.end(received) == [SpeechEnd(end), SpeechSegment(0, end)]
    assert segmenter.end(received) == []
    assert segmenter.needed_from <= received


def test_without_more_audio_speech_ends_with_the_audio_at_most() -> None:
    segmenter = Segmenter(VadOptions())
    run(segmenter, [(1, 0.9)])
    received = windows(1) * WINDOW_SAMPLES + 100
    assert segmenter.end(received) == [SpeechEnd(received), SpeechSegment(0, received)]
    events = run(segmenter, [(1, 0.9), (1, 0.0)])
    assert events[0] == SpeechStart(received)


def test_without_more_audio_unconfirmed_speech_continues() -> None:
    segmenter = Segmenter(VadOptions())
    run(segmenter, [(1, 0.0), (0.2, 0.9)])
    assert segmenter.end(windows(1.2) * WINDOW_SAMPLES) == []
    events = run(segmenter, [(1, 0.9), (1, 0.0)])
    assert events[0] == SpeechStart(windows(1) * WINDOW_SAMPLES - PAD)


def test_noise_is_no_segment_whatever_the_required_silence() -> None:
    segmenter = Segmenter(VadOptions(min_speech_ms=900, min_silence_ms=2000, max_utterance_seconds=1))
    assert run(segmenter, [(0.3, 0.9), (4, 0.0)]) == []


def test_flush_in_silence_does_nothing() -> None:
    segmenter = Segmenter(VadOptions())
    run(segmenter, [(1, 0.0)])
    assert segmenter.flush(16_000) == []


probabilities = st.lists(st.tuples(st.floats(0.05, 3), st.floats(0, 1)), max_size=30)


@given(
    probabilities,
    st.floats(0.05, 0.95),
    st.integers(50, 2000),
    st.integers(50, 2000),
    st.floats(1, 28),
)
def test_utterances_are_in_order_apart_and_bounded(
    pattern: list[tuple[float, float]], threshold: float, min_speech: int, min_silence: int, longest: float
) -> None:
    assume(longest * 1000 > min_speech)
    segmenter = Segmenter(VadOptions(threshold, min_speech, min_silence, longest))
    total = sum(windows(seconds) for seconds, _ in pattern) * WINDOW_SAMPLES
    events = run(segmenter, pattern) + segmenter.flush(total)
    segments = [s for s in events if isinstance(s, SpeechSegment)]
    position = 0
    for segment in segments:
        assert position <= segment.start < segment.end <= total
        assert segment.end - segment.start <= longest * 16_000
        position = segment.end
    boundaries = [s for s in events if not isinstance(s, SpeechSegment)]
    assert [type(s) for s in boundaries] == [SpeechStart, SpeechEnd] * (len(boundaries) // 2)
    assert [s.position for s in boundaries] == sorted(s.position for s in boundaries)


@given(probabilities)
def test_audio_that_may_still_be_needed_is_never_discarded(pattern: list[tuple[float, float]]) -> None:
    segmenter = Segmenter(VadOptions())
    kept = 0
    for seconds, probability in pattern:
        for _ in range(windows(seconds)):
            for segment in segmenter.push(Window(probability, 0.01)):
                if isinstance(segment, SpeechSegment):
                    assert segment.start >= kept
            assert segmenter.needed_from >= kept
            kept = segmenter.needed_from


def spans(segment: SpeechSegment) -> list[tuple[float, float]]:
    return [(round(start / 16_000, 1), round(end / 16_000, 1)) for start, end in segment.speech]


def test_a_segment_has_the_stretches_of_detected_speech() -> None:
    events = run(Segmenter(VadOptions()), [(1, 0.0), (1, 0.9), (0.4, 0.0), (1, 0.9), (1, 0.0)])
    (segment,) = (s for s in events if isinstance(s, SpeechSegment))
    assert spans(segment) == [(0.2, 1.2), (1.6, 2.6)]


def test_segments_around_a_cut_have_their_own_detected_speech() -> None:
    segmenter = Segmenter(VadOptions(max_utterance_seconds=5))
    events = run(segmenter, [(4.2, 0.9)]) + run(segmenter, [(0.2, 0.9)], power=0.0001)
    events += run(segmenter, [(2, 0.9), (2, 0.0), (1, 0.9), (1, 0.0)])
    first, second, third = (s for s in events if isinstance(s, SpeechSegment))
    assert first.speech == ((0, first.end - first.start),)
    assert second.start == first.end
    assert second.speech[0][0] == 0
    assert round(sum(end - start for start, end in first.speech + second.speech) / 16_000, 1) == 6.4
    assert spans(third) == [(0.2, 1.2)]


def test_noise_that_was_no_segment_is_not_in_the_next() -> None:
    events = run(Segmenter(VadOptions()), [(0.2, 0.9), (1, 0.0), (1, 0.9), (1, 0.0)])
    (segment,) = (s for s in events if isinstance(s, SpeechSegment))
    assert spans(segment) == [(0.2, 1.2)]
