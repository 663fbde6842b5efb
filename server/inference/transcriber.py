"""One model: a batch of utterances in, a hypothesis for each out. Runs on the thread that calls it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from server.inference import metrics
from server.inference.alignment import Alignment
from server.inference.decoding import Ending, RowDecoding
from server.inference.generation import TokenChooser, generate
from server.inference.recognition import Word
from server.inference.repetition import EAGER, PATIENT
from server.inference.whisper.checkpoint import read_checkpoint
from server.inference.whisper.decoder import Decoder, DecoderState
from server.inference.whisper.encoder import Encoder
from server.inference.whisper.features import SAMPLE_RATE, LogMel
from server.inference.whisper.precision import Precision
from server.inference.whisper.vocabulary import SECONDS_PER_STAMP
from server.inference.words import TimedTokens, timed_words

_PROMPT_TOKENS = 3
_TOKENS_PER_SECOND = 12
_TOKENS_AT_LEAST = 20
_TOKENS_AT_MOST = 224
# The slowest of 349 utterances in four languages has 1.8 tokens a second.
_SPARSE_TOKENS_PER_SECOND = 1.5
_SPARSE_SECONDS = 3.0
_SPARSE_NO_SPEECH = 0.5

Failing = Literal["loop", "cap", "sparse"]


@dataclass(frozen=True, slots=True)
class Utterance:
    """What is to be transcribed."""

    samples: NDArray[np.float32]
    """Mono, 16 kHz."""
    language: str | None
    """ISO 639-1, or None to detect it."""
    words: bool = False
    """Whether its words are to be timed."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What the model made of one utterance, not yet judged."""

    text: str
    tokens: tuple[int, ...]
    """The text's tokens, cut where a loop began."""
    language: str
    ending: Ending
    mean_log_probability: float
    """Over the text tokens written; 0 when there are none."""
    no_speech_probability: float
    seconds: float
    """Length of the utterance."""
    words: tuple[Word, ...] = ()
    """If they were asked for, unless the hypothesis is to be done again."""

    @property
    def failing(self) -> Failing | None:
        """What a second try with the full window may mend: the model repeated itself, did not stop, or left text out.

        Left out is what is too little for the time, unless the model doubts that there is speech at all: a shortened
        window now and then has it jump from the first sentence to the end.
        """
        if self.ending in ("loop", "cap"):
            return self.ending
        sparse = self.seconds > _SPARSE_SECONDS and len(self.tokens) < _SPARSE_TOKENS_PER_SECOND * self.seconds
        return "sparse" if sparse and self.no_speech_probability < _SPARSE_NO_SPEECH else None


