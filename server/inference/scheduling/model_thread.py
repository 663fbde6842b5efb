"""The one thread that runs the models, and its queue."""

import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

import torch

from server.inference import metrics
from server.inference.batch_limits import BatchLimits
from server.inference.decoding.hypothesis import Failing, Hypothesis, UtteranceAudio
from server.inference.errors import EngineStopped, PartialDropped, QueueFull, RecognitionFailed
from server.inference.scheduling.job import Job
from server.inference.scheduling.job_queue import JobQueue
from telemetry.logs import get_logger

log = get_logger(__name__)


class Model(Protocol):
    """The interface of a model that the worker needs; `Transcriber` implements it."""

    @property
    def full_window(self) -> int: ...

    def transcribe(self, utterances: Sequence[UtteranceAudio], encoder_frames: int) -> list[Hypothesis]: ...


class ModelThread:
    """Runs batches on its own thread from `start` until `stop`."""

    def __init__(self, limits: BatchLimits, queue_limit: int, partial_share: float = 1.0) -> None:
        self._queue = JobQueue(limits, queue_limit, partial_share)
        self._changed = threading.Condition()
        self._stopping = False
        self._models: Mapping[str, Model] = {}
        self._batch: Sequence[Job] = ()
        self._thread: threading.Thread | None = None

    def start(self, load: Callable[[], Mapping[str, Model]], died: Callable[[], None] = lambda: None) -> "Future[None]":
        """Starts the thread, which loads the models by name before anything else.

        Args:
            load: returns the models.
            died: called on the thread when it ends otherwise than by `stop`: nothing is transcribed from then on.

        Returns:
            A future that is done once the models are loaded. It fails with the error of `load`; the thread has ended
            then.
        """
        loaded: Future[None] = Future()
        # A daemon, so that a process can exit without stopping its engine.
        self._thread = threading.Thread(target=self._main, args=(load, loaded, died), name="model", daemon=True)
        self._thread.start()
        return loaded

    def limit(self, limits: BatchLimits) -> None:
        """Changes the limits of later batches: the memory that is left is known once the models are loaded."""
        with self._changed:
            self._queue.limit(limits)

    def queue_delay_of(self, tenant: Hashable) -> float:
        """The queue delay of a tenant, in seconds: `JobQueue.queue_delay`."""
        with self._changed:
            return self._queue.queue_delay(time.perf_counter(), tenant)

    def submit(self, job: Job) -> None:
        """Queues a job. A partial replaces the waiting partial of its session.

        Raises:
            EngineStopped: the worker is stopping.
            QueueFull: the queue is full for jobs of its kind.
        """
        with self._changed:
            if self._stopping:
                raise EngineStopped("the engine is stopping")
            self._drop_abandoned()
            try:
                stale = self._queue.add(job)
            except QueueFull:
                metrics.REFUSED.labels(job.kind).inc()
                raise
            metrics.QUEUE_LENGTH.set(len(self._queue))
            self._changed.notify()
        if stale is not None:
            _drop_partials([stale], "merged")

    def stop(self) -> None:
        """Fails the waiting jobs, lets the current batch finish, and ends the thread. Blocks; may be called again."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _main(self, load: Callable[[], Mapping[str, Model]], loaded: "Future[None]", died: Callable[[], None]) -> None:
        # From here on a caller can stop waiting, but not cancel the start.
        if not loaded.set_running_or_notify_cancel():
            self._fail_waiting()
            return
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
        except BaseException:
            # A bug, or a lost device: later batches would fail as well.
            died()
            log.exception("the model's thread has died")
        finally:
            self._fail_waiting()

    def _take(self) -> list[Job]:
        """Waits for the next batch and takes it off the queue; empty when stopping."""
        while True:
            with self._changed:
                if self._stopping:
                    return []
                self._drop_abandoned()
                now = time.perf_counter()
                dropped = self._queue.drop_partials_without_time(now)
                self._batch = batch = self._queue.take(now)
                metrics.QUEUE_LENGTH.set(len(self._queue))
                if not batch and not dropped:
                    self._changed.wait(self._queue.pause(now))
            _drop_partials(dropped, "load")
            if batch:
                return batch

    def _drop_abandoned(self) -> None:
        for job in self._queue.drop_abandoned():
            metrics.DROPPED.labels(job.kind, "abandoned").inc()

    def _run(self, batch: Sequence[Job]) -> None:
        name, encoder_frames = batch[0].chosen_model, max(job.encoder_frames for job in batch)
        started = time.perf_counter()
        kind = batch[0].kind
        for job in batch:
            metrics.QUEUE_SECONDS.labels(name, kind).observe(started - job.arrived)
        metrics.BATCH_SIZE.labels(name, kind).observe(len(batch))
        outcomes: list[_Outcome] | None = None
        parts: list[list[Job]] = []
        try:
            model = self._models[name]
            with metrics.stages() as stages:
                hypotheses = model.transcribe([job.utterance for job in batch], encoder_frames)
            may_improve = encoder_frames < model.full_window
            outcomes = [_outcome(job, each, may_improve) for job, each in zip(batch, hypotheses, strict=True)]
        except torch.AcceleratorError:
            # After such an error every use of the device fails until another process uses it.
            raise
        except BaseException as error:  # a panic in a Rust library is not an Exception
            log.exception("batch failed", model=name, utterances=len(batch), encoder_frames=encoder_frames)
            metrics.FAILED_BATCHES.inc()
            parts = _parts(batch, error)
        if outcomes is None:
            # Not within the handler: the traceback holds the failed batch's memory.
            if not parts:
                for job in batch:
                    job.settle(RecognitionFailed("the model failed on this utterance"))
            for part in parts:
                self._run(part)
            return
        _note(batch, encoder_frames, started, stages)
        again = [outcome.job for outcome in outcomes if outcome.reason]
        for job, hypothesis, reason in outcomes:
            if reason:
                metrics.REDONE.labels(reason).inc()
                job.encoder_frames = model.full_window
            else:
                job.settle(hypothesis)
        self._put_back(again)

    def _put_back(self, jobs: Sequence[Job]) -> None:
        with self._changed:
            self._queue.put_back(jobs)

    def _fail_waiting(self) -> None:
        with self._changed:
            self._stopping = True
            left = [*self._batch, *self._queue.clear()]
            metrics.QUEUE_LENGTH.set(0)
        for job in left:
            job.settle(EngineStopped("the engine stopped before this utterance was transcribed"))


class _Outcome(NamedTuple):
    """The outcome of one job of a batch."""

    job: Job
    hypothesis: Hypothesis
    reason: Failing | None
    """Why the job needs another attempt."""


def _outcome(job: Job, hypothesis: Hypothesis, may_improve: bool) -> _Outcome:
    return _Outcome(job, hypothesis, hypothesis.failing if may_improve and not job.is_partial else None)


def _parts(batch: Sequence[Job], error: BaseException) -> list[list[Job]]:
    """The batches in which a failed batch is attempted again; empty if it is not.

    A batch that did not fit into memory is halved, with the short jobs in one half, because every row is as long as the
    longest. Otherwise each final is attempted alone: one of them may have caused the failure, which must not affect the
    others.
    """
    if len(batch) == 1:
        (job,) = batch
        high_beam, job.is_idle = job.chosen_model != job.model, False
        return [[job]] if high_beam else []
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        by_length = sorted(batch, key=lambda job: job.encoder_frames)
        return [by_length[: len(batch) // 2], by_length[len(batch) // 2 :]]
    return [] if batch[0].is_partial else [[job] for job in batch]


def _note(batch: Sequence[Job], encoder_frames: int, started: float, stages: Mapping[str, float]) -> None:
    """Writes the measurements of a batch to the trace of each of its jobs."""
    for job in batch:
        job.trace = {
            "waited": round(started - job.arrived, 4),
            "computed": round(time.perf_counter() - started, 4),
            "batch": len(batch),
            "attempts": job.trace.get("attempts", 0) + 1,
            "encoder_frames": encoder_frames,
            **{name: round(seconds, 4) for name, seconds in stages.items()},
        }


def _drop_partials(partials: Sequence[Job], reason: str) -> None:
    for job in partials:
        metrics.DROPPED.labels(job.kind, reason).inc()
        job.settle(PartialDropped("newer audio or finals take precedence"))
