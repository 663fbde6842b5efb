"""A made-up model in exact arithmetic: what a row gives does not depend on the rows beside it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from server.inference.decoding import beam
from server.inference.decoding.beam import search
from server.inference.decoding.hypothesis import Hypothesis, UtteranceAudio
from server.inference.decoding.repetition import PATIENT, RepetitionGuard
from server.inference.decoding.token_rules import RowDecoding
from server.inference.decoding.transcriber import Transcriber
from server.inference.recognition import RecognitionOptions
from server.inference.whisper.decoder import Decoder, DecoderState
from server.inference.whisper.precision import Precision

EXACT = Precision(encoder=torch.float32, decoder=torch.float32, quantised_decoder=False)
FRAMES = 64


@pytest.fixture(scope="module")
def transcriber(small_whisper: Any, tmp_path_factory: pytest.TempPathFactory) -> Transcriber:
    directory: Path = small_whisper.save(tmp_path_factory.mktemp("small"))
    return Transcriber(directory, torch.device("cpu"), EXACT)


def sound(seed: int, seconds: float) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(scale=0.1, size=int(seconds * 16_000)).astype(np.float32)


ROWS = [
    UtteranceAudio(sound(0, 1.2), "en"),
    UtteranceAudio(sound(1, 0.7), None, RecognitionOptions(words=True, vocabulary=("hello", "scenario"))),
    UtteranceAudio(sound(2, 1.0), "de", RecognitionOptions(words=True)),
    UtteranceAudio(sound(3, 0.5), None, RecognitionOptions(vocabulary=("scenario",) * 9, expected_language="de")),
]


@pytest.mark.parametrize("beams", [1, 3])
def test_a_row_gives_in_a_batch_what_it_gives_alone(beams: int, transcriber: Transcriber) -> None:
    transcriber = transcriber.with_beams(beams)
    together = transcriber.transcribe(ROWS, FRAMES)
    for row, heard in zip(ROWS, together, strict=True):
        (alone,) = transcriber.transcribe([row], FRAMES)
        assert heard.tokens == alone.tokens
        assert (heard.text, heard.language, heard.ending) == (alone.text, alone.language, alone.ending)
        assert heard.log_probabilities == pytest.approx(alone.log_probabilities, abs=1e-3)
        assert heard.no_speech_probability == pytest.approx(alone.no_speech_probability, abs=1e-3)
        assert heard.language_probability == pytest.approx(alone.language_probability, abs=1e-3)
        for word, same in zip(heard.words, alone.words, strict=True):
            assert word == replace(same, confidence=pytest.approx(same.confidence, abs=1e-3))


@pytest.fixture
def talkative(transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch) -> Transcriber:
    """Sets no stamps but the first, and may repeat itself, so that it does not stop at once."""
    monkeypatch.setattr(RepetitionGuard, "loop_start", lambda *_: None)
    never = transcriber._choose._never.clone()
    never[transcriber.vocabulary.first_stamp + 1 :] = -torch.inf
    monkeypatch.setattr(transcriber._choose, "_never", never)
    return transcriber


def drafts(written: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Nothing, a beginning, all of it, what is wrong throughout, and what has one token too many and another wrong."""
    half = len(written) // 2
    wrong = tuple(token ^ 1 for token in written)
    return [(), written[:half], written, wrong, (*written[:half], *wrong[half : half + 2], *written[half + 1 :])]


@pytest.mark.parametrize("first", range(5))
def test_a_draft_changes_nothing_in_what_is_written(first: int, talkative: Transcriber) -> None:
    without = talkative.transcribe(ROWS, FRAMES)
    assert min(len(heard.written) for heard in without) > 12
    drafted = [
        replace(row, options=replace(row.options, draft=drafts(heard.written)[(first + place) % 5]))
        for place, (row, heard) in enumerate(zip(ROWS, without, strict=True))
    ]
    for heard, same in zip(talkative.transcribe(drafted, FRAMES), without, strict=True):
        assert (heard.written, heard.text, heard.ending) == (same.written, same.text, same.ending)
        assert heard.log_probabilities == pytest.approx(same.log_probabilities, abs=1e-3)


