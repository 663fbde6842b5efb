"""The engine on the offline model: speech is transcribed, and little else."""

import asyncio
from typing import Any

import jiwer
import numpy as np
import pytest
from numpy.typing import NDArray

from server.inference.config import InferenceSettings
from server.inference.errors import EngineStopped, WeightsError
from server.inference.recognition import RecognitionOptions
from server.inference.scheduling.engine import Engine

RATE = 16_000


def normalise(text: str) -> str:
    # Every process of `pytest -n` collects this file, and the import takes three seconds of CPU time.
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return str(EnglishTextNormalizer({})(text))


def word_error_rate(references: list[str], texts: list[str]) -> float:
    return float(jiwer.wer([normalise(text) for text in references], [normalise(text) for text in texts]))


async def test_speech_is_transcribed(engine: Engine, spoken: list[Any]) -> None:
    recognitions = [await engine.recognize("fast", utterance.samples, "en") for utterance in spoken]
    assert word_error_rate([utterance.text for utterance in spoken], [each.text for each in recognitions]) <= 0.1
    for recognition in recognitions:
        assert recognition.language == "en"
        assert recognition.suppressed is None
        assert 0.5 < recognition.confidence <= 1.0
        assert recognition.no_speech_probability < 0.6


async def test_utterances_in_shared_batches_are_transcribed_as_well_as_alone(engine: Engine, spoken: list[Any]) -> None:
    again = spoken * 2
    recognitions = await asyncio.gather(*(engine.recognize("fast", utterance.samples, "en") for utterance in again))
    assert word_error_rate([utterance.text for utterance in again], [each.text for each in recognitions]) <= 0.1


async def test_the_language_is_detected_if_none_is_requested(engine: Engine, spoken: list[Any]) -> None:
    calls = [engine.recognize("fast", spoken[0].samples, None), engine.recognize("fast", spoken[0].samples, "en")]
    detected, requested = await asyncio.gather(*calls)
    assert detected.language == requested.language == "en"
    assert word_error_rate([requested.text], [detected.text]) <= 0.1


async def test_rows_of_one_batch_are_transcribed_each_in_its_own_language(engine: Engine, spoken: list[Any]) -> None:
    english, german = await asyncio.gather(
        engine.recognize("fast", spoken[0].samples, "en"), engine.recognize("fast", spoken[0].samples, "de")
    )
    assert (english.language, german.language) == ("en", "de")
    assert english.text != german.text


