"""A random model in exact arithmetic: the result of a row does not depend on the other rows of its batch."""

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
from server.inference.decoding.repetition import LENIENT, RepetitionGuard
from server.inference.decoding.token_rules import RowDecoding
from server.inference.decoding.transcriber import Transcriber
from server.inference.recognition import RecognitionOptions
from server.inference.whisper.decoder import Decoder, DecoderState
from server.inference.whisper.precision import Precision

EXACT = Precision(encoder=torch.float32, decoder=torch.float32, quantised_decoder=False)
ENCODER_FRAMES = 64


@pytest.fixture(scope="module")
def transcriber(small_whisper: Any, tmp_path_factory: pytest.TempPathFactory) -> Transcriber:
    directory: Path = small_whisper.save(tmp_path_factory.mktemp("small"))
    return Transcriber(directory, torch.device("cpu"), EXACT)


def sound(seed: int, seconds: float) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(scale=0.1, size=int(seconds * 16_000)).astype(np.float32)


ROWS = [
    UtteranceAudio(sound(0, 1.2), "en"),
    UtteranceAudio(sound(1, 0.7), None, RecognitionOptions(words=True, bias_terms=("hello", "there"))),
    UtteranceAudio(sound(2, 1.0), "de", RecognitionOptions(words=True)),
    UtteranceAudio(sound(3, 0.5), None, RecognitionOptions(bias_terms=("there",) * 9, expected_language="de")),
]


@pytest.mark.parametrize("beams", [1, 3])
def test_a_row_has_the_same_result_in_a_batch_and_alone(beams: int, transcriber: Transcriber) -> None:
    transcriber = transcriber.with_beams(beams)
    together = transcriber.transcribe(ROWS, ENCODER_FRAMES)
    for row, hypothesis in zip(ROWS, together, strict=True):
        (alone,) = transcriber.transcribe([row], ENCODER_FRAMES)
        assert hypothesis.tokens == alone.tokens
        assert (hypothesis.text, hypothesis.language, hypothesis.ending) == (alone.text, alone.language, alone.ending)
        assert hypothesis.log_probabilities == pytest.approx(alone.log_probabilities, abs=1e-3)
        assert hypothesis.no_speech_probability == pytest.approx(alone.no_speech_probability, abs=1e-3)
        assert hypothesis.language_probability == pytest.approx(alone.language_probability, abs=1e-3)
        for word, same in zip(hypothesis.words, alone.words, strict=True):
            assert word == replace(same, confidence=pytest.approx(same.confidence, abs=1e-3))


@pytest.fixture
def unstoppable(transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch) -> Transcriber:
    """Decodes only the first timestamp, and may repeat itself, so that it does not stop at once."""
    monkeypatch.setattr(RepetitionGuard, "loop_start", lambda *_: None)
    never = transcriber._choose._never.clone()
    never[transcriber.special_tokens.first_timestamp + 1 :] = -torch.inf
    monkeypatch.setattr(transcriber._choose, "_never", never)
    return transcriber


