"""One model: a batch of utterances in, one hypothesis for each out. Runs on the calling thread."""

import copy
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from server.inference import metrics
from server.inference.decoding.batch_memory import BatchMemory, ValueBytes, batch_memory
from server.inference.decoding.beam import search
from server.inference.decoding.bias_terms import is_terms_only, is_within_one_term, prompt_tokens
from server.inference.decoding.coverage import Speech, may_be_uncovered, spoken_seconds, uncovered
from server.inference.decoding.encoder_window import window
from server.inference.decoding.generation import TokenChooser, capacity, generate
from server.inference.decoding.hypothesis import Hypothesis, UtteranceAudio
from server.inference.decoding.language import BEST_KNOWN, Detected, detected
from server.inference.decoding.repetition import LENIENT, STRICT
from server.inference.decoding.token_rules import RowDecoding
from server.inference.decoding.word_timer import UntimedText, WordTimer
from server.inference.decoding.words import certain_beginning, timed_words
from server.inference.whisper.checkpoint import read_checkpoint
from server.inference.whisper.decoder import Decoder, DecoderState
from server.inference.whisper.encoder import Encoder
from server.inference.whisper.features import SAMPLE_RATE, LogMel
from server.inference.whisper.precision import Precision

_TOKENS_PER_SECOND = 12
_TOKENS_AT_LEAST = 20
_TOKENS_AT_MOST = 224
_DOUBTFUL_NO_SPEECH = 0.5
"""No-speech probability from which a text that was decoded with bias terms is decoded again without them."""
_CERTAIN = 0.6
"""Probability of its tokens from which a word counts as certain: at the beginning of a pass over half a second of an
utterance such words are right as often as those that two passes agree on (docs/adr/0071)."""
_PREVIOUS_TOKENS = 112
"""The most tokens of the text before an utterance that the model receives."""
_REMEMBERED_TERMS = 256
"""The most lists of bias terms whose tokens are cached."""


@dataclass(frozen=True, slots=True)
class _Request:
    """An utterance, and the language to decode it in."""

    utterance: UtteranceAudio
    row: int
    """Its row in the batch."""
    language: str
    previous: tuple[int, ...] = ()
    """The tokens of the text before it, if it is decoded after that."""


@dataclass(frozen=True, slots=True)
class _Assessment:
    """What is known of one utterance before it is decoded."""

    request: _Request
    language_probability: float | None
    """None where the language was requested."""
    no_speech_probability: float


@dataclass(frozen=True, slots=True)
class _Prefilled:
    """Rows whose prompts have been read, without any decoded tokens."""

    state: DecoderState
    rows: list[RowDecoding]
    drafts: list[Sequence[int]]
    hidden: torch.Tensor
    """The hidden states of their prompts, padding included: [rows, tokens, width]."""


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """A batch of utterances whose audio has been encoded, so that it can be decoded several times."""

    utterances: tuple[UtteranceAudio, ...]
    full: bool
    """Whether the window is the full one."""
    state: DecoderState
    """The keys and values of their audio."""


