"""The worker process: how its parts are wired, and the order in which they start and stop."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Final

from domain.errors import StorageUnavailable
from persistence.background import running
from persistence.config import PersistenceSettings
from persistence.errors import LeaseLost
from persistence.job_values import Claim
from persistence.worker_service import open_worker_persistence
from server.inference.config import InferenceSettings
from telemetry.logs import configure_logging, get_logger
from telemetry.metrics import serve_metrics
from telemetry.settings import InvalidSettings, read_settings
from telemetry.signals import LastResort, exit_on_signals, stop_on_signals
from telemetry.variables import warn_of_unknown_variables
from worker.audio.scratch_folder import scratch_folder
from worker.config import WorkerSettings
from worker.jobs.interruption import Interruption
from worker.jobs.job_loop import JobLoop
from worker.jobs.job_run import JobRun
from worker.jobs.model_process import ModelProcess
from worker.jobs.worker_report import WorkerReport
from worker.media.scratch import Scratch
from worker.model.process import starting

log = get_logger(__name__)

EXIT_UNAVAILABLE: Final = 1
"""A dependency of the worker is unavailable: a later restart may succeed."""
EXIT_CONFIGURATION: Final = 2

_STOP_SECONDS: Final = 20.0
"""From SIGTERM to the end of the process, whatever hangs."""
_WINDOW_SECONDS: Final = 15.0
"""The part of these for the windows in progress; then their jobs are queued again without them."""

WHOLE_FILES: Final = "worker.whole_file.recognizer:load"
"""What loads the models, in the process that runs them."""


class ConfigurationError(Exception):
    """The worker cannot start as configured. The message is one sentence for the operator."""


async def work(settings: WorkerSettings, storage: PersistenceSettings, program: str) -> None:
    """Does jobs until SIGTERM or SIGINT.

    Args:
        settings: of the worker.
        storage: of Postgres and S3.
        program: `module:function`, which loads the models and returns the recognizer.

    Raises:
        ConfigurationError: the settings cannot be used.
        LeaseLost: another process has the worker id of this one.
        StorageUnavailable: Postgres or S3 does not answer at the start.
    """
    exit_on_signals()
    interruption = Interruption()
    async with AsyncExitStack() as stack:
        persistence = await stack.enter_async_context(open_worker_persistence(storage, settings.tenant_max_jobs))
        socket = settings.worker_metrics_socket
        stack.enter_context(serve_metrics(settings.worker_host, settings.worker_metrics_port, socket))
        folder = stack.enter_context(_scratch_folder(settings))
        scratch = Scratch(folder, settings.worker_disk_bytes)
        start = starting(program, settings.worker_priority, settings.log_level, settings.log_format)
        model = ModelProcess(start, interruption)
        stack.push_async_callback(model.close)

        report = WorkerReport(model, interruption, settings.jobs_at_once)
        persistence.reports.describe = report.describe

        async def do(claim: Claim) -> None:
            run = JobRun(claim, persistence, model, interruption, scratch, storage.job_retry_seconds)
            with report.counting(run):
                await run.run()

        loop = JobLoop(
            persistence, do, interruption, places=settings.jobs_at_once, poll_seconds=settings.worker_poll_seconds
        )
        last_resort = LastResort(lambda: EXIT_UNAVAILABLE if persistence.lost.is_set() else 0)
        stop = stop_on_signals(lambda: last_resort.begin(_STOP_SECONDS))
        await stack.enter_async_context(running(loop.count(), "count of jobs"))
        working = asyncio.create_task(loop.run(), name="jobs")
        log.info("worker ready", jobs_at_once=settings.jobs_at_once, priority=settings.worker_priority)
        await _first_of(stop, persistence.lost, working)
        log.info("worker stopping", jobs=loop.running)
        last_resort.begin(_STOP_SECONDS)
        interruption.request()
        await _finish(working)
    if persistence.lost.is_set():
        raise LeaseLost
    log.info("worker stopped")


@contextmanager
def _scratch_folder(settings: WorkerSettings) -> Iterator[Path]:
    """Raises ConfigurationError."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(scratch_folder(settings.worker_dir))
        except OSError as error:
            raise ConfigurationError(
                f"cannot write to {settings.worker_dir}: {error.strerror}; set DALSTON_WORKER_DIR to another folder"
            ) from error
        yield folder


async def _first_of(stop: asyncio.Event, lost: asyncio.Event, working: asyncio.Task[None]) -> None:
    waiting = [asyncio.create_task(stop.wait()), asyncio.create_task(lost.wait())]
    try:
        await asyncio.wait([*waiting, working], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


async def _finish(working: asyncio.Task[None]) -> None:
    """Lets the windows in progress end; the jobs of longer ones are queued again without them."""
    await asyncio.wait({working}, timeout=_WINDOW_SECONDS)
    if not working.done():
        log.warning("a window takes too long: its job is queued again")
        working.cancel()
        await asyncio.wait({working})
    if not working.cancelled() and (error := working.exception()) is not None:
        raise error


def main(program: str = WHOLE_FILES) -> int:
    """Runs the worker with the recognizer of a program. Returns the exit code."""
    try:
        settings = read_settings(WorkerSettings)
        storage = read_settings(PersistenceSettings)
        # The process of the models reads them. A mistake in them is to be noticed before the first job.
        read_settings(InferenceSettings)
    except InvalidSettings as error:
        print(error, file=sys.stderr)  # noqa: T201  logging is not configured yet
        return EXIT_CONFIGURATION
    configure_logging(settings.log_level, settings.log_format)
    warn_of_unknown_variables()
    try:
        asyncio.run(work(settings, storage, program))
    except ConfigurationError as error:
        log.error("cannot start", reason=str(error))
        return EXIT_CONFIGURATION
    except LeaseLost as error:
        log.error("worker stopped", reason=str(error))
        return EXIT_UNAVAILABLE
    except StorageUnavailable as error:
        log.error("cannot start", reason=str(error), component=error.component)
        return EXIT_UNAVAILABLE
    return 0