def drafts(decoded: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Drafts: none, a beginning, all tokens, only wrong ones, and one with an extra token and a wrong one."""
    half = len(decoded) // 2
    wrong = tuple(token ^ 1 for token in decoded)
    return [(), decoded[:half], decoded, wrong, (*decoded[:half], *wrong[half : half + 2], *decoded[half + 1 :])]


@pytest.mark.parametrize("first", range(5))
def test_a_draft_does_not_change_the_result(first: int, unstoppable: Transcriber) -> None:
    without = unstoppable.transcribe(ROWS, ENCODER_FRAMES)
    assert min(len(hypothesis.decoded_tokens) for hypothesis in without) > 12
    drafted = [
        replace(row, options=replace(row.options, draft=drafts(hypothesis.decoded_tokens)[(first + place) % 5]))
        for place, (row, hypothesis) in enumerate(zip(ROWS, without, strict=True))
    ]
    for hypothesis, same in zip(unstoppable.transcribe(drafted, ENCODER_FRAMES), without, strict=True):
        assert (hypothesis.decoded_tokens, hypothesis.text, hypothesis.ending) == (
            same.decoded_tokens,
            same.text,
            same.ending,
        )
        assert hypothesis.log_probabilities == pytest.approx(same.log_probabilities, abs=1e-3)


def test_a_draft_saves_decoding_steps(unstoppable: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = counted_steps(monkeypatch)
    (hypothesis,) = unstoppable.transcribe(ROWS[:1], ENCODER_FRAMES)
    decoded, steps[:] = len(steps), []
    (again,) = unstoppable.transcribe(
        [replace(ROWS[0], options=RecognitionOptions(draft=hypothesis.decoded_tokens))], ENCODER_FRAMES
    )
    assert again.decoded_tokens == hypothesis.decoded_tokens
    assert len(steps) <= 4 < decoded


def counted_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of tokens that each step of the decoder reads."""
    steps: list[int] = []
    step = Decoder.step

    def counted(self: Decoder, state: DecoderState, tokens: torch.Tensor, *more: Any) -> torch.Tensor:
        steps.append(tokens.shape[1])
        return step(self, state, tokens, *more)

    monkeypatch.setattr(Decoder, "step", counted)
    return steps


def assert_same(one: Hypothesis, other: Hypothesis) -> None:
    """Equal except for the last digits: on some processors the shape of a step determines its kernels."""
    assert one.log_probabilities == pytest.approx(other.log_probabilities, rel=1e-4)
    assert one.no_speech_probability == pytest.approx(other.no_speech_probability, rel=1e-4)
    assert one.language_probability == pytest.approx(other.language_probability, rel=1e-4)
    inexact = {"log_probabilities": (), "no_speech_probability": 0.0, "language_probability": None, "words": ()}
    assert replace(one, **inexact) == replace(other, **inexact)


def test_an_expected_language_is_checked_and_prompted_in_one_step(
    transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = ROWS[0].samples
    (plain,) = transcriber.transcribe([UtteranceAudio(samples, None)], ENCODER_FRAMES)
    other = next(language for language in ("en", "de") if language != plain.language)
    steps = counted_steps(monkeypatch)
    monkeypatch.setattr("server.inference.decoding.language.SURE", 0.0)
    right, wrong = RecognitionOptions(expected_language=plain.language), RecognitionOptions(expected_language=other)
    (hypothesis,) = transcriber.transcribe([UtteranceAudio(samples, None, right)], ENCODER_FRAMES)
    assert_same(hypothesis, plain)
    taken, steps[:] = len(steps), []
    (hypothesis,) = transcriber.transcribe([UtteranceAudio(samples, None, wrong)], ENCODER_FRAMES)
    assert_same(hypothesis, plain)  # after a wrong expectation the prompts are read again
    assert len(steps) == taken + 1


def test_dropping_finished_rows_does_not_change_the_others(
    transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, sizes = transcriber._decoder, list[int]()
    audio = torch.randn(4, ENCODER_FRAMES, transcriber._shape.d_model, generator=torch.Generator().manual_seed(0))
    prompts = torch.tensor([transcriber.special_tokens.prompt("en")]).repeat(4, 1)
    prompts[1, 0] = transcriber.special_tokens.end

    def decoded() -> list[list[int]]:
        sizes.clear()
        rows = [RowDecoding(transcriber.special_tokens, 29.0, cap, LENIENT) for cap in (12, 3, 24, 6)]
        state = decoder.start(audio, 64, padding=[0, 1, 0, 0])
        logits = decoder.logits(decoder.step(state, prompts)[:, -1])
        return [row.tokens for row in search(decoder, state, transcriber._choose, logits, rows, 3)]

    step = decoder.step
    monkeypatch.setattr(decoder, "step", lambda state, tokens: (sizes.append(len(tokens)), step(state, tokens))[1])
    dropped = decoded()
    assert {3, 9, 12} <= set(sizes[1:])
    assert sizes[1:] == sorted(sizes[1:], reverse=True)
    monkeypatch.setattr(beam, "_KEPT", 0.0)
    assert decoded() == dropped
    assert set(sizes[1:]) == {12}


def test_bias_terms_change_the_text_and_not_the_detection(transcriber: Transcriber) -> None:
    plain = UtteranceAudio(ROWS[1].samples, None)
    (without,) = transcriber.transcribe([plain], ENCODER_FRAMES)
    (with_terms,) = transcriber.transcribe([ROWS[1]], ENCODER_FRAMES)
    assert without.log_probabilities != with_terms.log_probabilities
    assert without.language_probability == with_terms.language_probability
    assert without.no_speech_probability == with_terms.no_speech_probability


def test_a_requested_language_has_no_probability(transcriber: Transcriber) -> None:
    requested, detected = transcriber.transcribe(ROWS[:2], ENCODER_FRAMES)
    assert requested.language_probability is None
    assert detected.language_probability is not None


def test_an_expected_language_is_kept_while_the_model_is_unsure(transcriber: Transcriber) -> None:
    for language in ("en", "de", "jv"):
        options = RecognitionOptions(expected_language=language)
        (hypothesis,) = transcriber.transcribe([UtteranceAudio(ROWS[0].samples, None, options)], ENCODER_FRAMES)
        assert hypothesis.language == language or (hypothesis.language_probability or 0) >= 0.8


@pytest.mark.parametrize("beams", [1, 3])
def test_a_row_decoded_after_a_text_has_the_same_result_with_others_and_alone(
    beams: int, transcriber: Transcriber
) -> None:
    transcriber = transcriber.with_beams(beams)
    batch = transcriber.encode(ROWS, ENCODER_FRAMES)
    hypotheses = transcriber.decode(batch)
    previous = {3: "there", 0: "hello there", 1: "hello " * 300}
    together = transcriber.decode_after(batch, hypotheses, previous)
    assert set(together) == set(previous)
    for row, text in previous.items():
        alone = transcriber.decode_after(batch, hypotheses, {row: text})[row]
        assert together[row].tokens == alone.tokens
        assert together[row].log_probabilities == pytest.approx(alone.log_probabilities, abs=1e-3)
        assert together[row].log_probabilities != hypotheses[row].log_probabilities
        assert len(together[row].words) == len(alone.words)


def test_a_text_before_an_utterance_changes_neither_its_language_nor_the_no_speech_probability(
    transcriber: Transcriber,
) -> None:
    batch = transcriber.encode(ROWS, ENCODER_FRAMES)
    hypotheses = transcriber.decode(batch)
    for row, found in transcriber.decode_after(batch, hypotheses, dict.fromkeys(range(4), "hello")).items():
        first = hypotheses[row]
        assert (found.language, found.language_probability) == (first.language, first.language_probability)
        assert found.no_speech_probability == first.no_speech_probability
    assert [each.tokens for each in transcriber.decode(batch)] == [each.tokens for each in hypotheses]
