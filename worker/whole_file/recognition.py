"""Transcribes the segments of a passage. A pure function of the samples, the plan and the options."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from domain.transcript import TimedWord, Utterance
from server.audio.decoder import MODEL_RATE, Samples
from server.inference.decoding.division import divided, joined
from server.inference.decoding.encoder_window import window
from server.inference.decoding.hypothesis import Hypothesis, UtteranceAudio
from server.inference.recognition import RecognitionOptions, Word
from server.inference.whisper.special_tokens import SpecialTokens
from worker.whole_file.candidates import best
from worker.whole_file.plan import Passage, Plan
from worker.whole_file.segment_batches import batches
from worker.whole_file.segmentation import SpokenSegment

SHORTEST_DIVIDED_SECONDS: Final = 5.0
"""A segment of this length is not divided: the model is worse at words than at sentences."""
_DEPTH: Final = 3
"""A segment of 28 s is divided at most three times: its parts are shorter than that then."""


class Model(Protocol):
    """The interface of a model that recognition needs; `Transcriber` implements it."""

    @property
    def full_window(self) -> int: ...

    @property
    def special_tokens(self) -> SpecialTokens: ...

    def transcribe(self, utterances: Sequence[UtteranceAudio], encoder_frames: int) -> list[Hypothesis]: ...


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
        hypotheses = self._transcribed(audio)
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

    def _transcribed(self, audio: Sequence[UtteranceAudio]) -> list[Hypothesis]:
        """The better of the attempts at each segment: a defect of the first is a reason for one with the full window.

        Beam search includes the greedy text among its candidates, so that greedy decoding has no attempt of its own.
        """
        found: dict[int, Hypothesis] = {}
        full_window = self.model.full_window
        for batch in batches([_seconds(each) for each in audio], full_window):
            frames = window(max(_seconds(audio[index]) for index in batch), full_window)
            hypotheses = self.model.transcribe([audio[index] for index in batch], frames)
            found.update(zip(batch, hypotheses, strict=True))
            for index in batch:
                if found[index].failing and frames < full_window:
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