class Transcriber:
    """Whisper, with the window shortened to the utterances it is given."""

    def __init__(self, directory: Path, device: torch.device, precision: Precision) -> None:
        """Loads the model from a Hugging Face directory.

        Raises:
            WeightsError: the directory does not hold a usable Whisper model.
        """
        checkpoint = read_checkpoint(directory)
        self.vocabulary = checkpoint.vocabulary
        self.full_window = checkpoint.shape.max_source_positions
        """Encoder frames, of 20 ms, that the model was trained on."""
        self._device = device
        self._tokenizer = checkpoint.tokenizer
        self._features = LogMel(checkpoint.shape.num_mel_bins, device)
        self._encoder = Encoder(checkpoint, device, precision.encoder)
        self._decoder = Decoder(checkpoint, device, precision)
        self._choose = TokenChooser(self.vocabulary, device)
        languages = self.vocabulary.languages
        self._language_codes = list(languages)
        self._language_tokens = torch.tensor(list(languages.values()), dtype=torch.long, device=device)

    @torch.inference_mode()
    def transcribe(self, utterances: Sequence[Utterance], frames: int) -> list[Hypothesis]:
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
            rows = [self._row(utterance, full) for utterance in utterances]
            state = self._decoder.start(audio, _PROMPT_TOKENS + max(row.cap for row in rows))
            languages, no_speech, logits = self._prompt(state, [utterance.language for utterance in utterances])
            generate(self._decoder, state, self._choose, logits, rows)
        hypotheses = [
            self._hypothesis(row, language, probability)
            for row, language, probability in zip(rows, languages, no_speech, strict=True)
        ]
        timed = [
            index
            for index, (utterance, heard) in enumerate(zip(utterances, hypotheses, strict=True))
            if utterance.words and heard.tokens and (full or not heard.failing)
        ]
        if timed:
            with metrics.stage("align"):
                words = self._words(state, timed, rows, hypotheses)
            for index, found in zip(timed, words, strict=True):
                hypotheses[index] = replace(hypotheses[index], words=found)
        return hypotheses

    def _row(self, utterance: Utterance, full: bool) -> RowDecoding:
        duration = len(utterance.samples) / SAMPLE_RATE
        most = min(_TOKENS_AT_MOST, self._decoder.capacity - _PROMPT_TOKENS)
        cap = most if full else min(most, _TOKENS_AT_LEAST + int(duration * _TOKENS_PER_SECOND))
        return RowDecoding(self.vocabulary, duration, cap, PATIENT if full else EAGER)

    def _prompt(self, state: DecoderState, wanted: Sequence[str | None]) -> tuple[list[str], list[float], torch.Tensor]:
        """Reads the prompt: each row's language, its no-speech probability, and the logits of what comes first."""
        vocabulary = self.vocabulary
        if vocabulary.multilingual and None in wanted:
            first = self._read(state, [[vocabulary.start]] * len(wanted))[0]
            likeliest = first[:, self._language_tokens].argmax(dim=-1).tolist()
            languages = [
                language or self._language_codes[index] for language, index in zip(wanted, likeliest, strict=True)
            ]
            last = self._read(state, [vocabulary.prompt(language)[1:] for language in languages])[-1]
        else:
            languages = [language or "en" for language in wanted]
            first, last = self._read(state, [vocabulary.prompt(language) for language in languages])
        no_speech = first.softmax(dim=-1)[:, vocabulary.no_speech].tolist()
        return languages, no_speech, last

    def _read(self, state: DecoderState, tokens: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Has the decoder read the next tokens of each row; the logits after the first and after the last of them."""
        hidden = self._decoder.step(state, torch.tensor(tokens, device=self._device))
        return self._decoder.logits(hidden[:, 0]), self._decoder.logits(hidden[:, -1])

    def _hypothesis(self, row: RowDecoding, language: str, no_speech_probability: float) -> Hypothesis:
        return Hypothesis(
            text=self._tokenizer.decode(row.text).strip(),
            tokens=tuple(row.text),
            language=language,
            ending=row.ending or "cap",
            mean_log_probability=sum(row.log_probabilities) / max(1, len(row.text)),
            no_speech_probability=no_speech_probability,
            seconds=row.duration,
        )

    def _words(
        self, state: DecoderState, timed: Sequence[int], rows: Sequence[RowDecoding], heard: Sequence[Hypothesis]
    ) -> list[tuple[Word, ...]]:
        """The words of the rows `timed`, from one more pass over what they have written.

        Looked at without timestamps, as the alignment heads were chosen; during the decoding it would have to be kept
        for every row and step, of tries that come to nothing too.
        """
        vocabulary = self.vocabulary
        prompts = [[*vocabulary.prompt(heard[index].language), vocabulary.no_timestamps] for index in timed]
        tokens = [[*prompt, *rows[index].text] for prompt, index in zip(prompts, timed, strict=True)]
        frames = [math.ceil(rows[index].duration / SECONDS_PER_STAMP) for index in timed]
        alignment = Alignment([len(row) for row in tokens], frames, self._device)
        longest = max(len(row) for row in tokens)
        padded = [row + [vocabulary.end] * (longest - len(row)) for row in tokens]
        passed = self._decoder.start_again(state, timed, longest)
        self._decoder.step(passed, torch.tensor(padded, device=self._device), alignment.add)
        return [
            self._timed(rows[index], heard[index].language, alignment.starts(number, len(prompts[number]) - 1))
            for number, index in enumerate(timed)
        ]

    def _timed(self, row: RowDecoding, language: str, starts: NDArray[np.intp]) -> tuple[Word, ...]:
        seconds = np.minimum(starts * SECONDS_PER_STAMP, row.duration).tolist()
        timed = TimedTokens(row.text, row.log_probabilities, seconds)
        return timed_words(timed, self._tokenizer.decode, language)
