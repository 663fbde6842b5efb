"""The queue of jobs that wait for the model. Pure: without threads and clocks."""

from collections import deque
from collections.abc import Hashable, Sequence

from server.inference.batch_limits import BatchLimits
from server.inference.errors import QueueFull
from server.inference.scheduling.allowance import Allowance
from server.inference.scheduling.batch_policy import (
    BULK_FIRST,
    BULK_LAST,
    FINALS_FIRST,
    PARTIALS_FIRST,
    Candidate,
    Kind,
    next_batch,
)
from server.inference.scheduling.job import Job
from server.inference.scheduling.pace import Pace
from server.inference.scheduling.tenant_queue_delay import DelayByTenant, TenantQueueDelay, Wait

OVERLOAD_SECONDS = 0.5
"""Average wait of finals for others from which there is no time for partials. Waits for bulk batches do not count:
partials do not make these longer."""
STARVATION_LIMIT_SECONDS = 10.0
"""After so long without a bulk batch, bulk finals take precedence over live ones."""

QUIET_SECONDS = 1.0
"""After so long without finals of other sessions the engine counts as idle."""


class JobQueue:
    """Jobs in order of arrival; batches are taken by turns."""

    def __init__(self, limits: BatchLimits, most: int, partial_share: float = 1.0) -> None:
        """
        Args:
            most: the most finals that may wait, and the most partials.
            partial_share: the share of the model's time that partials may take.
        """
        self._limits = limits
        self._most = most
        self._waiting: deque[Job] = deque()
        self._at_model: list[Job] = []
        self._taken = float("-inf")  # when these jobs were taken
        self._pace = Pace()
        self._bulk_taken = float("-inf")  # when the last batch with a bulk job was taken
        self._bulk_through = float("-inf")  # when the last bulk batch ended
        self._partials_due = 0.0  # seconds that partials may take before the next bulk batch
        self._finals_of: dict[Hashable, float] = {}  # when each session last had a final taken
        self._allowance = Allowance(partial_share)
        self._served: dict[tuple[Hashable, bool], float] = {}  # when each waiting tenant's last batch ended
        self._queue_delay = TenantQueueDelay()
        self._delay_within = DelayByTenant()  # the same within each tenant, without waits for bulk batches

    def __len__(self) -> int:
        return len(self._waiting)

    def limit(self, limits: BatchLimits) -> None:
        """Changes the limits of the batches to come."""
        self._limits = limits

    def add(self, job: Job) -> Job | None:
        """Adds a job. A partial replaces the waiting partial of its session, which is returned, and takes over its
        turn.

        A part is put back instead: its utterance has been admitted, and counted for pacing, already.

        Raises:
            QueueFull: the queue is full for jobs of its kind.
        """
        if job.is_part:
            self.put_back([job])
            return None
        if job.is_partial and (stale := self._partial_of(job.session)) is not None:
            job.turn = stale.turn
            self._waiting[self._waiting.index(stale)] = job
            return stale
        if sum(waiting.is_partial == job.is_partial for waiting in self._waiting) >= self._most:
            raise QueueFull(f"{self._most} utterances are waiting already")
        if not job.is_partial:
            job.is_bulk = self._pace.is_bulk(job.session, job.seconds, job.arrived, self._has_final_of(job.session))
        self._waiting.append(job)
        return None

    def take(self, now: float) -> list[Job]:
        """Takes the next batch off the queue. It is empty only if the queue is, or if it has only partials that must
        wait.

        The previous batch must have ended.
        """
        self._end_batch(now)
        candidates = [
            Candidate(
                job.model, job.encoder_frames, job.session, job.turn, _kind(job), job.tenant, self._tenant_served(job)
            )
            for job in self._waiting
        ]
        batch = [self._waiting[index] for index in next_batch(candidates, self._limits, self._precedence(now))]
        if any(job.is_bulk for job in batch):
            self._bulk_taken = now
        self._drop(batch)
        self._mark_idle(batch, now)
        self._at_model, self._taken = batch, now
        # One note per batch: many that have just arrived do not make up for one that has waited long.
        if waits := [self._wait(job) for job in batch if _is_awaited(job)]:
            self._queue_delay.note(waits, now)
            for tenant in {job.tenant for job in batch if _is_awaited(job)}:
                first = min(job.turn for job in batch if _is_awaited(job) and job.tenant == tenant)
                self._delay_within.note(tenant, now - max(first, self._bulk_through), now)
        return batch

    def pause(self, now: float) -> float | None:
        """Seconds until a batch can be taken if none could be; None if another job must arrive first."""
        return self._allowance.wait(now) if self._waiting else None

    def queue_delay(self, now: float, tenant: Hashable = None) -> float:
        """The queue delay of a tenant, in seconds: the moving average, or the current wait if that is longer.

        It is how long live finals of the tenant's sessions wait for those of other sessions; or, if that is longer, how
        long those of any tenant wait for other tenants, because those of its next session would, too.
        """
        busy = {job.session for job in self._at_model if not job.is_partial}
        busy_tenants = {job.tenant for job in self._at_model if not job.is_partial}
        waits = [self._wait(job) for job in self._waiting if _is_awaited(job) and job.session not in busy]
        return self._queue_delay.of(tenant, waits, busy_tenants, self._taken, now)

    def _wait(self, job: Job) -> Wait:
        return Wait(job.tenant, job.turn, max(job.turn, self._tenant_served(job)))

    def _tenant_served(self, job: Job) -> float:
        return self._served.get((job.tenant, job.is_partial), float("-inf"))

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Puts jobs back for another attempt. They keep their turn."""
        self._waiting.extendleft(reversed(jobs))

    def drop_abandoned(self) -> list[Job]:
        """Removes the jobs whose callers no longer wait."""
        return self._drop([job for job in self._waiting if job.abandoned])

    def drop_partials_without_time(self, now: float) -> list[Job]:
        """Removes the partials of tenants whose finals wait too long already."""
        return self._drop([job for job in self._waiting if job.is_partial and self._is_overloaded(job.tenant, now)])

    def clear(self) -> list[Job]:
        """Removes all jobs."""
        return self._drop(list(self._waiting))

    def _precedence(self, now: float) -> tuple[Kind, ...]:
        since = min((job.turn for job in self._waiting if job.is_bulk), default=now)
        if now - max(since, self._bulk_taken) > STARVATION_LIMIT_SECONDS:
            order = BULK_FIRST
        else:
            order = BULK_LAST if self._partials_due > 0 else FINALS_FIRST
            if self._partials_go_first(now):
                order = PARTIALS_FIRST
        return tuple(kind for kind in order if kind != "partial") if self._allowance.wait(now) else order

    def _partials_go_first(self, now: float) -> bool:
        """Whether partials precede live finals: all waiting live finals are of overloaded tenants, and all waiting
        partials are of others."""
        partials = {job.tenant for job in self._waiting if job.is_partial}
        live = {job.tenant for job in self._waiting if _kind(job) == "live"}
        return (
            bool(partials and live)
            and all(self._is_overloaded(tenant, now) for tenant in live)
            and not any(self._is_overloaded(tenant, now) for tenant in partials)
        )

    def _is_overloaded(self, tenant: Hashable, now: float) -> bool:
        return self._delay_within.of(tenant).at(now) >= OVERLOAD_SECONDS

    def _end_batch(self, now: float) -> None:
        """Starts the turns of the sessions whose batch has ended anew; jobs that are put back keep their turn."""
        if self._at_model and all(job.is_bulk for job in self._at_model):
            self._bulk_through, self._partials_due = now, now - self._taken
        elif any(job.is_partial for job in self._at_model):
            self._partials_due -= now - self._taken
            self._allowance.spend(now - self._taken, now)
        served = {(job.session, job.is_partial) for job in self._at_model}
        for job in self._waiting:
            if (job.session, job.is_partial) in served and job not in self._at_model:
                job.turn = now
        self._served |= {(job.tenant, job.is_partial): now for job in self._at_model}
        # Jobs that arrive later have a later turn.
        waiting = {(job.tenant, job.is_partial) for job in self._waiting}
        self._served = {key: at for key, at in self._served.items() if key in waiting}
        self._at_model = []

    def _mark_idle(self, batch: Sequence[Job], now: float) -> None:
        """Sets `is_idle`. If other sessions have just had finals, the next one is likely to arrive during this
        batch."""
        self._finals_of = {key: at for key, at in self._finals_of.items() if now - at < QUIET_SECONDS}
        alone = len(batch) == 1 and all(job.is_partial for job in self._waiting)
        for job in batch:
            job.is_idle = alone and set(self._finals_of) <= {job.session}
        self._finals_of |= {job.session: now for job in batch if not job.is_partial}

    def _drop(self, jobs: Sequence[Job]) -> list[Job]:
        if jobs:
            self._waiting = deque(job for job in self._waiting if job not in jobs)
        return list(jobs)

    def _has_final_of(self, session: Hashable) -> bool:
        return any(job.session == session and not job.is_partial for job in (*self._at_model, *self._waiting))

    def _partial_of(self, session: Hashable) -> Job | None:
        return next((job for job in self._waiting if job.is_partial and job.session == session), None)


def _is_awaited(job: Job) -> bool:
    """Whether the job is live and waits for other sessions: a repeated attempt has waited for itself."""
    return _kind(job) == "live" and not job.is_repeat


def _kind(job: Job) -> Kind:
    if job.is_partial:
        return "partial"
    return "bulk" if job.is_bulk else "live"
