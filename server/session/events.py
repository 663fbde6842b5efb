"""The events of a session. All times are seconds from the first byte of the session's audio."""

from dataclasses import dataclass

from domain.transcript import Utterance


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    timestamp: float


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    timestamp: float


@dataclass(frozen=True, slots=True)
class PartialResult:
    """The text of an utterance in progress. It replaces the partial before it; the next one, or the final, replaces
    it."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class FinalResult:
    """The final of an utterance. Never changes."""

    utterance: Utterance
    """With its words if the session requested them; none begins before the utterance or ends after it."""


@dataclass(frozen=True, slots=True)
class SpeechSuppressed:
    """An utterance has no final. Takes the final's place among the events."""

    start: float
    end: float
    reason: str
    """Why the text was suppressed, or `empty` where there was none."""


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
    """The progress of the session. Follows the finals of the audio that it reports as processed."""

    received_seconds: float
    processed_seconds: float
    """The audio before this point is covered by finals or has no speech."""


@dataclass(frozen=True, slots=True)
class Terminating:
    """The server stops: it ends the session after the grace period unless the client does so before."""

    reason: str
    grace_seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The last event of a session that was completed."""

    total_duration: float
    total_speech_duration: float
    utterances: tuple[Utterance, ...]
    """All finals, in order."""

    @property
    def transcript(self) -> str:
        """The texts of all finals, joined by spaces."""
        return " ".join(utterance.text for utterance in self.utterances)


Event = (
    SpeechStarted
    | SpeechEnded
    | PartialResult
    | FinalResult
    | SpeechSuppressed
    | ContainerFound
    | Flushed
    | Acknowledged
    | Terminating
    | Ended
)
