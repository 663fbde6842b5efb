"""What a worker reports of itself."""

from dataclasses import dataclass
from typing import Any

from dalston.v1.status_pb2 import Process

from worker.jobs.interruption import Interruption
from worker.jobs.worker_report import WorkerReport


@dataclass(eq=False)
class Part:
    """A job in progress, or the process of the models, as far as a report reads it."""

    waits_for_capacity: bool = False
    is_failing: bool = False


def described(report: WorkerReport) -> tuple[Process, set[str]]:
    process = Process()
    return process, set(report.describe(process))


def test_jobs_in_progress_are_counted() -> None:
    model: Any = Part()
    report = WorkerReport(model, Interruption(), 2)
    job: Any = Part()
    with report.counting(job):
        process, degradations = described(report)
        assert (process.state, process.worker.jobs, process.worker.max_jobs) == ("ready", 1, 2)
        assert degradations == set()
    assert described(report)[0].worker.jobs == 0


async def test_a_worker_that_stops_drains() -> None:
    model: Any = Part()
    interruption = Interruption()
    report = WorkerReport(model, interruption, 2)
    interruption.request()
    assert described(report)[0].state == "draining"


def test_what_keeps_jobs_waiting_is_named() -> None:
    model: Any = Part(is_failing=True)
    report = WorkerReport(model, Interruption(), 2)
    job: Any = Part(waits_for_capacity=True)
    with report.counting(job):
        assert described(report)[1] == {"models", "capacity"}
    assert described(report)[1] == {"models"}
