"""The partials of one session: the text of an utterance in progress, before its final."""

import asyncio
from collections.abc import Callable

from server.audio.decoder import Samples
from server.inference.errors import InferenceError
from server.session import metrics
from server.session.agreement import Agreement
from server.session.cadence import Cadence
from server.session.clock import SampleClock
from server.session.events import Event, PartialResult
from server.session.language import SpokenLanguage
from server.session.recent_partials import RecentPartials
from server.session.recognizer import SessionRecognizer
from telemetry.logs import get_logger

log = get_logger(__name__)

Tokens = tuple[int, ...]


class Partials:
    """Transcribes the utterance in progress in repeated passes, and sends the prefix that they commit.

    Owns tasks, which run in the task group of its caller. The caller ends each utterance, and the whole, by `stop`.
    """

    def __init__(
        self,
        recognizer: SessionRecognizer,
        events: asyncio.Queue[Event | Exception | None],
        clock: SampleClock,
        tasks: asyncio.TaskGroup,
        recent: RecentPartials | None = None,
    ) -> None:
        """
        Args:
            events: the events of the session, to which partials are added unless the queue is full.
            tasks: the group to run in.
            recent: records how passes end.
        """
        self._recognizer = recognizer
        self._events = events
        self._clock = clock
        self._tasks = tasks
        self._recent = recent or RecentPartials()
        self._passes: set[asyncio.Task[None]] = set()
        self._cadence = Cadence()
        self._start: int | None = None
        self._agreement = Agreement()
        self._newest_end = 0
        self._draft: Tokens = ()

    def update(self, start: int, end: int, language: SpokenLanguage, read_audio: Callable[[int, int], Samples]) -> None:
        """Begins a pass over the utterance in progress, samples `start` to `end`, if one is due."""
        if self._events.full():
            return
        if start != self._start:
            self.stop()
            self._start, self._agreement, self._newest_end, self._draft = start, Agreement(), 0, ()
            self._cadence.start_utterance()
        now = asyncio.get_running_loop().time()
        if self._cadence.is_due(end, now):
            self._cadence.note_pass(end, now)
            task = self._tasks.create_task(self._run_pass(start, end, language, read_audio(start, end)))
            self._passes.add(task)
            task.add_done_callback(self._passes.discard)

    def stop(self) -> None:
        """Ends the partials of the utterance in progress. Passes that wait for the model are dropped."""
        self._start = None
        for task in self._passes:
            task.cancel()

    async def _run_pass(self, start: int, end: int, language: SpokenLanguage, samples: Samples) -> None:
        began = asyncio.get_running_loop().time()
        try:
            recognition = await self._recognizer.recognize_partial(samples, language, self._draft)
        except InferenceError:
            # The final meets the same error or succeeds: the final is what matters.
            recognition = None
        except Exception:
            # A bug in the partials, which only shorten the wait for the final, must not end the session.
            log.exception("partial failed")
            recognition = None
        self._recent.note_pass(has_text=recognition is not None)
        if recognition is None:
            self._cadence.slow_down()
            metrics.PARTIALS.labels("given up").inc()
            return
        if start != self._start or end < self._newest_end:
            return
        self._newest_end, self._draft = end, recognition.decoded_tokens
        # An empty text may have been suppressed: it agrees with no other pass and revokes nothing.
        if not recognition.text or not self._agreement.add_pass(recognition.text, recognition.certain_prefix):
            metrics.PARTIALS.labels("unchanged").inc()
            return
        self._cadence.slow_down()
        if self._events.full():
            # A client that does not read has no use for it: a later partial replaces it.
            metrics.PARTIALS.labels("unread").inc()
            return
        text = self._agreement.committed
        self._events.put_nowait(PartialResult(text, self._clock.seconds(start), self._clock.seconds(end)))
        self._recent.sent.add(asyncio.get_running_loop().time() - began)
        metrics.PARTIALS.labels("sent").inc()