async def test_a_repeated_sentence_is_transcribed_twice(engine: Engine, spoken: list[Any]) -> None:
    sentence = spoken[0]
    twice = np.concatenate([sentence.samples, np.zeros(RATE // 2, np.float32), sentence.samples])
    recognition = await engine.recognize("fast", twice, "en")
    assert word_error_rate([f"{sentence.text} {sentence.text}"], [recognition.text]) <= 0.1


async def test_words_are_timed_where_they_are_spoken(engine: Engine, spoken: list[Any]) -> None:
    pause = np.zeros(RATE, np.float32)
    samples = np.concatenate([spoken[1].samples, pause, spoken[2].samples])
    options = RecognitionOptions(words=True)
    recognition, other = await asyncio.gather(
        engine.recognize("fast", samples, "en", options), engine.recognize("fast", spoken[0].samples, "en", options)
    )
    for each, length in ((recognition, len(samples) / RATE), (other, len(spoken[0].samples) / RATE)):
        assert " ".join(word.word for word in each.words) == each.text
        times = [time for word in each.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= length
        assert all(0 < word.confidence <= 1 for word in each.words)
    first = len(spoken[1].samples) / RATE
    spoken_text = len(spoken[1].text.split())
    assert recognition.words[spoken_text - 1].end <= first + 0.2
    assert recognition.words[spoken_text].start >= first - 0.2


async def test_words_are_not_timed_unless_requested(engine: Engine, spoken: list[Any]) -> None:
    recognition = await engine.recognize("fast", spoken[1].samples, "en")
    assert recognition.text
    assert recognition.words == ()


def noise(level: float) -> NDArray[np.float32]:
    return (np.random.default_rng(0).normal(size=3 * RATE) * level).astype(np.float32)


def tone(frequency: float) -> NDArray[np.float32]:
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(3 * RATE) / RATE)).astype(np.float32)


@pytest.mark.parametrize(
    "samples",
    [np.zeros(0, np.float32), np.zeros(RATE, np.float32), noise(0.001), noise(0.1), tone(50), tone(440)],
    ids=["nothing", "silence", "faint noise", "loud noise", "hum", "tone"],
)
async def test_sound_without_speech_has_no_text(samples: NDArray[np.float32], engine: Engine) -> None:
    recognition = await engine.recognize("fast", samples, "en")
    assert recognition.text == ""
    assert recognition.suppressed is not None
    assert recognition.confidence == 0.0


TERMS = tuple(
    f"{place} {part}" for place in ("Hertfordshire", "Norland", "Barton") for part in ("north", "council", "market")
)


@pytest.mark.parametrize(
    "samples", [np.zeros(RATE, np.float32), noise(0.01), tone(50)], ids=["silence", "noise", "hum"]
)
async def test_bias_terms_are_not_transcribed_without_speech(samples: NDArray[np.float32], engine: Engine) -> None:
    options = RecognitionOptions(bias_terms=TERMS)
    for language in ("en", None):
        assert (await engine.recognize("fast", samples, language, options)).text == ""


async def test_speech_is_transcribed_whatever_the_bias_terms(engine: Engine, spoken: list[Any]) -> None:
    options = RecognitionOptions(bias_terms=TERMS, words=True)
    recognition = await engine.recognize("fast", spoken[3].samples, None, options)
    assert word_error_rate([spoken[3].text], [recognition.text]) <= 0.1
    assert recognition.language == "en"
    assert recognition.language_probability is not None
    assert recognition.language_probability > 0.8


async def test_the_accurate_model_transcribes_with_beams_in_one_batch(engine: Engine, spoken: list[Any]) -> None:
    options = RecognitionOptions(words=True)
    recognition = await asyncio.gather(
        *(engine.recognize("accurate", utterance.samples, "en", options) for utterance in spoken[:2])
    )
    assert word_error_rate([spoken_text.text for spoken_text in spoken[:2]], [each.text for each in recognition]) <= 0.1
    assert [" ".join(word.word for word in each.words) for each in recognition] == [each.text for each in recognition]


async def test_models_and_languages_are_known(engine: Engine) -> None:
    assert engine.models == {"fast", "accurate"}
    assert engine.supports("fast", "auto")
    assert engine.supports("accurate", "fr")
    assert not engine.supports("fast", "tlh")
    assert not engine.supports("huge", "en")


@pytest.mark.parametrize(
    ("model", "seconds", "language"), [("huge", 1.0, "en"), ("fast", 1.0, "tlh"), ("fast", 30.5, "en")]
)
async def test_invalid_calls_are_refused(model: str, seconds: float, language: str, engine: Engine) -> None:
    with pytest.raises(ValueError, match=r"does not (exist|fit)"):
        await engine.recognize(model, np.zeros(int(seconds * RATE), np.float32), language)


async def test_a_cancelled_call_does_not_affect_others(engine: Engine, spoken: list[Any]) -> None:
    others = [asyncio.create_task(engine.recognize("fast", utterance.samples, "en")) for utterance in spoken[:2]]
    gone = [asyncio.create_task(engine.recognize("fast", spoken[2].samples, "en")) for _ in range(3)]
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    results = await asyncio.gather(*gone, *others, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results[:3])
    assert word_error_rate([u.text for u in spoken[:2]], [result.text for result in results[3:]]) <= 0.1  # type: ignore[union-attr]


async def test_waiting_calls_fail_when_the_engine_stops(settings: InferenceSettings, spoken: list[Any]) -> None:
    async with Engine(settings) as engine:
        waiting = [asyncio.create_task(engine.recognize("fast", spoken[0].samples, "en")) for _ in range(30)]
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert any(isinstance(outcome, EngineStopped) for outcome in outcomes)
    assert all(isinstance(outcome, EngineStopped) or outcome.text for outcome in outcomes)  # type: ignore[union-attr]
    with pytest.raises(EngineStopped):
        await engine.recognize("fast", spoken[0].samples, "en")


async def test_a_model_that_cannot_be_loaded_fails_the_start() -> None:
    with pytest.raises(WeightsError, match="there is no directory"):
        async with Engine(InferenceSettings(models={"fast": "/nowhere"})):
            pass


async def test_a_partial_is_the_text_so_far_and_keeps_the_final(engine: Engine, spoken: list[Any]) -> None:
    utterance = spoken[0]
    alone = await engine.recognize("fast", utterance.samples, "en", session="one")
    partial = await engine.recognize_partial("fast", utterance.samples[: 3 * RATE], "en", session="one")
    final = await engine.recognize("fast", utterance.samples, "en", session="one")
    assert final == alone
    assert partial is not None
    words = normalise(partial.text).split()
    assert 3 <= len(words) < len(normalise(final.text).split())
    assert words[:3] == normalise(utterance.text).split()[:3]


async def test_finals_and_newer_partials_precede_older_partials(engine: Engine, spoken: list[Any]) -> None:
    order: list[str] = []

    async def noted(name: str, call: Any) -> Any:
        result = await call
        order.append(name)
        return result

    samples = spoken[1].samples
    running = asyncio.create_task(engine.recognize("fast", samples, "en", session=6))
    await asyncio.sleep(0)
    partials = [
        asyncio.create_task(
            noted(f"partial {number}", engine.recognize_partial("fast", samples[:RATE], "en", session=7))
        )
        for number in range(3)
    ]
    await asyncio.sleep(0)
    final = asyncio.create_task(noted("final", engine.recognize("fast", samples, "en", session=8)))
    results = await asyncio.gather(*partials)
    await asyncio.gather(running, final)
    assert results[0] is results[1] is None
    assert results[2] is not None
    assert order == ["partial 0", "partial 1", "final", "partial 2"]


@pytest.mark.parametrize("samples", [np.zeros(RATE, np.float32), noise(0.1)], ids=["silence", "noise"])
async def test_a_partial_without_speech_has_no_text(samples: NDArray[np.float32], engine: Engine) -> None:
    partial = await engine.recognize_partial("fast", samples, "en", session=1)
    assert partial is not None
    assert partial.text == ""