class Transcriber:
    """Whisper, with its window shortened to the length of the utterances."""

    def __init__(self, directory: Path, device: torch.device, precision: Precision) -> None:
        """Loads the model from a Hugging Face directory.

        Raises:
            WeightsError: the directory does not hold a usable Whisper model.
        """
        checkpoint = read_checkpoint(directory)
        self.special_tokens = checkpoint.special_tokens
        self.full_window = checkpoint.shape.max_source_positions
        """Encoder frames, of 20 ms, that the model was trained on."""
        self._device = device
        self._shape = checkpoint.shape
        self._values = ValueBytes(precision.encoder.itemsize, precision.decoder.itemsize)
        heads_by_layer = Counter(layer for layer, _ in checkpoint.alignment_heads)
        self._alignment_heads = max(heads_by_layer.values())
        self._beams = 1
        self._tokenizer = checkpoint.tokenizer
        self._features = LogMel(checkpoint.shape.num_mel_bins, device)
        self._encoder = Encoder(checkpoint, device, precision.encoder)
        self._decoder = Decoder(checkpoint, device, precision)
        self._choose = TokenChooser(self.special_tokens, device)
        self._word_timer = WordTimer(self._decoder, self.special_tokens, device)
        languages = list(self.special_tokens.languages.values())
        self._language_tokens = torch.tensor(languages, dtype=torch.long, device=device)
        self._best_known = sorted(self.special_tokens.languages, key=self.special_tokens.languages.__getitem__)[
            :BEST_KNOWN
        ]
        # The bias terms of a session are the same for each of its utterances.
        self._bias_tokens = lru_cache(maxsize=_REMEMBERED_TERMS)(self._encode_terms)

    def with_beams(self, beams: int) -> "Transcriber":
        """The same model with this beam size; with 1 it decodes greedily."""
        other = copy.copy(self)
        other._beams = beams
        return other

    @property
    def memory(self) -> BatchMemory:
        """The memory of its batches."""
        return batch_memory(self._shape, self._alignment_heads, self._beams, self._values)

    @torch.inference_mode()
    def transcribe(self, utterances: Sequence[UtteranceAudio], encoder_frames: int) -> list[Hypothesis]:
        """Transcribes a batch.

        A window shorter than the full one costs less, and sometimes makes the model repeat itself or stop early: then
        the hypothesis is `failing`, and the utterance should be transcribed again with the full window.

        Args:
            utterances: none longer than the window.
            encoder_frames: the window, in encoder frames of 20 ms.
        """
        return self.decode(self.encode(utterances, encoder_frames))

    @torch.inference_mode()
    def encode(self, utterances: Sequence[UtteranceAudio], encoder_frames: int) -> EncodedBatch:
        """The first half of `transcribe`, with the same arguments."""
        with metrics.stage("features"):
            mel = self._features([utterance.samples for utterance in utterances], encoder_frames)
        with metrics.stage("encode"):
            audio = self._encoder(mel)
        with metrics.stage("decode"):
            state = self._decoder.start(audio, 1)
        return EncodedBatch(tuple(utterances), encoder_frames >= self.full_window, state)

    @torch.inference_mode()
    def decode(self, batch: EncodedBatch) -> list[Hypothesis]:
        """The second half of `transcribe`."""
        with metrics.stage("decode"):
            assessments, prefilled = self._assess(batch.state, batch.utterances, batch.full)
            hypotheses = self._decode(assessments, prefilled)
            self._redo_echoes(batch.state, assessments, hypotheses, batch.full)
        self._align(batch.state, batch.utterances, hypotheses, batch.full)
        return hypotheses

    @torch.inference_mode()
    def decode_after(
        self, batch: EncodedBatch, hypotheses: Sequence[Hypothesis], previous: Mapping[int, str]
    ) -> dict[int, Hypothesis]:
        """Decodes some utterances of a batch again, each after a preceding text.

        The model then tends to write as that text does, above all numbers and names, and to repeat what it repeats.

        Args:
            batch: the encoded utterances.
            hypotheses: of `decode`, from which the language and the no-speech probability are taken.
            previous: the text before an utterance, by its index in the batch; the end of a long one counts.
        """
        assessments = [
            _Assessment(
                _Request(
                    batch.utterances[row],
                    row,
                    hypotheses[row].language,
                    tuple(self._encode(f" {text}")[-_PREVIOUS_TOKENS:]),
                ),
                hypotheses[row].language_probability,
                hypotheses[row].no_speech_probability,
            )
            for row, text in previous.items()
        ]
        found = list(hypotheses)
        with metrics.stage("decode"):
            requests = [each.request for each in assessments]
            prefilled = self._prefill(batch.state, requests, batch.full, with_terms=True)
            for row, hypothesis in zip(previous, self._decode(assessments, prefilled), strict=True):
                found[row] = hypothesis
        self._align(batch.state, batch.utterances, found, batch.full, previous)
        return {row: found[row] for row in previous}

    @torch.inference_mode()
    def language_chances(self, samples: NDArray[np.float32]) -> dict[str, float]:
        """The probability of each language of the model, for at most the full window of speech.

        Empty for a model of English only.

        Args:
            samples: mono, 16 kHz.
        """
        if not self.special_tokens.multilingual:
            return {}
        frames = window(len(samples) / SAMPLE_RATE, self.full_window)
        state = self._decoder.start(self._encoder(self._features([samples], frames)), 1)
        start = torch.tensor([[self.special_tokens.start]], device=self._device)
        logits = self._decoder.logits(self._decoder.step(state, start)[:, 0])
        (chances,) = logits[:, self._language_tokens].softmax(dim=-1).tolist()
        return dict(zip(self.special_tokens.languages, chances, strict=True))

    def _align(
        self,
        state: DecoderState,
        utterances: Sequence[UtteranceAudio],
        hypotheses: list[Hypothesis],
        full: bool,
        rows: Iterable[int] | None = None,
    ) -> None:
        """Finds speech that the texts leave out, and times the words if requested; for these rows, or for all.

        Utterances that are transcribed again in any case are skipped.
        """
        wanted = []
        for index in range(len(utterances)) if rows is None else rows:
            utterance, hypothesis = utterances[index], hypotheses[index]
            speech = utterance.options.speech
            if speech is not None:
                hypotheses[index] = hypothesis = _compared_with_speech(hypothesis, speech)
            timed = utterance.options.words or (speech is not None and may_be_uncovered(speech))
            if timed and hypothesis.tokens and (full or not hypothesis.failing):
                wanted.append(index)
        if not wanted:
            return
        with metrics.stage("align"):
            timed_tokens = self._word_timer.times(state, wanted, [_untimed_text(hypotheses[index]) for index in wanted])
        for index, timed_text in zip(wanted, timed_tokens, strict=True):
            options, hypothesis = utterances[index].options, hypotheses[index]
            if options.words:
                words = timed_words(timed_text, self._tokenizer.decode, hypothesis.language)
                hypothesis = replace(hypothesis, words=words)
            if options.speech is not None and not hypothesis.invented:
                left_out = uncovered(timed_text.starts, options.speech, hypothesis.seconds)
                hypothesis = replace(hypothesis, uncovered=left_out)
            hypotheses[index] = hypothesis

    def _assess(
        self, state: DecoderState, utterances: Sequence[UtteranceAudio], full: bool
    ) -> tuple[list[_Assessment], _Prefilled]:
        """The language and the no-speech probability of each utterance, and the rows with their prompts read.

        Both are derived from the audio alone: bias terms would favour their own language, and speech. If there are none
        and the languages are known, or likely, the same step reads the prompts.
        """
        unknown = "" if self.special_tokens.multilingual else "en"
        likely = [each.language or each.options.expected_language or unknown for each in utterances]
        if all(map(self.special_tokens.supports, likely)) and not any(each.options.bias_terms for each in utterances):
            requests = [_Request(each, row, likely[row]) for row, each in enumerate(utterances)]
            prefilled = self._prefill(state, requests, full, with_terms=False)
            assessments = self._assess_rows(utterances, prefilled.hidden[:, 0])
            if [each.request.language for each in assessments] == likely:
                return assessments, prefilled
        else:
            start = torch.full((len(utterances), 1), self.special_tokens.start, device=self._device)
            assessments = self._assess_rows(utterances, self._decoder.step(state, start)[:, 0])
        return assessments, self._prefill(state, [each.request for each in assessments], full, with_terms=True)

    def _assess_rows(self, utterances: Sequence[UtteranceAudio], hidden: torch.Tensor) -> list[_Assessment]:
        """Derives the assessments from the hidden states of the start token, [rows, width]."""
        logits = self._decoder.logits(hidden)
        no_speech = logits.softmax(dim=-1)[:, self.special_tokens.no_speech].tolist()
        chances = logits[:, self._language_tokens].softmax(dim=-1).tolist()
        assessments = []
        for row, utterance in enumerate(utterances):
            found = self._detected(utterance, chances[row])
            language = found.language if found else utterance.language or "en"
            request = _Request(utterance, row, language)
            assessments.append(_Assessment(request, found.probability if found else None, no_speech[row]))
        return assessments

    def _detected(self, utterance: UtteranceAudio, chances: Sequence[float]) -> Detected | None:
        if utterance.language is not None or not chances:
            return None
        languages = dict(zip(self.special_tokens.languages, chances, strict=True))
        seconds = len(utterance.samples) / SAMPLE_RATE
        return detected(languages, utterance.options.expected_language, self._best_known, seconds)

    def _prefill(
        self, state: DecoderState, requests: Sequence[_Request], full: bool, *, with_terms: bool
    ) -> _Prefilled:
        """Reads the prompts for utterances of the batch whose audio is in `state`."""
        prompts = [self._prompt(each, with_terms) for each in requests]
        rows = [self._row(each.utterance, prompt, full) for each, prompt in zip(requests, prompts, strict=True)]
        longest = max(map(len, prompts))
        padding = [longest - len(prompt) for prompt in prompts]
        padded = [[self.special_tokens.end] * gap + prompt for gap, prompt in zip(padding, prompts, strict=True)]
        drafts = self._drafts(requests, longest + max(row.cap for row in rows))
        room = longest + capacity(rows, drafts)
        prefilled = self._decoder.start_again(state, [each.row for each in requests], room, padding)
        hidden = self._decoder.step(prefilled, torch.tensor(padded, device=self._device))
        return _Prefilled(prefilled, rows, drafts, hidden)

    def _decode(self, assessments: Sequence[_Assessment], prefilled: _Prefilled) -> list[Hypothesis]:
        hidden = prefilled.hidden[:, -1:]
        if self._beams > 1:
            logits = self._decoder.logits(hidden[:, 0])
            rows = search(self._decoder, prefilled.state, self._choose, logits, prefilled.rows, self._beams)
        else:
            rows = prefilled.rows
            generate(self._decoder, prefilled.state, self._choose, hidden, rows, prefilled.drafts)
        return [self._hypothesis(each, row) for each, row in zip(assessments, rows, strict=True)]

    def _prompt(self, request: _Request, with_terms: bool) -> list[int]:
        prompt = self.special_tokens.prompt(request.language)
        terms = self._bias_tokens(request.utterance.options.bias_terms) if with_terms else ()
        room = self._decoder.capacity // 2 - 1 - len(terms)
        previous = request.previous[-room:] if room > 0 else ()
        before = [*terms, *previous]
        return [self.special_tokens.previous, *before, *prompt] if before else prompt

    def _drafts(self, requests: Sequence[_Request], taken: int) -> list[Sequence[int]]:
        """The drafts, as far as they fit next to the `taken` tokens. Beam search uses no drafts."""
        drafts: list[Sequence[int]] = [each.utterance.options.draft for each in requests]
        left = max(0, self._decoder.capacity - taken) if self._beams == 1 else 0
        by_length = sorted(range(len(drafts)), key=lambda row: len(drafts[row]))
        for rows_left, row in zip(range(len(drafts), 0, -1), by_length, strict=True):
            drafts[row] = drafts[row][: left // rows_left]
            left -= len(drafts[row])
        return drafts

    def _encode_terms(self, terms: tuple[str, ...]) -> tuple[int, ...]:
        """The bias terms as tokens; at most half of the tokens of a row, as in the model's training."""
        return tuple(prompt_tokens(terms, self._encode, self._decoder.capacity // 2 - 1))

    def _encode(self, text: str) -> list[int]:
        """The tokens of a text, without special tokens that a client's text may spell."""
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        return [token for token in encoded.ids if token < self.special_tokens.end]

    def _row(self, utterance: UtteranceAudio, prompt: Sequence[int], full: bool) -> RowDecoding:
        duration = len(utterance.samples) / SAMPLE_RATE
        most = min(_TOKENS_AT_MOST, self._decoder.capacity - len(prompt))
        cap = most if full else min(most, _TOKENS_AT_LEAST + int(duration * _TOKENS_PER_SECOND))
        return RowDecoding(self.special_tokens, duration, cap, LENIENT if full else STRICT)

    def _redo_echoes(
        self, state: DecoderState, assessments: Sequence[_Assessment], hypotheses: list[Hypothesis], full: bool
    ) -> None:
        """Decodes texts that may only echo the bias terms again without these: texts of nothing else, or without
        speech.

        The new text replaces the old one if it is empty or a hallucination, or if the old one lists several terms, of
        which it is unknown which were spoken.
        """
        echoes = [
            each
            for each, hypothesis in zip(assessments, hypotheses, strict=True)
            if (terms := each.request.utterance.options.bias_terms) and _may_be_echo(hypothesis, terms)
        ]
        if not echoes:
            return
        metrics.REDONE.labels("echo").inc(len(echoes))
        prefilled = self._prefill(state, [each.request for each in echoes], full, with_terms=False)
        for each, plain in zip(echoes, self._decode(echoes, prefilled), strict=True):
            row, terms = each.request.row, each.request.utterance.options.bias_terms
            listed = is_terms_only(hypotheses[row].text, terms) and not is_within_one_term(hypotheses[row].text, terms)
            if listed or not plain.text or plain.invented:
                hypotheses[row] = plain

    def _hypothesis(self, assessment: _Assessment, row: RowDecoding) -> Hypothesis:
        language = assessment.request.language
        return Hypothesis(
            text=self._tokenizer.decode(row.text).strip(),
            tokens=tuple(row.text),
            log_probabilities=tuple(row.log_probabilities),
            certain_prefix=certain_beginning(
                row.text, row.log_probabilities, _CERTAIN, self._tokenizer.decode, language
            ),
            decoded_tokens=tuple(row.tokens),
            language=language,
            language_probability=assessment.language_probability,
            ending=row.ending or "cap",
            no_speech_probability=assessment.no_speech_probability,
            seconds=row.duration,
            seconds_after_last_timestamp=row.seconds_after_last_timestamp,
        )


def _compared_with_speech(hypothesis: Hypothesis, speech: Speech) -> Hypothesis:
    """The hypothesis compared with the detected speech; a hallucination, or an empty text, covers none of it."""
    left_out = None
    if not hypothesis.tokens or hypothesis.invented:
        left_out = uncovered((), speech, hypothesis.seconds)
    until = hypothesis.seconds - hypothesis.seconds_after_last_timestamp
    speech_after = min(hypothesis.seconds_after_last_timestamp, spoken_seconds(speech, until, hypothesis.seconds))
    return replace(hypothesis, seconds_after_last_timestamp=speech_after, uncovered=left_out)


def _untimed_text(hypothesis: Hypothesis) -> UntimedText:
    return UntimedText(hypothesis.tokens, hypothesis.log_probabilities, hypothesis.language, hypothesis.seconds)


def _may_be_echo(hypothesis: Hypothesis, terms: Sequence[str]) -> bool:
    silent = hypothesis.no_speech_probability > _DOUBTFUL_NO_SPEECH
    return bool(hypothesis.text) and (silent or is_terms_only(hypothesis.text, terms))
