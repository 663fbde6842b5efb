"""The partials of one session: the text of an utterance in progress, before its final."""

import asyncio
from collections.abc import Awaitable, Callable

from server.audio.decoder import Samples
from server.inference.errors import InferenceError
from server.inference.recognition import Recognition
from server.session import metrics
from server.session.agreement import Agreement
from server.session.cadence import Cadence
from telemetry.logs import get_logger

log = get_logger(__name__)

Tokens = tuple[int, ...]


class Partials:
    """Transcribes the utterance in progress in repeated passes, and sends the prefix that they commit.

    Owns tasks, which run in the task group of its caller. The caller ends each utterance, and the whole, by `stop`.
    """

    def __init__(
        self,
        recognize: Callable[[Samples, Tokens], Awaitable[Recognition | None]],
        emit: Callable[[str, int, int], bool],
        tasks: asyncio.TaskGroup,
    ) -> None:
        """
        Args:
            recognize: transcribes, with a draft of the text; returns None if there was no time.
            emit: sends a text, and the samples at which its audio begins and ends; returns whether it could.
            tasks: the group to run in.
        """
        self._recognize = recognize
        self._emit = emit
        self._tasks = tasks
        self._passes: set[asyncio.Task[None]] = set()
        self._cadence = Cadence()
        self._start: int | None = None
        self._agreement = Agreement()
        self._newest_end = 0
        self._draft: Tokens = ()

    def update(self, start: int, end: int, read_audio: Callable[[int, int], Samples]) -> None:
        """Begins a pass over the utterance in progress, samples `start` to `end`, if one is due."""
        if start != self._start:
            self.stop()
            self._start, self._agreement, self._newest_end, self._draft = start, Agreement(), 0, ()
            self._cadence.start_utterance()
        now = asyncio.get_running_loop().time()
        if self._cadence.is_due(end, now):
            self._cadence.note_pass(end, now)
            task = self._tasks.create_task(self._run_pass(start, end, read_audio(start, end)))
            self._passes.add(task)
            task.add_done_callback(self._passes.discard)

    def stop(self) -> None:
        """Ends the partials of the utterance in progress. Passes that wait for the model are dropped."""
        self._start = None
        for task in self._passes:
            task.cancel()

    async def _run_pass(self, start: int, end: int, samples: Samples) -> None:
        try:
            recognition = await self._recognize(samples, self._draft)
        except InferenceError:
            # The final meets the same error or succeeds: the final is what matters.
            recognition = None
        except Exception:
            # A bug in the partials, which only shorten the wait for the final, must not end the session.
            log.exception("partial failed")
            recognition = None
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
        was_sent = self._emit(self._agreement.committed, start, end)
        metrics.PARTIALS.labels("sent" if was_sent else "unread").inc()
