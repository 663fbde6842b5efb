"""What a session has to say. All times are seconds from the first byte of the session's audio."""

from dataclasses import dataclass

from server.inference.recognition import Word


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    timestamp: float


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    timestamp: float


@dataclass(frozen=True, slots=True)
class Partial:
    """What an utterance sounds like so far. Replaces the partial before it; the next, or the final, replaces it."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Final:
    """What an utterance said. Never changes."""

    text: str
    start: float
    end: float
    confidence: float
    language: str
    language_probability: float | None = None
    """None where the language was told."""
    words: tuple[Word, ...] = ()
    """If the session asked for them; none begins before the final does or ends after it."""


@dataclass(frozen=True, slots=True)
class SpeechSuppressed:
    """An utterance has no final. Comes where the final would."""

    start: float
    end: float
    reason: str
    """Why what the model wrote was not believed, or `empty` where it wrote nothing."""


@dataclass(frozen=True, slots=True)
class ContainerFound:
    """The audio begins like a file of another format than the raw samples that it is taken for."""

    format: str


@dataclass(frozen=True, slots=True)
class Flushed:
    """Everything received before the flush has been transcribed."""

    timestamp: float


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """How far the session has come. It comes after the finals of what it calls processed."""

    received_seconds: float
    processed_seconds: float
    """Everything before is in finals, or nothing was said."""


@dataclass(frozen=True, slots=True)
class Terminating:
    """The server stops: the session is ended after so many seconds unless it ends before."""

    reason: str
    grace_seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The last event of a session that ran to its end."""

    total_duration: float
    total_speech_duration: float
    finals: tuple[Final, ...]

    @property
    def transcript(self) -> str:
        """The texts of all finals, joined by spaces."""
        return " ".join(final.text for final in self.finals)


Event = (
    SpeechStarted
    | SpeechEnded
    | Partial
    | Final
    | SpeechSuppressed
    | ContainerFound
    | Flushed
    | Acknowledged
    | Terminating
    | Ended
)
