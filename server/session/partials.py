"""The partials of one session: what is told of an utterance before its final."""

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
    """Tries the utterance in progress again and again, and tells what can be told.

    Owns tasks: whoever makes one runs it in a task group, and ends each utterance and the whole by `stop`.
    """

    def __init__(
        self,
        recognize: Callable[[Samples, Tokens], Awaitable[Recognition | None]],
        tell: Callable[[str, int, int], bool],
        tasks: asyncio.TaskGroup,
    ) -> None:
        """
        Args:
            recognize: transcribes, with a draft of the text; None if there was no time.
            tell: takes a text and the samples from which to which it was heard; gives whether it could.
            tasks: the group to run in.
        """
        self._recognize = recognize
        self._tell = tell
        self._tasks = tasks
        self._tries: set[asyncio.Task[None]] = set()
        self._cadence = Cadence()
        self._start: int | None = None
        self._agreement = Agreement()
        self._told_until = 0
        self._draft: Tokens = ()

    def hear(self, start: int, end: int, audio: Callable[[int, int], Samples]) -> None:
        """The utterance that began at sample `start` has got as far as `end`: tries it if it is time."""
        if start != self._start:
            self.stop()
            self._start, self._agreement, self._told_until, self._draft = start, Agreement(), 0, ()
            self._cadence.begin()
        now = asyncio.get_running_loop().time()
        if self._cadence.is_due(end, now):
            self._cadence.tried(end, now)
            task = self._tasks.create_task(self._try(start, end, audio(start, end)))
            self._tries.add(task)
            task.add_done_callback(self._tries.discard)

    def stop(self) -> None:
        """Nothing more is told of the utterance in progress. Its tries that wait for the model are dropped."""
        self._start = None
        for task in self._tries:
            task.cancel()

    async def _try(self, start: int, end: int, samples: Samples) -> None:
        try:
            recognition = await self._recognize(samples, self._draft)
        except InferenceError:
            # The final meets the same error, or does not: it is what counts.
            recognition = None
        except Exception:
            # A mistake of ours with what only helps to wait for the final must not end the session.
            log.exception("a partial failed")
            recognition = None
        if recognition is None:
            self._cadence.slow_down()
            metrics.PARTIALS.labels("given up").inc()
            return
        if start != self._start or end < self._told_until:
            return
        self._told_until, self._draft = end, recognition.written
        # An empty text may be one that was not believed: it agrees with nothing, and takes nothing back.
        if not recognition.text or not self._agreement.hear(recognition.text, recognition.certain):
            metrics.PARTIALS.labels("unchanged").inc()
            return
        self._cadence.slow_down()
        was_told = self._tell(self._agreement.text, start, end)
        metrics.PARTIALS.labels("sent" if was_told else "unread").inc()
