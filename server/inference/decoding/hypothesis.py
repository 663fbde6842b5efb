"""The audio of an utterance, and the model's hypothesis for it before it is judged. Pure."""

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
"""Mean log probability from which a text is accepted whatever the no-speech probability."""
_EARLY_SECONDS = 2.0
"""An utterance has less silence than this at its end, because the segmenter cuts it off."""

Failing = Literal["loop", "cap", "empty", "suppressed", "no_speech", "coverage", "sparse", "early"]


@dataclass(frozen=True, slots=True)
class UtteranceAudio:
    """The audio of one utterance, and the options for its transcription."""

    samples: NDArray[np.float32]
    """Mono, 16 kHz."""
    language: str | None
    """ISO 639-1, or None to detect it."""
    options: RecognitionOptions = TEXT_ONLY


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """The model's result for one utterance, not judged yet."""

    text: str
    tokens: tuple[int, ...]
    """The tokens of the text, cut where a loop began."""
    log_probabilities: tuple[float, ...]
    """Of these tokens."""
    language: str
    language_probability: float | None
    """None where the language was requested."""
    ending: EndReason
    no_speech_probability: float
    seconds: float
    """Length of the utterance."""
    seconds_after_last_timestamp: float = 0.0
    """If the model stopped at a timestamp: the audio after it; only the detected speech, if that is known."""
    uncovered: Stretch | None = None
    """A stretch of detected speech that no word covers, if it is known and longer than a pause."""
    certain_prefix: str = ""
    """The beginning of the text, up to the first word that is not certain."""
    decoded_tokens: tuple[int, ...] = ()
    """All decoded tokens, timestamps included."""
    words: tuple[Word, ...] = ()
    """If requested, unless the utterance is to be transcribed again."""

    @property
    def mean_log_probability(self) -> float:
        """0 when there are no tokens."""
        return sum(self.log_probabilities) / max(1, len(self.log_probabilities))

    @property
    def failing(self) -> Failing | None:
        """A defect that a second attempt with the full window may repair.

        The model repeated itself or did not stop; or there is no text, or it would be suppressed, or both the text and
        the presence of speech are doubtful, as a shortened window causes with single words and digits; or speech is
        left out: no word covers it, or the text is too short for the audio or ends long before it. With a shortened
        window, above all with bias terms, the model sometimes skips to the end.
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
        """Whether the model stopped at a timestamp long before the end of the utterance."""
        return bool(self.tokens) and self.seconds_after_last_timestamp > _EARLY_SECONDS

    @property
    def incomplete(self) -> Failing | None:
        """Why the hypothesis with the full window is incomplete, too: the model has not covered detected speech.

        A text that is short for its time is not incomplete: if words cover the speech, there may be no more of them.
        """
        is_accepted = self.text and not self.invented
        if not is_accepted and self.no_speech_probability >= _DOUBTFUL_NO_SPEECH:
            return None
        if self.ending in ("loop", "cap"):
            return self.ending
        if self.uncovered:
            return "coverage"
        return "early" if self.ends_early else None

    @property
    def invented(self) -> Reason | None:
        """Why the text counts as a hallucination, or None if it does not."""
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
