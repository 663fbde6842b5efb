"""An engine whose model does what the test says, with utterances that it does not get through."""

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
STAMP = 50364


class SpecialTokens:
    first_stamp = STAMP

    def supports(self, language: str) -> bool:
        return True


class ScriptedTranscriber:
    """Notes the seconds and the window of each utterance."""

    vocabulary = SpecialTokens()
    full_window = FULL

    def __init__(self, answer: Callable[[UtteranceAudio, int], Hypothesis]) -> None:
        self.asked: list[tuple[float, bool]] = []
        self._answer = answer

    def transcribe(self, utterances: Sequence[UtteranceAudio], frames: int) -> list[Hypothesis]:
        self.asked += [(len(each.samples) / RATE, frames == FULL) for each in utterances]
        return [self._answer(each, frames) for each in utterances]


def said(text: str, seconds: float, **changes: object) -> Hypothesis:
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


async def test_what_fails_with_the_full_window_too_is_done_in_parts(engine_with: EngineWith) -> None:
    def answer(utterance: UtteranceAudio, _: int) -> Hypothesis:
        seconds = len(utterance.samples) / RATE
        if seconds == 20:
            return said("the end of what is said", 20, uncovered=Stretch(1, 15))
        return said("a half of everything that is said", seconds)

    model = ScriptedTranscriber(answer)
    async with engine_with(model) as engine:
        heard = await engine.recognize("fast", noise(20), "en")
    assert heard.text == "a half of everything that is said a half of everything that is said"
    assert heard.suppressed is None
    assert model.asked[:2] == [(20, False), (20, True)]
    assert sum(seconds for seconds, _ in model.asked[2:]) == pytest.approx(20)


async def test_the_work_is_bounded_whatever_the_model_does(engine_with: EngineWith) -> None:
    def never_through(utterance: UtteranceAudio, _: int) -> Hypothesis:
        seconds = len(utterance.samples) / RATE
        return said("words", seconds, uncovered=Stretch(1, seconds - 1))

    model = ScriptedTranscriber(never_through)
    async with engine_with(model) as engine:
        heard = await engine.recognize("fast", noise(28), "en")
    assert heard.text
    assert len(model.asked) <= 2 * (1 + 2 + 4)
    assert DEPTH == 2


async def test_a_model_that_breaks_on_a_part_leaves_the_text_of_the_whole(engine_with: EngineWith) -> None:
    def answer(utterance: UtteranceAudio, _: int) -> Hypothesis:
        if len(utterance.samples) < 20 * RATE:
            raise RuntimeError("broken")
        return said("some of it", 20, uncovered=Stretch(1, 15))

    async with engine_with(ScriptedTranscriber(answer)) as engine:
        assert (await engine.recognize("fast", noise(20), "en")).text == "some of it"


async def test_a_partial_is_neither_tried_again_nor_divided(engine_with: EngineWith) -> None:
    model = ScriptedTranscriber(lambda *_: said("some of it", 20, uncovered=Stretch(1, 15)))
    async with engine_with(model) as engine:
        await engine.recognize_partial("fast", noise(20), "en", session=1)
    assert model.asked == [(20, False)]


async def test_speech_without_a_text_says_so(engine_with: EngineWith) -> None:
    nothing = said("", 2.0)
    model = ScriptedTranscriber(lambda *_: nothing)
    async with engine_with(model) as engine:
        heard = await engine.recognize("fast", noise(2), "en")
    assert (heard.text, heard.suppressed) == ("", "empty")
    assert model.asked == [(2, False), (2, True)]


async def test_all_of_a_finals_audio_is_speech_unless_it_is_known_better(engine_with: EngineWith) -> None:
    asked: list[object] = []

    def answer(utterance: UtteranceAudio, _: int) -> Hypothesis:
        asked.append(utterance.options.speech)
        return said("words and more words", 2.0)

    known = RecognitionOptions(speech=((0.5, 1.0),))
    async with engine_with(ScriptedTranscriber(answer)) as engine:
        await engine.recognize("fast", noise(2), "en")
        await engine.recognize("fast", noise(2), "en", known)
        await engine.recognize_partial("fast", noise(2), "en", session=1)
    assert asked == [((0.0, 2.0),), ((0.5, 1.0),), None]


async def test_a_partial_that_is_believed_is_told_although_a_final_would_be_tried_again(
    engine_with: EngineWith,
) -> None:
    model = ScriptedTranscriber(
        lambda *_: said("a few words", 1.0, no_speech_probability=0.6, log_probabilities=(-0.4,))
    )
    async with engine_with(model) as engine:
        partial = await engine.recognize_partial("fast", noise(1), "en", session=1)
        await engine.recognize("fast", noise(1), "en")
    assert partial
    assert partial.text == "a few words"
    assert model.asked == [(1, False), (1, False), (1, True)]


async def test_what_is_done_again_says_what_it_cost(engine_with: EngineWith) -> None:
    """By that a session is charged for it."""
    model = ScriptedTranscriber(lambda utterance, _: said("a word that is believed", len(utterance.samples) / RATE))
    async with engine_with(model) as engine:
        assert (await engine.recognize("fast", noise(2), "en")).effort == 1
    model = ScriptedTranscriber(lambda utterance, _: said("", len(utterance.samples) / RATE, no_speech_probability=0.9))
    async with engine_with(model) as engine:
        assert (await engine.recognize("fast", noise(2), "en")).effort == 1 + 4
    assert model.asked == [(2.0, False), (2.0, True)]
