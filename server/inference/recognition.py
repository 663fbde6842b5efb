"""What the engine gives back for one utterance."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Word:
    """A word and when it was said."""

    word: str
    """As it stands in the text, punctuation included."""
    start: float
    """Seconds from the start of the audio."""
    end: float
    confidence: float
    """Geometric mean of the probabilities of its tokens, 0 to 1."""


@dataclass(frozen=True, slots=True)
class RecognitionOptions:
    """What is wanted beside the text."""

    words: bool = False
    """Whether the words are to be timed."""
    vocabulary: tuple[str, ...] = ()
    """Terms to listen for, the most important first."""
    expected_language: str | None = None
    """Where the language is to be detected: what it is unless the model is sure of another."""
    draft: tuple[int, ...] = ()
    """What the model wrote (`Recognition.written`) of less of the same audio. It reads the draft at once and writes on
    from where it would have written something else: the same text, sooner."""
    speech: tuple[tuple[float, float], ...] | None = None
    """Where the voice activity detector heard speech, in seconds from the start of the audio, in order: a text that
    leaves some of it out is done again. None: of a final all of the audio is taken for speech, of a partial nothing."""


TEXT_ONLY = RecognitionOptions()


@dataclass(frozen=True, slots=True)
class Recognition:
    """What was said in one utterance."""

    text: str
    """Empty when nothing was said, or when the guard suppressed what the model wrote."""
    language: str
    """ISO 639-1 where there is such a code: the language asked for, or the one detected."""
    confidence: float
    """exp of the mean log probability of the text's tokens, 0 to 1; 0 when there is no text."""
    no_speech_probability: float
    """The model's own probability that there is no speech in the utterance, 0 to 1."""
    suppressed: str | None
    """Why there is no text: the guard's reason to suppress it, or `empty` where the model wrote none; None if there
    is one."""
    language_probability: float | None = None
    """How likely the model finds the language, 0 to 1; None where it was told."""
    words: tuple[Word, ...] = ()
    """If they were asked for: those of the text, in order, none before or after the audio. Empty without a text."""
    certain: str = ""
    """How the text begins, as far as the model is sure of each word."""
    written: tuple[int, ...] = ()
    """The model's tokens as it wrote them, stamps included, whatever became of them: a draft for more of the audio."""
    effort: float = 1.0
    """What the utterance cost, in passes of the model with the shortened window: more where it was transcribed again
    with the full window, or divided."""
