"""What the engine gives back for one utterance."""

from dataclasses import dataclass


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
    """Why the guard suppressed the text, else None."""
