"""What a job needs of speech recognition. All methods are called on the thread of the model."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from domain.job import JobRequest
from domain.transcript import Utterance
from server.audio.decoder import Samples


class Audio(Protocol):
    """A recording, as the thread of the model reads it."""

    @property
    def length(self) -> int:
        """Samples at 16 kHz."""
        ...

    def read(self, first: int, last: int) -> Samples:
        """The samples from `first` to the one before `last`, mono 32-bit float at 16 kHz; shape [n].

        Any exception that it raises is to be passed on: it ends the work on the recording.
        """
        ...


class Plan(Protocol):
    """What listening has found: the language of a recording, and the windows in which somebody speaks."""

    @property
    def language(self) -> str:
        """ISO 639-1."""
        ...

    @property
    def ends(self) -> Sequence[float]:
        """Where each window ends, in seconds, in order."""
        ...

    def to_json(self) -> Any:
        """The plan as JSON, from which `Recognizer.plan_of` makes it again."""
        ...


class Judgement(Protocol):
    """The comparison of a new transcript with the live one."""

    @property
    def outcome(self) -> Literal["accepted", "doubtful", "no_speech"]:
        """`no_speech`: the new transcript is empty although the live one has text."""
        ...

    @property
    def reason(self) -> str:
        """One sentence; empty if the transcript is accepted."""
        ...

    @property
    def defect(self) -> str | None:
        """The rule that was not met, for metrics; None if the transcript is accepted."""
        ...


class Recognizer(Protocol):
    """Transcribes whole recordings. The same window has the same utterances whenever it is transcribed.

    A plan that it receives is one of its own.
    """

    @property
    def models(self) -> frozenset[str]:
        """The names that a job may request."""
        ...

    def supports(self, model: str, language: str) -> bool:
        """Whether the model exists and transcribes the language, ISO 639-1 or `auto`."""
        ...

    def listen(self, request: JobRequest, audio: Audio) -> Plan:
        """Processes the whole recording once."""
        ...

    def plan_of(self, json: Any) -> Plan:
        """The plan of `Plan.to_json`.

        Raises:
            ValueError: it is none, for example that of another release.
        """
        ...

    def recognize(self, request: JobRequest, plan: Any, number: int, audio: Audio) -> Sequence[Utterance]:
        """The utterances of a window of the plan; times in seconds from the start of the recording."""
        ...

    def judge(self, plan: Any, new: Sequence[Utterance], live: Sequence[Utterance], session_language: str) -> Judgement:
        """Whether a transcript may become the current one. `live` is empty if there is no live transcript."""
        ...
