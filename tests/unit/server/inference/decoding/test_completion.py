"""An engine with a scripted model whose hypotheses are incomplete."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from server.inference.config import InferenceSettings
from server.inference.decoding.coverage import Stretch
from server.inference.decoding.division import DEPTH
from server.inference.decoding.hypothesis import Hypothesis, UtteranceAudio
from server.inference.recognition import RecognitionOptions
from server.inference.scheduling.engine import Engine

RATE = 16_000
FULL = 1500
TIMESTAMP = 50364


class SpecialTokens:
    first_timestamp = TIMESTAMP

    def supports(self, language: str) -> bool:
        return True


class ScriptedTranscriber:
    """Records the length of each utterance in seconds, and whether the window is full."""

    special_tokens = SpecialTokens()
    full_window = FULL

    def __init__(self, answer: Callable[[UtteranceAudio, int], Hypothesis]) -> None:
        self.calls: list[tuple[float, bool]] = []
        self._answer = answer

    def transcribe(self, utterances: Sequence[UtteranceAudio], encoder_frames: int) -> list[Hypothesis]:
        self.calls += [(len(each.samples) / RATE, encoder_frames == FULL) for each in utterances]
        return [self._answer(each, encoder_frames) for each in utterances]


def hypothesis_of(text: str, seconds: float, **changes: object) -> Hypothesis:
    tokens = tuple(range(len(text)))
    plain = Hypothesis(text, tokens, (-0.1,) * len(tokens), "en", None, "closed", 0.0, seconds=seconds)
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture
def engine_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[ScriptedTranscriber], Engine]:
    def engine(transcriber: ScriptedTranscriber) -> Engine:
        engine = Engine(InferenceSettings(models={"fast": "base"}, beams={"fast": 1}, spare_beams=1))

        def load(of: Engine) -> dict[str, object]:
            of._transcribers = {"base": transcriber}  # type: ignore[dict-item]
            return {"base": transcriber}

        monkeypatch.setattr(Engine, "_load", load)
        return engine

    return engine


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)


EngineWith = Callable[[ScriptedTranscriber], Engine]


async def test_a_hypothesis_incomplete_with_the_full_window_is_divided(engine_with: EngineWith) -> None:
    def answer(utterance: UtteranceAudio, _: int) -> Hypothesis:
        seconds = len(utterance.samples) / RATE
        if seconds == 20:
            return hypothesis_of("the end of the speech", 20, uncovered=Stretch(1, 15))
        return hypothesis_of("a half of everything that is spoken", seconds)

    model = ScriptedTranscriber(answer)
    async with engine_with(model) as engine:
        recognition = await engine.recognize("fast", noise(20), "en")
    assert recognition.text == "a half of everything that is spoken a half of everything that is spoken"
    assert recognition.suppressed is None
    assert model.calls[:2] == [(20, False), (20, True)]
    assert sum(seconds for seconds, _ in model.calls[2:]) == pytest.approx(20)


async def test_the_number_of_attempts_is_bounded(engine_with: EngineWith) -> None:
    def never_through(utterance: UtteranceAudio, _: int) -> Hypothesis:
        seconds = len(utterance.samples) / RATE
        return hypothesis_of("words", seconds, uncovered=Stretch(1, seconds - 1))

    model = ScriptedTranscriber(never_through)
    async with engine_with(model) as engine:
        recognition = await engine.recognize("fast", noise(28), "en")
    assert recognition.text
    assert len(model.calls) <= 2 * (1 + 2 + 4)
    assert DEPTH == 2


async def test_a_failure_on_a_part_keeps_the_text_of_the_whole(engine_with: EngineWith) -> None:
    def answer(utterance: UtteranceAudio, _: int) -> Hypothesis:
        if len(utterance.samples) < 20 * RATE:
            raise RuntimeError("broken")
        return hypothesis_of("some of it", 20, uncovered=Stretch(1, 15))

    async with engine_with(ScriptedTranscriber(answer)) as engine:
        assert (await engine.recognize("fast", noise(20), "en")).text == "some of it"


async def test_a_partial_is_neither_repeated_nor_divided(engine_with: EngineWith) -> None:
    model = ScriptedTranscriber(lambda *_: hypothesis_of("some of it", 20, uncovered=Stretch(1, 15)))
    async with engine_with(model) as engine:
        await engine.recognize_partial("fast", noise(20), "en", session=1)
    assert model.calls == [(20, False)]


async def test_speech_without_text_is_reported_as_empty(engine_with: EngineWith) -> None:
    nothing = hypothesis_of("", 2.0)
    model = ScriptedTranscriber(lambda *_: nothing)
    async with engine_with(model) as engine:
        recognition = await engine.recognize("fast", noise(2), "en")
    assert (recognition.text, recognition.suppressed) == ("", "empty")
    assert model.calls == [(2, False), (2, True)]


async def test_all_audio_of_a_final_counts_as_speech_by_default(engine_with: EngineWith) -> None:
    calls: list[object] = []

    def answer(utterance: UtteranceAudio, _: int) -> Hypothesis:
        calls.append(utterance.options.speech)
        return hypothesis_of("words and more words", 2.0)

    known = RecognitionOptions(speech=((0.5, 1.0),))
    async with engine_with(ScriptedTranscriber(answer)) as engine:
        await engine.recognize("fast", noise(2), "en")
        await engine.recognize("fast", noise(2), "en", known)
        await engine.recognize_partial("fast", noise(2), "en", session=1)
    assert calls == [((0.0, 2.0),), ((0.5, 1.0),), None]


async def test_an_accepted_partial_is_sent_although_a_final_would_be_repeated(
    engine_with: EngineWith,
) -> None:
    model = ScriptedTranscriber(
        lambda *_: hypothesis_of("a few words", 1.0, no_speech_probability=0.6, log_probabilities=(-0.4,))
    )
    async with engine_with(model) as engine:
        partial = await engine.recognize_partial("fast", noise(1), "en", session=1)
        await engine.recognize("fast", noise(1), "en")
    assert partial
    assert partial.text == "a few words"
    assert model.calls == [(1, False), (1, False), (1, True)]


async def test_repeated_attempts_are_counted_in_the_effort(engine_with: EngineWith) -> None:
    """A session is charged by its effort."""
    model = ScriptedTranscriber(
        lambda utterance, _: hypothesis_of("a word that is accepted", len(utterance.samples) / RATE)
    )
    async with engine_with(model) as engine:
        assert (await engine.recognize("fast", noise(2), "en")).effort == 1
    model = ScriptedTranscriber(
        lambda utterance, _: hypothesis_of("", len(utterance.samples) / RATE, no_speech_probability=0.9)
    )
    async with engine_with(model) as engine:
        assert (await engine.recognize("fast", noise(2), "en")).effort == 1 + 4
    assert model.calls == [(2.0, False), (2.0, True)]