def test_a_draft_is_read_and_not_written_again(talkative: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = counted_steps(monkeypatch)
    (heard,) = talkative.transcribe(ROWS[:1], FRAMES)
    written, steps[:] = len(steps), []
    (again,) = talkative.transcribe([replace(ROWS[0], options=RecognitionOptions(draft=heard.written))], FRAMES)
    assert again.written == heard.written
    assert len(steps) <= 4 < written


def counted_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each step of the decoder reads."""
    steps: list[int] = []
    step = Decoder.step

    def counted(self: Decoder, state: DecoderState, tokens: torch.Tensor, *more: Any) -> torch.Tensor:
        steps.append(tokens.shape[1])
        return step(self, state, tokens, *more)

    monkeypatch.setattr(Decoder, "step", counted)
    return steps


def assert_same(one: Hypothesis, other: Hypothesis) -> None:
    """All but the last digits: the shape of a step decides which kernels compute it, on some processors."""
    assert one.log_probabilities == pytest.approx(other.log_probabilities, rel=1e-4)
    assert one.no_speech_probability == pytest.approx(other.no_speech_probability, rel=1e-4)
    assert one.language_probability == pytest.approx(other.language_probability, rel=1e-4)
    inexact = {"log_probabilities": (), "no_speech_probability": 0.0, "language_probability": None, "words": ()}
    assert replace(one, **inexact) == replace(other, **inexact)


def test_a_likely_language_is_asked_about_and_written_in_with_one_step(
    transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = ROWS[0].samples
    (plain,) = transcriber.transcribe([UtteranceAudio(samples, None)], FRAMES)
    other = next(language for language in ("en", "de") if language != plain.language)
    steps = counted_steps(monkeypatch)
    monkeypatch.setattr("server.inference.decoding.language.SURE", 0.0)
    right, wrong = RecognitionOptions(expected_language=plain.language), RecognitionOptions(expected_language=other)
    (heard,) = transcriber.transcribe([UtteranceAudio(samples, None, right)], FRAMES)
    assert_same(heard, plain)
    taken, steps[:] = len(steps), []
    (heard,) = transcriber.transcribe([UtteranceAudio(samples, None, wrong)], FRAMES)
    assert_same(heard, plain)  # what is expected wrongly is asked again
    assert len(steps) == taken + 1


def test_beams_of_rows_that_are_done_are_dropped_and_those_that_go_on_write_the_same(
    transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, sizes = transcriber._decoder, list[int]()
    audio = torch.randn(4, FRAMES, transcriber._shape.d_model, generator=torch.Generator().manual_seed(0))
    prompts = torch.tensor([transcriber.vocabulary.prompt("en")]).repeat(4, 1)
    prompts[1, 0] = transcriber.vocabulary.end

    def written() -> list[list[int]]:
        sizes.clear()
        rows = [RowDecoding(transcriber.vocabulary, 29.0, cap, PATIENT) for cap in (12, 3, 24, 6)]
        state = decoder.start(audio, 64, padding=[0, 1, 0, 0])
        logits = decoder.logits(decoder.step(state, prompts)[:, -1])
        return [row.tokens for row in search(decoder, state, transcriber._choose, logits, rows, 3)]

    step = decoder.step
    monkeypatch.setattr(decoder, "step", lambda state, tokens: (sizes.append(len(tokens)), step(state, tokens))[1])
    dropped = written()
    assert {3, 9, 12} <= set(sizes[1:])
    assert sizes[1:] == sorted(sizes[1:], reverse=True)
    monkeypatch.setattr(beam, "_KEPT", 0.0)
    assert written() == dropped
    assert set(sizes[1:]) == {12}


def test_the_terms_change_what_is_written_and_not_what_is_detected(transcriber: Transcriber) -> None:
    plain = UtteranceAudio(ROWS[1].samples, None)
    (without,) = transcriber.transcribe([plain], FRAMES)
    (with_terms,) = transcriber.transcribe([ROWS[1]], FRAMES)
    assert without.log_probabilities != with_terms.log_probabilities
    assert without.language_probability == with_terms.language_probability
    assert without.no_speech_probability == with_terms.no_speech_probability


def test_a_language_that_was_told_has_no_probability(transcriber: Transcriber) -> None:
    told, asked = transcriber.transcribe(ROWS[:2], FRAMES)
    assert told.language_probability is None
    assert asked.language_probability is not None


def test_an_expected_language_is_kept_while_the_model_is_unsure(transcriber: Transcriber) -> None:
    for language in ("en", "de", "jv"):
        options = RecognitionOptions(expected_language=language)
        (heard,) = transcriber.transcribe([UtteranceAudio(ROWS[0].samples, None, options)], FRAMES)
        assert heard.language == language or (heard.language_probability or 0) >= 0.8
