from collections.abc import Mapping

import numpy as np
import pytest

from server.audio.decoder import Samples
from server.vad.silero import SileroVad
from worker.whole_file.listening import LANGUAGE_SAMPLES, READ_SECONDS, detected, language_spans, listen
from worker.whole_file.segmentation import SpokenSegment

RATE = 16_000


class Recording:
    """Audio that records how much of it is read at a time."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self.most = 0

    @property
    def length(self) -> int:
        return len(self._samples)

    def read(self, first: int, last: int) -> Samples:
        self.most = max(self.most, last - first)
        return self._samples[first:last]


def chances(**known: float) -> Mapping[str, float]:
    return {"en": 0.01, "fr": 0.01, "es": 0.01, **known}


def spoken(seconds: float, count: int) -> list[SpokenSegment]:
    length = int(seconds * RATE)
    return [SpokenSegment(n * length, (n + 1) * length, ((n * length, (n + 1) * length),)) for n in range(count)]


def test_the_language_has_the_highest_sum_of_log_probabilities() -> None:
    found = detected([chances(fr=0.9), chances(en=0.5, fr=0.45), chances(fr=0.9)])
    assert found.language == "fr"
    assert not found.is_certain, "two of three agree"


def test_a_language_is_certain_if_nearly_all_samples_agree() -> None:
    assert detected([chances(fr=0.9)] * 19 + [chances(en=0.9)]).is_certain
    assert not detected([chances(fr=0.9)] * 18 + [chances(en=0.9)] * 2).is_certain
    assert 0.9 < detected([chances(fr=0.9)] * 3).probability < 1


def test_without_speech_no_language_is_certain() -> None:
    assert not detected([]).is_certain


@pytest.mark.parametrize(("segments", "samples"), [(0, 0), (1, 1), (10, 3), (60, 10), (1000, LANGUAGE_SAMPLES)])
def test_language_is_detected_from_segments_of_the_whole_recording(segments: int, samples: int) -> None:
    spans = language_spans(spoken(5.0, segments))
    assert len(spans) == samples
    if segments >= 60:
        assert spans[0][0] < segments * 5 * RATE / samples
        assert spans[-1][0] >= segments * 5 * RATE * (samples - 1) / samples - 1


def test_a_requested_language_is_not_detected() -> None:
    def never(_: Samples) -> Mapping[str, float]:
        raise AssertionError

    plan = listen(Recording(np.zeros(RATE, np.float32)), SileroVad(), never, "de")
    assert (plan.language, plan.language_probability, plan.is_language_certain) == ("de", 1.0, True)
    assert (plan.samples, plan.passages) == (RATE, ())


def test_a_recording_is_read_piece_by_piece() -> None:
    recording = Recording(np.zeros(95 * RATE + 7, np.float32))
    plan = listen(recording, SileroVad(), lambda _: {})
    assert plan.samples == recording.length
    assert recording.most <= READ_SECONDS * RATE
