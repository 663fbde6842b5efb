"""Batch jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from dalston import messages
from dalston.backoff import Backoff
from dalston.calls import Calls
from dalston.errors import Busy, DalstonError, Unavailable
from dalston.events import Reconnecting
from dalston.records import Job, JobPage, JobStatus
from dalston.v1 import job_pb2 as pb

PAGE = 100
_WATCH_SILENCE_SECONDS = 40.0
"""The service sends the state of a watched job every 15 s."""
_WATCH_BACKOFF = Backoff(first=0.5, longest=15.0)


class AsyncJobs:
    """The batch jobs of the caller's tenant. Calls are retried within the timeout, unless a method states otherwise.

    `sessions.enhance` and `enhance_on_end` create them. All methods raise `NotFound` for a job that the tenant does not
    have, and `InvalidRequest` for a malformed id.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def list(
        self,
        *,
        status: JobStatus | str | None = None,
        kind: str | None = None,
        session_id: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Job]:
        """Jobs, newest first. Pages are fetched as they are needed.

        Args:
            status: only jobs of this status.
            kind: `enhance` or `upload`.
            session_id: only jobs of this session.
            limit: the largest number of jobs. Default: all.
        """
        if limit is not None and limit <= 0:
            raise ValueError("limit must be more than 0")
        left, cursor = limit, None
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = await self.page(status=status, kind=kind, session_id=session_id, limit=size, cursor=cursor)
            for job in page.jobs:
                yield job
            if left is not None:
                left -= len(page.jobs)
            cursor = page.next_cursor
            if cursor is None:
                return

    async def page(
        self,
        *,
        status: JobStatus | str | None = None,
        kind: str | None = None,
        session_id: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> JobPage:
        """One page of `list`: the first, or the page that follows the one whose `next_cursor` is `cursor`."""
        request = pb.ListJobsRequest(
            status=str(status) if status else "",
            kind=kind or "",
            session_id=session_id or "",
            limit=limit,
            cursor=cursor or "",
        )
        answer: pb.ListJobsResponse = await self._calls.call_with_retries(self._calls.jobs.ListJobs, request)
        return JobPage(tuple(messages.job(job) for job in answer.jobs), answer.next_cursor or None)

    async def get(self, job_id: str) -> Job:
        """One job."""
        return messages.job(
            await self._calls.call_with_retries(self._calls.jobs.GetJob, pb.GetJobRequest(job_id=job_id))
        )

    async def cancel(self, job_id: str) -> Job:
        """Cancels a job: a queued one at once, a running one within seconds. Returns its state at the time of the call.

        What it has transcribed is removed. A job that has ended stays as it is.
        """
        request = pb.CancelJobRequest(job_id=job_id)
        return messages.job(await self._calls.call_with_retries(self._calls.jobs.CancelJob, request))

    async def retry(self, job_id: str) -> Job:
        """Creates a job like one that has ended, and returns it. The call is not retried.

        Raises:
            JobActive: the job has not ended.
            JobRunning: another job of the session is queued or running.
            TooManyJobs: the tenant has reached its limit of queued jobs.
        """
        return messages.job(await self._calls.call_once(self._calls.jobs.RetryJob, pb.RetryJobRequest(job_id=job_id)))

    async def watch(
        self, job_id: str, *, on_reconnect: Callable[[Reconnecting], object] | None = None
    ) -> AsyncIterator[Job]:
        """First the current state of a job, then every change, until it has ended.

        After a lost connection the watch reconnects and continues.

        Args:
            job_id: the job.
            on_reconnect: called before each attempt to restore a lost connection.

        Raises:
            Unavailable, Busy: nothing has been received within the timeout of the client.
        """
        loop = asyncio.get_running_loop()
        attempt, seen = 0, None
        first_until: float | None = loop.time() + self._calls.timeout
        while True:
            request = pb.WatchJobRequest(job_id=job_id)
            stream = self._calls.stream(self._calls.jobs.WatchJob, request, _WATCH_SILENCE_SECONDS)
            error: DalstonError = Unavailable("the service ended the watch")
            try:
                async with aclosing(stream) as answers:
                    async for answer in answers:
                        if not isinstance(answer, pb.Job):
                            continue
                        attempt, first_until = 0, None
                        if (job := messages.job(answer)) != seen:
                            seen = job
                            yield job
                        if job.has_ended:
                            return
            except (Unavailable, Busy) as lost:
                error = lost
            attempt += 1
            pause = _WATCH_BACKOFF.pause(attempt, error.retry_after if isinstance(error, Busy) else None)
            if first_until is not None and loop.time() + pause >= first_until:
                raise error
            if on_reconnect is not None:
                on_reconnect(Reconnecting(attempt, pause, error.message))
            await asyncio.sleep(pause)

    async def wait(self, job_id: str, timeout: float | None = None) -> Job:  # noqa: ASYNC109 - a parameter of the API
        """Waits until a job has ended, and returns it: completed, failed or canceled.

        Args:
            job_id: the job.
            timeout: seconds to wait. Default: no limit. The job stays in progress after it.

        Raises:
            TimeoutError: it has not ended in time.
            Unavailable, Busy: nothing has been received within the timeout of the client.
        """
        try:
            async with asyncio.timeout(timeout), aclosing(self.watch(job_id)) as changes:  # type: ignore[type-var]
                async for job in changes:
                    if job.has_ended:
                        return job
        except TimeoutError:
            raise TimeoutError(f"job {job_id} has not ended within {timeout:g} seconds") from None
        raise AssertionError
