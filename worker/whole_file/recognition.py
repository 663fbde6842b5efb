"""Transcribes the segments of a passage. A pure function of the samples, the plan and the options.

A doubtful segment is decoded again after the text of the other segments of its passage, which shows the model how
numbers and names are written. Only accepted texts of the first attempt are used for that, so that a repetition cannot
feed itself, and passages do not depend on each other.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from domain.transcript import TimedWord, Utterance
from server.audio.decoder import MODEL_RATE, Samples
from server.inference.decoding.division import divided, joined
from server.inference.decoding.encoder_window import window
from server.inference.decoding.hypothesis import Hypothesis, UtteranceAudio
from server.inference.decoding.transcriber import EncodedBatch
from server.inference.recognition import RecognitionOptions, Word
from server.inference.whisper.special_tokens import SpecialTokens
from worker.whole_file.candidates import best, better_after
from worker.whole_file.plan import Passage, Plan
from worker.whole_file.segment_batches import batches
from worker.whole_file.segmentation import SpokenSegment

SHORTEST_DIVIDED_SECONDS: Final = 5.0
"""A segment of this length is not divided: the model is worse at words than at sentences."""
_DEPTH: Final = 3
"""A segment of 28 s is divided at most three times: its parts are shorter than that then."""


DOUBTFUL: Final = -0.25
"""Mean log probability below which a segment is decoded again with the text around it as the preceding text."""
LONGEST_GAP_SECONDS: Final = 10.0
"""Text beyond a longer silence is not around a segment any more: the subject may have changed."""


class Model(Protocol):
    """The interface of a model that recognition needs; `Transcriber` implements it."""

    @property
    def full_window(self) -> int: ...

    @property
    def special_tokens(self) -> SpecialTokens: ...

    def transcribe(self, utterances: Sequence[UtteranceAudio], encoder_frames: int) -> list[Hypothesis]: ...

    def encode(self, utterances: Sequence[UtteranceAudio], encoder_frames: int) -> EncodedBatch: ...

    def decode(self, batch: EncodedBatch) -> list[Hypothesis]: ...

    def decode_after(
        self, batch: EncodedBatch, hypotheses: Sequence[Hypothesis], previous: Mapping[int, str]
    ) -> dict[int, Hypothesis]: ...


@dataclass(frozen=True, slots=True)
class PassageRecognition:
    """How passages of a recording are transcribed."""

    model: Model
    """With the beam size to use."""
    bias_terms: tuple[str, ...] = ()
    """Words that the client expects, the most important first."""

    def recognize(self, plan: Plan, passage: Passage, samples: Samples) -> list[Utterance]:
        """The utterances of a passage, with times in seconds from the start of the recording.

        Args:
            plan: the plan of the recording.
            passage: one of its passages.
            samples: the audio from `passage.start` to `passage.end`.
        """
        audio = [self._audio(plan, segment, samples, passage.start) for segment in passage.segments]
        hypotheses = self._transcribed(audio, passage.segments)
        completed = [self._completed(each, found, _DEPTH) for each, found in zip(audio, hypotheses, strict=True)]
        return [
            _utterance(segment, hypothesis)
            for segment, hypothesis in zip(passage.segments, completed, strict=True)
            if hypothesis.text and hypothesis.invented is None
        ]

    def _audio(self, plan: Plan, segment: SpokenSegment, samples: Samples, offset: int) -> UtteranceAudio:
        """A segment as the model receives it. `offset` is where the samples begin."""
        speech = tuple(
            ((start - segment.start) / MODEL_RATE, (end - segment.start) / MODEL_RATE) for start, end in segment.speech
        )
        options = RecognitionOptions(
            words=True,
            bias_terms=self.bias_terms,
            speech=speech,
            expected_language=None if plan.is_language_certain else plan.language,
        )
        language = plan.language if plan.is_language_certain else None
        return UtteranceAudio(samples[segment.start - offset : segment.end - offset], language, options)

    def _transcribed(
        self, audio: Sequence[UtteranceAudio], segments: Sequence[SpokenSegment] | None = None
    ) -> list[Hypothesis]:
        """The best of the attempts at each utterance: a defect of the first is a reason for one with the full window.

        Beam search includes the greedy text among its candidates, so that greedy decoding has no attempt of its own.

        Args:
            audio: the utterances.
            segments: their segments, if they are whole ones; parts of one have no text around them.
        """
        full_window = self.model.full_window
        decoded: list[_Decoded] = []
        for rows in batches([_seconds(each) for each in audio], full_window):
            frames = window(max(_seconds(audio[index]) for index in rows), full_window)
            encoded = self.model.encode([audio[index] for index in rows], frames)
            decoded.append(_Decoded(rows, encoded, self.model.decode(encoded)))
        first = {index: each for batch in decoded for index, each in zip(batch.rows, batch.hypotheses, strict=True)}
        around = surrounding_texts(segments, [first[index] for index in range(len(audio))]) if segments else {}
        found = dict(first)
        for batch in decoded:
            for index, again in batch.after(self.model, around).items():
                found[index] = better_after(first[index], again)
        for batch in decoded:
            for index in batch.rows:
                if found[index].failing and not batch.encoded.full:
                    (again,) = self.model.transcribe([audio[index]], full_window)
                    found[index] = best([again, found[index]])
        return [found[index] for index in range(len(audio))]

    def _completed(self, audio: UtteranceAudio, hypothesis: Hypothesis, depth: int) -> Hypothesis:
        """The hypothesis, or that of its parts if it leaves out detected speech."""
        if not depth or _seconds(audio) <= SHORTEST_DIVIDED_SECONDS:
            return hypothesis
        first_timestamp = self.model.special_tokens.first_timestamp
        division = divided(audio, hypothesis, first_timestamp)
        if division is None:
            return hypothesis
        parts = [part.utterance for part in division.parts]
        found = [
            self._completed(part, of_part, depth - 1)
            for part, of_part in zip(parts, self._transcribed(parts), strict=True)
        ]
        return joined(hypothesis, division, found, first_timestamp)


@dataclass(frozen=True, slots=True)
class _Decoded:
    """A batch after its first attempt."""

    rows: list[int]
    """The index of each of its utterances."""
    encoded: EncodedBatch
    hypotheses: list[Hypothesis]

    def after(self, model: Model, previous: Mapping[int, str]) -> dict[int, Hypothesis]:
        """The hypotheses of those utterances that have a text to follow, by index."""
        texts = {row: previous[index] for row, index in enumerate(self.rows) if index in previous}
        if not texts:
            return {}
        again = model.decode_after(self.encoded, self.hypotheses, texts)
        return {self.rows[row]: hypothesis for row, hypothesis in again.items()}


def surrounding_texts(segments: Sequence[SpokenSegment], hypotheses: Sequence[Hypothesis]) -> dict[int, str]:
    """The text around each doubtful segment, by its index; none for those with none around them.

    It is the text after the segment and then the one before it: the model knows only text that precedes, and its end
    counts most. Texts with a defect are left out, and so is everything beyond a silence of `LONGEST_GAP_SECONDS`.

    Args:
        segments: consecutive ones.
        hypotheses: of the first attempt at each of them.
    """
    found: dict[int, str] = {}
    for run in _runs(segments):
        usable = [index for index in run if not hypotheses[index].failing]
        for place, index in enumerate(usable):
            around = [hypotheses[other].text for other in (*usable[place + 1 :], *usable[:place])]
            if around and hypotheses[index].mean_log_probability < DOUBTFUL:
                found[index] = " ".join(around)
    return found


def _runs(segments: Sequence[SpokenSegment]) -> list[list[int]]:
    """The indices of the segments between two long silences."""
    runs: list[list[int]] = []
    for index, segment in enumerate(segments):
        if index and segment.start - segments[index - 1].end <= LONGEST_GAP_SECONDS * MODEL_RATE:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs


def _seconds(audio: UtteranceAudio) -> float:
    return len(audio.samples) / MODEL_RATE


def _utterance(segment: SpokenSegment, hypothesis: Hypothesis) -> Utterance:
    start, end = segment.start / MODEL_RATE, segment.end / MODEL_RATE

    def moved(seconds: float) -> float:
        return min(end, max(start, round(start + seconds, 3)))

    def timed(word: Word) -> TimedWord:
        return TimedWord(word.word, moved(word.start), moved(word.end), word.confidence)

    return Utterance(
        start=start,
        end=end,
        text=hypothesis.text,
        confidence=math.exp(hypothesis.mean_log_probability),
        language=hypothesis.language,
        language_probability=hypothesis.language_probability,
        words=tuple(map(timed, hypothesis.words)),
    )
