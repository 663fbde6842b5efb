"""The one thread that touches the models, and the queue in front of it."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from server.inference import metrics
from server.inference.batch_policy import BatchLimits, Candidate, next_batch
from server.inference.errors import EngineStopped, InferenceError, QueueFull, RecognitionFailed
from server.inference.transcriber import Hypothesis, Utterance
from telemetry.logs import get_logger

log = get_logger(__name__)


class Model(Protocol):
    """What the worker needs of a model; `Transcriber` is one."""

    @property
    def full_window(self) -> int: ...

    def transcribe(self, utterances: Sequence[Utterance], frames: int) -> list[Hypothesis]: ...


@dataclass(slots=True, eq=False)
class Job:
    """One utterance on its way through the queue."""

    model: str
    utterance: Utterance
    frames: int
    """The window to use; a second try takes the full one."""
    deliver: Callable[[Hypothesis | InferenceError], None]
    """Called once, on the worker's thread; must not block or raise."""
    abandoned: bool = False
    """Set by the caller that no longer waits: the job is dropped if it has not begun."""
    arrived: float = field(default_factory=time.perf_counter)


class Worker:
    """Runs batches on its own thread from `start` until `stop`."""

    def __init__(self, limits: BatchLimits, queue_limit: int) -> None:
        self._limits = limits
        self._queue_limit = queue_limit
        self._queue: deque[Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._models: Mapping[str, Model] = {}
        self._thread: threading.Thread | None = None

    def start(self, load: Callable[[], Mapping[str, Model]]) -> "Future[None]":
        """Starts the thread, which loads the models by name before anything else.

        Returns a future that is done once they are loaded, or fails with what loading raised; the thread is over then.
        """
        loaded: Future[None] = Future()
        # A daemon, so that a process that dies without stopping its engine does die.
        self._thread = threading.Thread(target=self._main, args=(load, loaded), name="model", daemon=True)
        self._thread.start()
        return loaded

    def submit(self, job: Job) -> None:
        """Queues a job.

        Raises:
            EngineStopped: the worker is stopping.
            QueueFull: as many jobs as allowed are waiting.
        """
        with self._changed:
            if self._stopping:
                raise EngineStopped("the engine is stopping")
            if len(self._queue) >= self._queue_limit:
                self._drop_abandoned()
            if len(self._queue) >= self._queue_limit:
                metrics.REFUSED.inc()
                raise QueueFull(f"{self._queue_limit} utterances are waiting already")
            self._queue.append(job)
            metrics.QUEUE_LENGTH.set(len(self._queue))
            self._changed.notify()

    def stop(self) -> None:
        """Fails what is waiting, lets the batch that runs finish, and ends the thread. Blocks; may be called again."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _main(self, load: Callable[[], Mapping[str, Model]], loaded: "Future[None]") -> None:
        # From here on whoever waits can give up waiting, but not undo the start.
        loaded.set_running_or_notify_cancel()
        try:
            self._models = load()
        except BaseException as error:
            self._fail_waiting()
            loaded.set_exception(error)
            return
        loaded.set_result(None)
        try:
            while batch := self._take():
                self._run(batch)
        finally:
            self._fail_waiting()

    def _take(self) -> list[Job]:
        """Waits for the next batch and takes it off the queue; empty when stopping."""
        with self._changed:
            while not self._stopping:
                self._drop_abandoned()
                candidates = [Candidate(job.model, job.frames) for job in self._queue]
                if chosen := next_batch(candidates, self._limits):
                    batch = [self._queue[index] for index in chosen]
                    for job in batch:
                        self._queue.remove(job)
                    metrics.QUEUE_LENGTH.set(len(self._queue))
                    return batch
                self._changed.wait()
        return []

    def _drop_abandoned(self) -> None:
        waiting = [job for job in self._queue if not job.abandoned]
        metrics.DROPPED.inc(len(self._queue) - len(waiting))
        self._queue = deque(waiting)

    def _run(self, batch: Sequence[Job]) -> None:
        name, frames = batch[0].model, max(job.frames for job in batch)
        model = self._models[name]
        started = time.perf_counter()
        for job in batch:
            metrics.QUEUE_SECONDS.labels(name).observe(started - job.arrived)
        metrics.BATCH_SIZE.labels(name).observe(len(batch))
        try:
            hypotheses = model.transcribe([job.utterance for job in batch], frames)
        except Exception:
            log.exception("batch failed", model=name, utterances=len(batch), frames=frames)
            metrics.FAILED_BATCHES.inc()
            if len(batch) == 1:
                batch[0].deliver(RecognitionFailed("the model failed on this utterance"))
            else:
                for job in batch:  # one of them may be at fault; the others are not to suffer for it
                    self._run([job])
            return
        again = []
        for job, hypothesis in zip(batch, hypotheses, strict=True):
            if (reason := hypothesis.failing) and frames < model.full_window:
                metrics.REDONE.labels(reason).inc()
                job.frames = model.full_window
                again.append(job)
            else:
                job.deliver(hypothesis)
        self._put_back(again)

    def _put_back(self, jobs: Sequence[Job]) -> None:
        """Jobs to be done again go first: they have waited longest."""
        with self._changed:
            self._queue.extendleft(reversed(jobs))

    def _fail_waiting(self) -> None:
        with self._changed:
            self._stopping = True
            waiting, self._queue = self._queue, deque()
            metrics.QUEUE_LENGTH.set(0)
        for job in waiting:
            job.deliver(EngineStopped("the engine stopped before this utterance was transcribed"))
