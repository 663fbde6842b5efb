"""What a worker reports of itself: its state, its jobs, and what keeps it from doing them."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from dalston.v1.status_pb2 import Process, WorkerFigures

from worker.jobs.interruption import Interruption
from worker.jobs.job_run import JobRun
from worker.jobs.model_process import ModelProcess


class WorkerReport:
    """Describes one worker."""

    def __init__(self, model: ModelProcess, interruption: Interruption, places: int) -> None:
        """`places`: jobs at a time."""
        self._model = model
        self._interruption = interruption
        self._places = places
        self._runs: set[JobRun] = set()

    @contextmanager
    def counting(self, run: JobRun) -> Iterator[None]:
        """Counts a job while the block runs."""
        self._runs.add(run)
        try:
            yield
        finally:
            self._runs.discard(run)

    def describe(self, process: Process) -> Collection[str]:
        """Fills in the state and the figures of the worker; returns its degradations other than those of storage."""
        process.state = "draining" if self._interruption.is_requested else "ready"
        process.worker.CopyFrom(WorkerFigures(jobs=len(self._runs), max_jobs=self._places))
        conditions = {
            "models": self._model.is_failing,
            "capacity": any(run.waits_for_capacity for run in self._runs),
        }
        return [name for name, is_true in conditions.items() if is_true]
