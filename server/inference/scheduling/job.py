"""One utterance in the engine."""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

from server.inference.decoding.hypothesis import Hypothesis, UtteranceAudio
from server.inference.errors import InferenceError
from server.inference.scheduling.session_key import tenant_of
from server.inference.whisper.features import SAMPLE_RATE


@dataclass(slots=True, eq=False)
class Job:
    """An utterance to transcribe, its session, and where to deliver the result."""

    model: str
    utterance: UtteranceAudio
    encoder_frames: int
    """The window to use; a second attempt uses the full one."""
    deliver: Callable[[Hypothesis | InferenceError], None] = lambda _: None
    """Called by `settle`, on the worker's thread or on the submitting one; must not block or raise."""
    session: Hashable = None
    """The session of the utterance: sessions take turns."""
    is_bulk: bool = field(init=False, default=False)
    """Whether its session sends audio faster than real time, so that no client waits for the text; set by the queue."""
    high_beam_model: str | None = None
    """The model with a larger beam size to use while the engine is idle."""
    is_idle: bool = False
    """Whether the engine is idle otherwise: no other utterance waits, and no other session had a final just now. Set
    when the job is taken."""
    is_partial: bool = False
    """Whether the utterance is in progress: such a job may be dropped, and is attempted once."""
    abandoned: bool = False
    """Set by a caller that no longer waits: the job is dropped if it has not begun."""
    arrived: float = field(default_factory=time.perf_counter)
    trace: dict[str, float] = field(default_factory=dict)
    """Measurements of its last batch, in seconds except for counts; kept by `ModelThread`."""
    turn: float = field(init=False)
    """Since when it has waited for others: its arrival, or the end of its session's last batch if that is later; kept
    by the queue."""
    is_part: bool = False
    """Whether it is a part of an utterance that was attempted: like a second attempt, it keeps the turn of the
    utterance."""
    settled: bool = field(init=False, default=False)
    """Whether the outcome was delivered."""

    def __post_init__(self) -> None:
        self.turn = self.arrived

    def of_part(self, part: UtteranceAudio, encoder_frames: int) -> "Job":
        """A job for a part of its audio, with its turn."""
        job = replace(self, utterance=part, encoder_frames=encoder_frames, abandoned=False, trace={}, is_part=True)
        job.is_bulk, job.turn = self.is_bulk, self.turn
        return job

    @property
    def tenant(self) -> Hashable:
        """The tenant of its session: tenants take turns before sessions do."""
        return tenant_of(self.session)

    @property
    def is_repeat(self) -> bool:
        """Whether the utterance was attempted before."""
        return self.is_part or bool(self.trace)

    @property
    def chosen_model(self) -> str:
        """The model to use."""
        return self.high_beam_model if self.is_idle and self.high_beam_model else self.model

    @property
    def kind(self) -> str:
        return "partial" if self.is_partial else "final"

    @property
    def seconds(self) -> float:
        """Length of the utterance."""
        return len(self.utterance.samples) / SAMPLE_RATE

    def settle(self, result: Hypothesis | InferenceError) -> None:
        """Delivers the outcome; only the first one counts."""
        if not self.settled:
            self.settled = True
            self.deliver(result)
