"""Passages with a scripted model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from server.inference.decoding.coverage import Stretch
from server.inference.decoding.hypothesis import Hypothesis, UtteranceAudio
from server.inference.decoding.transcriber import EncodedBatch
from server.inference.recognition import Word
from worker.whole_file.candidates import best
from worker.whole_file.plan import Passage, Plan
from worker.whole_file.recognition import PassageRecognition, surrounding_texts
from worker.whole_file.segmentation import SpokenSegment

RATE = 16_000
FULL = 1500


class SpecialTokens:
    first_timestamp = 50364


class ScriptedModel:
    """Records the utterances, and whether the window is full."""

    special_tokens = SpecialTokens()
    full_window = FULL

    def __init__(
        self,
        answer: Callable[[float, bool], Hypothesis],
        after: Callable[[Hypothesis], Hypothesis] = lambda hypothesis: hypothesis,
    ) -> None:
        self.previous: dict[float, str] = {}
        """The text that each utterance was decoded after, by its seconds."""
        self._after = after
        self.calls: list[tuple[float, bool]] = []
        self.audio: list[UtteranceAudio] = []
        self._answer = answer

    def encode(self, utterances: Sequence[UtteranceAudio], encoder_frames: int) -> EncodedBatch:
        return EncodedBatch(tuple(utterances), encoder_frames == FULL, None)  # type: ignore[arg-type]

    def decode(self, batch: EncodedBatch) -> list[Hypothesis]:
        return self.transcribe(batch.utterances, FULL if batch.full else FULL // 2)

    def decode_after(
        self, batch: EncodedBatch, hypotheses: Sequence[Hypothesis], previous: Mapping[int, str]
    ) -> dict[int, Hypothesis]:
        for row, text in previous.items():
            self.previous[len(batch.utterances[row].samples) / RATE] = text
        return {row: self._after(hypotheses[row]) for row in previous}

    def transcribe(self, utterances: Sequence[UtteranceAudio], encoder_frames: int) -> list[Hypothesis]:
        calls = [(len(each.samples) / RATE, encoder_frames == FULL) for each in utterances]
        self.calls += calls
        self.audio += utterances
        return [self._answer(*call) for call in calls]


def hypothesis_of(text: str, seconds: float, probability: float = -0.1, **changes: object) -> Hypothesis:
    tokens = tuple(range(len(text)))
    plain = Hypothesis(text, tokens, (probability,) * len(tokens), "en", None, "closed", 0.0, seconds=seconds)
    return replace(plain, **changes)  # type: ignore[arg-type]


def passage_of(*seconds: float, start: float = 0.0) -> Passage:
    segments, position = [], int(start * RATE)
    for each in seconds:
        end = position + int(each * RATE)
        segments.append(SpokenSegment(position, end, ((position, end),)))
        position = end
    return Passage(tuple(segments))


def plan_of(passage: Passage, *, is_certain: bool = True) -> Plan:
    return Plan(passage.end, "en", 0.9, is_certain, (passage,))


def noise(passage: Passage) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, passage.end - passage.start).astype(np.float32)


def test_utterances_have_the_times_of_the_recording_and_the_order_of_their_segments() -> None:
    def answer(seconds: float, _: bool) -> Hypothesis:
        word = Word("word", 0.5, 1.0, 0.9)
        return hypothesis_of(f"an utterance of {seconds:g} seconds", seconds, words=(word,))

    passage = passage_of(2, 9, 4, start=100)
    found = PassageRecognition(ScriptedModel(answer)).recognize(plan_of(passage), passage, noise(passage))
    assert [(each.start, each.end) for each in found] == [(100, 102), (102, 111), (111, 115)]
    assert [each.text for each in found] == [f"an utterance of {n} seconds" for n in (2, 9, 4)]
    assert [each.words[0].start for each in found] == [100.5, 102.5, 111.5]


def test_a_defect_is_a_reason_for_the_full_window_and_the_better_attempt_is_taken() -> None:
    def answer(seconds: float, full: bool) -> Hypothesis:
        if full:
            return hypothesis_of("half", seconds, -0.2)
        return hypothesis_of(
            "all the words that are spoken in this utterance",
            seconds,
            -0.1,
            no_speech_probability=0.6,
            log_probabilities=(-0.3,) * 47,
        )

    model = ScriptedModel(answer)
    passage = passage_of(4)
    (found,) = PassageRecognition(model).recognize(plan_of(passage), passage, noise(passage))
    assert model.calls == [(4, False), (4, True)]
    # Both have a defect: the more probable one is taken, although it is not the last one.
    assert found.text == "half"


def test_of_two_attempts_with_a_defect_the_more_probable_text_is_taken() -> None:
    first = hypothesis_of("all of the words", 20, -0.13)
    second = hypothesis_of("last words", 20, -0.2)
    assert first.failing == second.failing == "sparse"
    assert best([second, first]) == first
    assert best([first, hypothesis_of("a text long enough for its twenty seconds", 20, -0.5)]).text.startswith("a text")


def test_a_suppressed_text_is_not_an_utterance() -> None:
    model = ScriptedModel(lambda seconds, _: hypothesis_of("you", seconds, -2.0))
    passage = passage_of(2)
    assert PassageRecognition(model).recognize(plan_of(passage), passage, noise(passage)) == []


def test_speech_without_words_is_divided_until_the_parts_are_short() -> None:
    def answer(seconds: float, _: bool) -> Hypothesis:
        if seconds > 5:
            return hypothesis_of("the end", seconds, uncovered=Stretch(0.5, seconds - 1))
        return hypothesis_of("a part of everything that is spoken", seconds)

    model = ScriptedModel(answer)
    passage = passage_of(24)
    (found,) = PassageRecognition(model).recognize(plan_of(passage), passage, noise(passage))
    assert found.text.count("a part of everything that is spoken") >= 4
    assert min(seconds for seconds, _ in model.calls) >= 0.3 * 5


def test_a_certain_language_is_fixed_and_another_one_only_expected() -> None:
    passage = passage_of(2)
    for is_certain, expected in ((True, ("en", None)), (False, (None, "en"))):
        model = ScriptedModel(lambda seconds, _: hypothesis_of("hello there, everyone", seconds))
        plan = plan_of(passage, is_certain=is_certain)
        PassageRecognition(model, ("Dashwood",)).recognize(plan, passage, noise(passage))
        (audio,) = model.audio
        assert (audio.language, audio.options.expected_language) == expected
        assert audio.options.bias_terms == ("Dashwood",)
        assert audio.options.words
        assert audio.options.speech == ((0.0, 2.0),)


def test_a_doubtful_segment_is_decoded_again_after_the_text_around_it() -> None:
    def answer(seconds: float, _: bool) -> Hypothesis:
        return hypothesis_of(f"a text of {seconds:g} seconds", seconds, -0.4 if seconds == 4 else -0.1)

    def after(hypothesis: Hypothesis) -> Hypothesis:
        return replace(hypothesis, text="a better one", log_probabilities=(-0.1,) * len(hypothesis.tokens))

    model = ScriptedModel(answer, after)
    passage = passage_of(2, 3, 4, 5)
    found = PassageRecognition(model).recognize(plan_of(passage), passage, noise(passage))
    assert model.previous == {4: "a text of 5 seconds a text of 2 seconds a text of 3 seconds"}
    assert [each.text for each in found] == [
        "a text of 2 seconds",
        "a text of 3 seconds",
        "a better one",
        "a text of 5 seconds",
    ]


def test_a_segment_keeps_its_first_text_if_the_second_is_less_probable_leaves_words_out_or_repeats_them() -> None:
    def answer(seconds: float, _: bool) -> Hypothesis:
        return hypothesis_of("all of the words", seconds, -0.4 if seconds == 4 else -0.1)

    passage = passage_of(2, 4)
    texts = {"of all the words": -0.5, "words": -0.1, "all of the words all of the words": -0.1}
    for worse in (hypothesis_of(text, 4, probability) for text, probability in texts.items()):
        model = ScriptedModel(answer, lambda _, worse=worse: worse)  # type: ignore[misc]
        found = PassageRecognition(model).recognize(plan_of(passage), passage, noise(passage))
        assert set(model.previous) == {4}
        assert [each.text for each in found] == ["all of the words"] * 2


def test_no_text_with_a_defect_or_beyond_a_long_silence_is_around_a_segment() -> None:
    def doubtful(text: str, **changes: object) -> Hypothesis:
        return hypothesis_of(text, 2, -0.3, **changes)

    segments = [SpokenSegment(start * RATE, (start + 2) * RATE) for start in (0, 2, 4, 20, 22)]
    hypotheses = [doubtful(text) for text in ("one", "two", "three", "four", "five")]
    hypotheses[1] = replace(hypotheses[1], ending="loop")
    assert surrounding_texts(segments, hypotheses) == {0: "three", 2: "one", 3: "five", 4: "four"}
