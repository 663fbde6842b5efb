"""One utterance on its way through the engine."""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

from server.inference.decoding.hypothesis import Hypothesis, UtteranceAudio
from server.inference.errors import InferenceError
from server.inference.scheduling.owner import tenant_of
from server.inference.whisper.features import SAMPLE_RATE


@dataclass(slots=True, eq=False)
class Job:
    """What is to be transcribed, for whom, and whom to tell."""

    model: str
    utterance: UtteranceAudio
    frames: int
    """The window to use; a second try takes the full one."""
    deliver: Callable[[Hypothesis | InferenceError], None] = lambda _: None
    """Called by `settle`, on the worker's thread or on that which submits; must not block or raise."""
    session: Hashable = None
    """Whose it is: sessions take turns."""
    is_bulk: bool = field(init=False, default=False)
    """Whether its session is ahead of its time, and nobody waits for the text as it is spoken; found by the queue."""
    high_beam_model: str | None = None
    """The model to use instead where there is time for a better one."""
    is_idle: bool = False
    """Whether there is: it is alone, and no other session had a final just now. Set when it is taken."""
    is_partial: bool = False
    """Whether the utterance goes on: such a job may be given up, and is tried once."""
    abandoned: bool = False
    """Set by the caller that no longer waits: the job is dropped if it has not begun."""
    arrived: float = field(default_factory=time.perf_counter)
    trace: dict[str, float] = field(default_factory=dict)
    """How it went: what `Worker` notes of the last batch it was in, in seconds but for counts."""
    turn: float = field(init=False)
    """Since when it waits for others: its arrival, or the end of its session's last batch if that is later; kept by the
    queue."""
    goes_on: bool = False
    """Whether it is of a part of an utterance that was tried: it goes before what came after that, as a second try."""
    settled: bool = field(init=False, default=False)
    """Whether it is known what became of it."""

    def __post_init__(self) -> None:
        self.turn = self.arrived

    def of_part(self, part: UtteranceAudio, frames: int) -> "Job":
        """A job of a part of its audio, in its place."""
        job = replace(self, utterance=part, frames=frames, abandoned=False, trace={}, goes_on=True)
        job.is_bulk, job.turn = self.is_bulk, self.turn
        return job

    @property
    def tenant(self) -> Hashable:
        """Whose its session is: tenants take turns before sessions do."""
        return tenant_of(self.session)

    @property
    def was_tried(self) -> bool:
        """Whether it is to be done again."""
        return self.goes_on or bool(self.trace)

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
        """Delivers what became of it; the first result counts."""
        if not self.settled:
            self.settled = True
            self.deliver(result)
