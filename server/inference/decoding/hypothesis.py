"""What is to be transcribed, and what the model made of it before that is judged. Pure."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from server.inference.decoding.coverage import Stretch
from server.inference.decoding.guard import Evidence, Reason, invented
from server.inference.decoding.token_rules import EndReason
from server.inference.recognition import TEXT_ONLY, RecognitionOptions, Word

# The slowest of 349 utterances in four languages has 1.8 tokens a second.
_SPARSE_TOKENS_PER_SECOND = 1.5
_SPARSE_SECONDS = 3.0
_DOUBTFUL_NO_SPEECH = 0.5
_SURE = -0.2
"""Mean log probability from which a text is believed however much the model doubts that there is speech."""
_EARLY_SECONDS = 2.0
"""An utterance has less silence at its end: the voice activity detector has cut it off."""

Failing = Literal["loop", "cap", "empty", "suppressed", "no_speech", "coverage", "sparse", "early"]


@dataclass(frozen=True, slots=True)
class UtteranceAudio:
    """What is to be transcribed."""

    samples: NDArray[np.float32]
    """Mono, 16 kHz."""
    language: str | None
    """ISO 639-1, or None to detect it."""
    options: RecognitionOptions = TEXT_ONLY


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What the model made of one utterance, not yet judged."""

    text: str
    tokens: tuple[int, ...]
    """The text's tokens, cut where a loop began."""
    log_probabilities: tuple[float, ...]
    """Of these tokens."""
    language: str
    language_probability: float | None
    """None where the language was told."""
    ending: EndReason
    no_speech_probability: float
    seconds: float
    """Length of the utterance."""
    unheard_seconds: float = 0.0
    """How much of it comes after the last stamp, where the model stopped at one; only speech, if that is known."""
    uncovered: Stretch | None = None
    """Where speech was heard that no word covers, if it is known and is enough to be more than a pause."""
    certain: str = ""
    """How the text begins, as far as each of its words is certain."""
    written: tuple[int, ...] = ()
    """All tokens as they were written, stamps included."""
    words: tuple[Word, ...] = ()
    """If they were asked for, unless the hypothesis is to be done again."""

    @property
    def mean_log_probability(self) -> float:
        """0 when there are no tokens."""
        return sum(self.log_probabilities) / max(1, len(self.log_probabilities))

    @property
    def failing(self) -> Failing | None:
        """What a second try with the full window may mend.

        The model repeated itself or did not stop. There is no text, or none that is believed, or the model doubts both
        its text and that there is speech, as a shortened window makes it with single words and digits. Or speech is
        left out: no word covers it, or the text is too little for the time or ends long before the audio does. A
        shortened window, above all with a vocabulary, now and then has the model jump to the end.
        """
        if self.ending in ("loop", "cap"):
            return self.ending
        if not self.text:
            return "empty"
        if self.invented:
            return "suppressed"
        if self.no_speech_probability >= _DOUBTFUL_NO_SPEECH and self.mean_log_probability < _SURE:
            return "no_speech"
        if self.uncovered:
            return "coverage"
        if self.seconds > _SPARSE_SECONDS and len(self.tokens) < _SPARSE_TOKENS_PER_SECOND * self.seconds:
            return "sparse"
        return "early" if self.ends_early else None

    @property
    def ends_early(self) -> bool:
        """Whether the model stopped at a stamp long before the utterance ends."""
        return bool(self.tokens) and self.unheard_seconds > _EARLY_SECONDS

    @property
    def incomplete(self) -> Failing | None:
        """Why the full window's text cannot be the last either: the model has not got through speech that it does hear.

        Text that is little for its time is not meant: if words cover the speech, people may have said so little.
        """
        believed = self.text and not self.invented
        if not believed and self.no_speech_probability >= _DOUBTFUL_NO_SPEECH:
            return None
        if self.ending in ("loop", "cap"):
            return self.ending
        if self.uncovered:
            return "coverage"
        return "early" if self.ends_early else None

    @property
    def invented(self) -> Reason | None:
        """Why the text is taken to be made up, or None if it is believed."""
        return invented(
            Evidence(
                text=self.text,
                mean_log_probability=self.mean_log_probability,
                no_speech_probability=self.no_speech_probability,
                tokens_per_second=len(self.tokens) / max(self.seconds, 1e-3),
                looped=self.ending == "loop",
                first_log_probability=self.log_probabilities[0] if self.log_probabilities else 0.0,
            )
        )
