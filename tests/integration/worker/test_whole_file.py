"""Whole recordings with the offline weights."""

import json
from pathlib import Path

import jiwer
import numpy as np
import pytest
import soundfile

from domain.job import JobRequest
from server.audio.decoder import Samples
from server.inference.config import InferenceSettings
from worker.whole_file.recognizer import WholeFileRecognizer

SAMPLE = Path(__file__).parents[3] / "samples" / "sense-and-sensibility"
RATE = 16_000
REQUEST = JobRequest()


class Recording:
    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    @property
    def length(self) -> int:
        return len(self._samples)

    def read(self, first: int, last: int) -> Samples:
        return self._samples[first:last]


@pytest.fixture(scope="module")
def recognizer() -> WholeFileRecognizer:
    return WholeFileRecognizer.load(InferenceSettings(models={"fast": "base", "accurate": "base"}, device="cpu"))


@pytest.fixture(scope="module")
def recording() -> Recording:
    samples, rate = soundfile.read(SAMPLE.with_suffix(".flac"), dtype="float32")
    assert rate == RATE
    # Twice, with half a minute of silence between: two passages.
    return Recording(np.concatenate([samples, np.zeros(35 * RATE, np.float32), samples]))


def words(text: str) -> list[str]:
    return "".join(each for each in text.casefold() if each.isalpha() or each.isspace()).split()


def test_a_recording_is_transcribed_with_its_language_and_timed_words(
    recognizer: WholeFileRecognizer, recording: Recording
) -> None:
    plan = recognizer.listen(REQUEST, recording)
    assert (plan.language, plan.is_language_certain) == ("en", True)
    assert len(plan.passages) > 1
    found = [recognizer.recognize(REQUEST, plan, index, recording) for index in range(len(plan.passages))]
    utterances = [utterance for passage in found for utterance in passage]
    expected = words(SAMPLE.with_suffix(".txt").read_text()) * 2
    assert jiwer.wer(" ".join(expected), " ".join(words(" ".join(each.text for each in utterances)))) < 0.1
    assert [each.start for each in utterances] == sorted(each.start for each in utterances)
    for utterance in utterances:
        assert [word.word for word in utterance.words] == utterance.text.split()
        assert all(utterance.start <= word.start <= word.end <= utterance.end for word in utterance.words)
    assert recognizer.judge(plan, utterances, utterances, "en").outcome == "accepted"
    assert recognizer.judge(plan, utterances[:1], utterances, "en").defect == "few_words"


def test_a_passage_is_the_same_whatever_was_transcribed_before(
    recognizer: WholeFileRecognizer, recording: Recording
) -> None:
    plan = recognizer.listen(REQUEST, recording)
    last = len(plan.passages) - 1
    first_lines = [each.to_line() for each in recognizer.recognize(REQUEST, plan, last, recording)]
    recognizer.recognize(JobRequest(model="fast", vocabulary=("Dashwood",)), plan, 0, recording)
    stored = recognizer.plan_of(json.loads(json.dumps(plan.to_json())))
    successor = WholeFileRecognizer.load(InferenceSettings(models={"accurate": "base"}, device="cpu"))
    assert [each.to_line() for each in recognizer.recognize(REQUEST, stored, last, recording)] == first_lines
    assert [each.to_line() for each in successor.recognize(REQUEST, stored, last, recording)] == first_lines


def test_silence_has_a_plan_without_passages(recognizer: WholeFileRecognizer) -> None:
    plan = recognizer.listen(REQUEST, Recording(np.zeros(3 * RATE, np.float32)))
    assert plan.passages == ()
    assert not plan.is_language_certain


def test_a_model_or_language_that_does_not_exist_is_refused(recognizer: WholeFileRecognizer) -> None:
    silence = Recording(np.zeros(RATE, np.float32))
    for request in (JobRequest(model="best"), JobRequest(language="tlh")):
        with pytest.raises(ValueError, match="does not"):
            recognizer.listen(request, silence)
