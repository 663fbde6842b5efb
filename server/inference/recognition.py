"""The engine's result for one utterance."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Word:
    """A word and its times."""

    word: str
    """As in the text, punctuation included."""
    start: float
    """Seconds from the start of the audio."""
    end: float
    confidence: float
    """Geometric mean of the probabilities of its tokens, 0 to 1."""


@dataclass(frozen=True, slots=True)
class RecognitionOptions:
    """Options for one utterance."""

    words: bool = False
    """Whether to return the words with their times."""
    bias_terms: tuple[str, ...] = ()
    """Words that the client expects, the most important first."""
    expected_language: str | None = None
    """If the language is to be detected: the language to assume unless the model is sure of another."""
    draft: tuple[int, ...] = ()
    """`Recognition.decoded_tokens` of less of the same audio. The decoder checks the draft in few steps and continues
    after its first wrong token: the same text, sooner."""
    speech: tuple[tuple[float, float], ...] | None = None
    """The stretches with detected speech, in seconds from the start of the audio, in order: an utterance whose text
    leaves some of it out is transcribed again. None: all of a final's audio counts as speech, and none of a
    partial's."""


TEXT_ONLY = RecognitionOptions()


@dataclass(frozen=True, slots=True)
class Recognition:
    """The transcription of one utterance."""

    text: str
    """Empty if the model returned no text, or if the guard suppressed it."""
    language: str
    """ISO 639-1 where there is such a code: the language requested, or the one detected."""
    confidence: float
    """exp of the mean log probability of the text's tokens, 0 to 1; 0 when there is no text."""
    no_speech_probability: float
    """The model's own probability that there is no speech in the utterance, 0 to 1."""
    suppressed: str | None
    """Why there is no text: the guard's reason for suppressing it, or `empty` if the model returned none; None if there
    is a text."""
    language_probability: float | None = None
    """The model's probability of the language, 0 to 1; None where it was requested."""
    words: tuple[Word, ...] = ()
    """If requested: the words of the text, in order, none before or after the audio. Empty without a text."""
    certain_prefix: str = ""
    """The beginning of the text, up to the first word of which the model is not certain."""
    decoded_tokens: tuple[int, ...] = ()
    """All decoded tokens, timestamps included, even if the text is suppressed: a draft for more of the audio."""
    effort: float = 1.0
    """The cost of the utterance, in passes of the model with the shortened window: more if it was transcribed again
    with the full window, or divided."""
