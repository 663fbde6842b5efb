"""One model: a batch of utterances in, a hypothesis for each out. Runs on the thread that calls it."""

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

from server.inference import metrics
from server.inference.decoding.batch_memory import BatchMemory, ValueBytes, batch_memory
from server.inference.decoding.beam import search
from server.inference.decoding.bias_terms import prompt_tokens, terms_alone, within_one
from server.inference.decoding.coverage import Speech, may_be_uncovered, spoken_seconds, uncovered
from server.inference.decoding.generation import TokenChooser, capacity, generate
from server.inference.decoding.hypothesis import Hypothesis, UtteranceAudio
from server.inference.decoding.language import BEST_KNOWN, Detected, detected
from server.inference.decoding.repetition import EAGER, PATIENT
from server.inference.decoding.token_rules import RowDecoding
from server.inference.decoding.word_timer import Said, WordTimer
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
"""No-speech probability from which a text that was written with terms is tried without them."""
_CERTAIN = 0.6
"""Probability of its tokens from which a word counts as certain: of those with which a try on half a second of an
utterance begins, as many are right as of those that two tries agree on (docs/adr/0071)."""
_REMEMBERED_TERMS = 256
"""Vocabularies whose tokens are remembered."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """An utterance that is to be written in a language."""

    utterance: UtteranceAudio
    row: int
    """Its row in the batch."""
    language: str


@dataclass(frozen=True, slots=True)
class _Heard:
    """What is known of one utterance before anything is written."""

    asked: _Asked
    language_probability: float | None
    """None where the language was told."""
    no_speech_probability: float


@dataclass(frozen=True, slots=True)
class _Writing:
    """Rows whose prompts have been read, and of which nothing is written."""

    state: DecoderState
    rows: list[RowDecoding]
    drafts: list[Sequence[int]]
    hidden: torch.Tensor
    """Of their prompts, padding included: [rows, tokens, width]."""


class Transcriber:
    """Whisper, with the window shortened to the utterances it is given."""

    def __init__(self, directory: Path, device: torch.device, precision: Precision) -> None:
        """Loads the model from a Hugging Face directory.

        Raises:
            WeightsError: the directory does not hold a usable Whisper model.
        """
        checkpoint = read_checkpoint(directory)
        self.vocabulary = checkpoint.special_tokens
        self.full_window = checkpoint.shape.max_source_positions
        """Encoder frames, of 20 ms, that the model was trained on."""
        self._device = device
        self._shape = checkpoint.shape
        self._values = ValueBytes(precision.encoder.itemsize, precision.decoder.itemsize)
        watched = Counter(layer for layer, _ in checkpoint.alignment_heads)
        self._watched_heads = max(watched.values())
        self._beams = 1
        self._tokenizer = checkpoint.tokenizer
        self._features = LogMel(checkpoint.shape.num_mel_bins, device)
        self._encoder = Encoder(checkpoint, device, precision.encoder)
        self._decoder = Decoder(checkpoint, device, precision)
        self._choose = TokenChooser(self.vocabulary, device)
        self._word_timer = WordTimer(self._decoder, self.vocabulary, device)
        languages = list(self.vocabulary.languages.values())
        self._language_tokens = torch.tensor(languages, dtype=torch.long, device=device)
        self._best_known = sorted(self.vocabulary.languages, key=self.vocabulary.languages.__getitem__)[:BEST_KNOWN]
        # A session's terms are the same for each of its utterances.
        self._term_tokens = lru_cache(maxsize=_REMEMBERED_TERMS)(self._read_terms)

    def with_beams(self, beams: int) -> "Transcriber":
        """The same model, decoding with so many beams; with one it takes the likeliest token each time."""
        other = copy.copy(self)
        other._beams = beams
        return other

    @property
    def memory(self) -> BatchMemory:
        """What its batches take."""
        return batch_memory(self._shape, self._watched_heads, self._beams, self._values)

    @torch.inference_mode()
    def transcribe(self, utterances: Sequence[UtteranceAudio], frames: int) -> list[Hypothesis]:
        """Transcribes a batch.

        A window shorter than the full one costs less, and now and then makes the model repeat itself or stop early:
        then the hypothesis is `failing`, and the utterance should be done again with the full window.

        Args:
            utterances: none longer than the window.
            frames: the window, in encoder frames of 20 ms.
        """
        full = frames >= self.full_window
        with metrics.stage("features"):
            mel = self._features([utterance.samples for utterance in utterances], frames)
        with metrics.stage("encode"):
            audio = self._encoder(mel)
        with metrics.stage("decode"):
            state = self._decoder.start(audio, 1)
            heard, writing = self._listen(state, utterances, full)
            hypotheses = self._write(heard, writing)
            self._doubt_terms(state, heard, hypotheses, full)
        self._align(state, utterances, hypotheses, full)
        return hypotheses

    def _align(
        self, state: DecoderState, utterances: Sequence[UtteranceAudio], hypotheses: list[Hypothesis], full: bool
    ) -> None:
        """Finds speech that is in no text, and when the words are said if that was asked for.

        Of what is done again in any case nothing needs to be known.
        """
        wanted = []
        for index, (utterance, hypothesis) in enumerate(zip(utterances, hypotheses, strict=True)):
            speech = utterance.options.speech
            if speech is not None:
                hypotheses[index] = hypothesis = _heard(hypothesis, speech)
            timed = utterance.options.words or (speech is not None and may_be_uncovered(speech))
            if timed and hypothesis.tokens and (full or not hypothesis.failing):
                wanted.append(index)
        if not wanted:
            return
        with metrics.stage("align"):
            timed_tokens = self._word_timer.times(state, wanted, [_said(hypotheses[index]) for index in wanted])
        for index, timed_text in zip(wanted, timed_tokens, strict=True):
            options, hypothesis = utterances[index].options, hypotheses[index]
            if options.words:
                words = timed_words(timed_text, self._tokenizer.decode, hypothesis.language)
                hypothesis = replace(hypothesis, words=words)
            if options.speech is not None and not hypothesis.invented:
                left_out = uncovered(timed_text.starts, options.speech, hypothesis.seconds)
                hypothesis = replace(hypothesis, uncovered=left_out)
            hypotheses[index] = hypothesis

    def _listen(
        self, state: DecoderState, utterances: Sequence[UtteranceAudio], full: bool
    ) -> tuple[list[_Heard], _Writing]:
        """Each utterance's language, whether there is speech, and the beginning of the writing.

        Both are asked of the audio alone: terms would speak for their own language, and for speech. Where there are
        none and the languages are known, or likely, that is the beginning of the prompts, which are read at once.
        """
        unknown = "" if self.vocabulary.multilingual else "en"
        likely = [each.language or each.options.expected_language or unknown for each in utterances]
        if all(map(self.vocabulary.supports, likely)) and not any(each.options.vocabulary for each in utterances):
            asked = [_Asked(each, row, likely[row]) for row, each in enumerate(utterances)]
            writing = self._begin(state, asked, full, with_terms=False)
            heard = self._judge(utterances, writing.hidden[:, 0])
            if [each.asked.language for each in heard] == likely:
                return heard, writing
        else:
            start = torch.full((len(utterances), 1), self.vocabulary.start, device=self._device)
            heard = self._judge(utterances, self._decoder.step(state, start)[:, 0])
        return heard, self._begin(state, [each.asked for each in heard], full, with_terms=True)

    def _judge(self, utterances: Sequence[UtteranceAudio], hidden: torch.Tensor) -> list[_Heard]:
        """What the start of a transcript, [rows, width], says of each utterance."""
        logits = self._decoder.logits(hidden)
        no_speech = logits.softmax(dim=-1)[:, self.vocabulary.no_speech].tolist()
        chances = logits[:, self._language_tokens].softmax(dim=-1).tolist()
        heard = []
        for row, utterance in enumerate(utterances):
            found = self._detected(utterance, chances[row])
            language = found.language if found else utterance.language or "en"
            asked = _Asked(utterance, row, language)
            heard.append(_Heard(asked, found.probability if found else None, no_speech[row]))
        return heard

    def _detected(self, utterance: UtteranceAudio, chances: Sequence[float]) -> Detected | None:
        if utterance.language is not None or not chances:
            return None
        languages = dict(zip(self.vocabulary.languages, chances, strict=True))
        seconds = len(utterance.samples) / SAMPLE_RATE
        return detected(languages, utterance.options.expected_language, self._best_known, seconds)

    def _begin(self, state: DecoderState, asked: Sequence[_Asked], full: bool, *, with_terms: bool) -> _Writing:
        """Has the prompts read for utterances of the batch whose audio `state` holds."""
        prompts = [self._prompt(each, with_terms) for each in asked]
        rows = [self._row(each.utterance, prompt, full) for each, prompt in zip(asked, prompts, strict=True)]
        longest = max(map(len, prompts))
        padding = [longest - len(prompt) for prompt in prompts]
        padded = [[self.vocabulary.end] * gap + prompt for gap, prompt in zip(padding, prompts, strict=True)]
        drafts = self._drafts(asked, longest + max(row.cap for row in rows))
        room = longest + capacity(rows, drafts)
        writing = self._decoder.start_again(state, [each.row for each in asked], room, padding)
        hidden = self._decoder.step(writing, torch.tensor(padded, device=self._device))
        return _Writing(writing, rows, drafts, hidden)

    def _write(self, heard: Sequence[_Heard], writing: _Writing) -> list[Hypothesis]:
        hidden = writing.hidden[:, -1:]
        if self._beams > 1:
            logits = self._decoder.logits(hidden[:, 0])
            rows = search(self._decoder, writing.state, self._choose, logits, writing.rows, self._beams)
        else:
            rows = writing.rows
            generate(self._decoder, writing.state, self._choose, hidden, rows, writing.drafts)
        return [self._hypothesis(each, row) for each, row in zip(heard, rows, strict=True)]

    def _prompt(self, asked: _Asked, with_terms: bool) -> list[int]:
        asking = self.vocabulary.prompt(asked.language)
        terms = self._term_tokens(asked.utterance.options.vocabulary) if with_terms else ()
        return [self.vocabulary.previous, *terms, *asking] if terms else asking

    def _drafts(self, asked: Sequence[_Asked], taken: int) -> list[Sequence[int]]:
        """The drafts, as far as there is room for them beside the `taken` tokens. Beams are not drafted."""
        drafts: list[Sequence[int]] = [each.utterance.options.draft for each in asked]
        left = max(0, self._decoder.capacity - taken) if self._beams == 1 else 0
        by_length = sorted(range(len(drafts)), key=lambda row: len(drafts[row]))
        for rows_left, row in zip(range(len(drafts), 0, -1), by_length, strict=True):
            drafts[row] = drafts[row][: left // rows_left]
            left -= len(drafts[row])
        return drafts

    def _read_terms(self, terms: tuple[str, ...]) -> tuple[int, ...]:
        """The terms as tokens; at most half of what a row can have, as in the model's training."""
        return tuple(prompt_tokens(terms, self._encode, self._decoder.capacity // 2 - 1))

    def _encode(self, text: str) -> list[int]:
        """The text's tokens, without the special ones that a client's text may spell."""
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        return [token for token in encoded.ids if token < self.vocabulary.end]

    def _row(self, utterance: UtteranceAudio, prompt: Sequence[int], full: bool) -> RowDecoding:
        duration = len(utterance.samples) / SAMPLE_RATE
        most = min(_TOKENS_AT_MOST, self._decoder.capacity - len(prompt))
        cap = most if full else min(most, _TOKENS_AT_LEAST + int(duration * _TOKENS_PER_SECOND))
        return RowDecoding(self.vocabulary, duration, cap, PATIENT if full else EAGER)

    def _doubt_terms(
        self, state: DecoderState, heard: Sequence[_Heard], hypotheses: list[Hypothesis], full: bool
    ) -> None:
        """Decodes again, without terms, what may be an echo of them: a text of nothing else, or where nobody speaks.

        What the guard knows for invented then stays away. A text that is one term is what was said if anything was; of
        several it is not known which were.
        """
        doubted = [
            each
            for each, hypothesis in zip(heard, hypotheses, strict=True)
            if (terms := each.asked.utterance.options.vocabulary) and _is_doubtful(hypothesis, terms)
        ]
        if not doubted:
            return
        metrics.REDONE.labels("echo").inc(len(doubted))
        writing = self._begin(state, [each.asked for each in doubted], full, with_terms=False)
        for each, plain in zip(doubted, self._write(doubted, writing), strict=True):
            row, terms = each.asked.row, each.asked.utterance.options.vocabulary
            listed = terms_alone(hypotheses[row].text, terms) and not within_one(hypotheses[row].text, terms)
            if listed or not plain.text or plain.invented:
                hypotheses[row] = plain

    def _hypothesis(self, heard: _Heard, row: RowDecoding) -> Hypothesis:
        language = heard.asked.language
        return Hypothesis(
            text=self._tokenizer.decode(row.text).strip(),
            tokens=tuple(row.text),
            log_probabilities=tuple(row.log_probabilities),
            certain=certain_beginning(row.text, row.log_probabilities, _CERTAIN, self._tokenizer.decode, language),
            written=tuple(row.tokens),
            language=language,
            language_probability=heard.language_probability,
            ending=row.ending or "cap",
            no_speech_probability=heard.no_speech_probability,
            seconds=row.duration,
            unheard_seconds=row.unheard_seconds,
        )


def _heard(hypothesis: Hypothesis, speech: Speech) -> Hypothesis:
    """The hypothesis beside the speech that was heard; what is not believed, or not written, covers none of it."""
    left_out = None
    if not hypothesis.tokens or hypothesis.invented:
        left_out = uncovered((), speech, hypothesis.seconds)
    until = hypothesis.seconds - hypothesis.unheard_seconds
    unheard = min(hypothesis.unheard_seconds, spoken_seconds(speech, until, hypothesis.seconds))
    return replace(hypothesis, unheard_seconds=unheard, uncovered=left_out)


def _said(hypothesis: Hypothesis) -> Said:
    return Said(hypothesis.tokens, hypothesis.log_probabilities, hypothesis.language, hypothesis.seconds)


def _is_doubtful(hypothesis: Hypothesis, terms: Sequence[str]) -> bool:
    silent = hypothesis.no_speech_probability > _DOUBTFUL_NO_SPEECH
    return bool(hypothesis.text) and (silent or terms_alone(hypothesis.text, terms))
