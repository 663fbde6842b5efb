"""Claims jobs while there are places, and does them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from domain.errors import StorageUnavailable
from domain.job import JOB_KINDS
from persistence.backoff import Backoff
from persistence.errors import LeaseLost
from persistence.job_values import Claim
from persistence.worker_service import WorkerPersistence
from telemetry.logs import get_logger
from worker.jobs import metrics
from worker.jobs.interruption import Interruption

log = get_logger(__name__)

_COUNT_SECONDS: Final = 15.0


class JobLoop:
    """`run` works until the interruption; it owns the tasks of all jobs."""

    def __init__(
        self,
        persistence: WorkerPersistence,
        do: Callable[[Claim], Awaitable[None]],
        interruption: Interruption,
        *,
        places: int,
        poll_seconds: float,
    ) -> None:
        """
        Args:
            persistence: where the jobs are.
            do: does one job and writes how it ended; it ends soon after the interruption.
            interruption: the end of the worker.
            places: jobs at a time.
            poll_seconds: how often to look for jobs of which no notification has arrived.
        """
        self._persistence = persistence
        self._do = do
        self._interruption = interruption
        self._places = places
        self._poll_seconds = poll_seconds
        self._running: dict[asyncio.Task[None], Claim] = {}

    @property
    def running(self) -> int:
        """Jobs in progress."""
        return len(self._running)

    async def run(self) -> None:
        """Claims and does jobs until the interruption, and then until the jobs in progress have ended."""
        backoff = Backoff()
        try:
            while not self._interruption.is_requested:
                self._persistence.due.clear()
                try:
                    await self._fill()
                    backoff.reset()
                except StorageUnavailable as error:
                    log.warning("jobs are not claimed", reason=str(error))
                    await self._wait(backoff.next(), is_due=False)
                    continue
                except LeaseLost:
                    return
                except Exception:
                    # A database that answers with errors, such as a standby without our tables, may be replaced.
                    log.exception("jobs are not claimed")
                    await self._wait(backoff.next(), is_due=False)
                    continue
                await self._wait(self._poll_seconds, is_due=len(self._running) < self._places)
            while self._running:
                await self._wait(self._poll_seconds, is_due=False)
        finally:
            await self._cancel()

    async def count(self) -> None:
        """Keeps the metric of jobs up to date until cancelled."""
        while True:
            try:
                counts = {(each.status, each.kind): each.count for each in await self._persistence.claims.counts()}
                for status in ("queued", "running"):
                    for kind in JOB_KINDS:
                        metrics.jobs.labels(status, kind).set(counts.get((status, kind), 0))
            except StorageUnavailable:
                pass
            await asyncio.sleep(_COUNT_SECONDS)

    async def _fill(self) -> None:
        await self._persistence.requeue_unknown([claim.id for claim in self._running.values()])
        while len(self._running) < self._places and not self._interruption.is_requested:
            claim = await self._persistence.claims.claim()
            if claim is None:
                return
            if any(claim.id == known.id for known in self._running.values()):
                # Postgres has lost its claim in a failover. The job in progress has this one, and goes by its row.
                continue
            metrics.wait_seconds.observe(claim.waited_seconds)
            self._running[asyncio.create_task(self._run_one(claim), name=f"job {claim.id}")] = claim

    async def _run_one(self, claim: Claim) -> None:
        try:
            await self._do(claim)
        except Exception:
            # The next round queues the job again, and counts the attempt.
            log.exception("a job ended with an error", job_id=str(claim.id))

    async def _wait(self, seconds: float, *, is_due: bool) -> None:
        """Waits for a job to end, for the interruption, for a notification if `is_due`, or for some seconds."""
        waiting: list[asyncio.Task[Any]] = []
        if not self._interruption.is_requested:
            waiting.append(asyncio.create_task(self._interruption.wait()))
        if is_due:
            waiting.append(asyncio.create_task(self._persistence.due.wait()))
        try:
            await asyncio.wait([*self._running, *waiting], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        for task in [task for task in self._running if task.done()]:
            del self._running[task]

    async def _cancel(self) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
