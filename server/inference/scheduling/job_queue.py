"""The jobs that wait for the model. Pure: it knows no thread and no clock."""

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

LATE_SECONDS = 0.5
"""Finals that wait this long for others on average leave no time for partials. Batches of recordings that are ahead of
their time do not count: they take no more of it if there are partials."""
PATIENCE_SECONDS = 10.0
"""After so long without one of their batches recordings that are ahead of their time go before live finals."""

QUIET_SECONDS = 1.0
"""After so long without finals of other sessions there is time for one."""


class JobQueue:
    """In the order of arrival; batches are taken by turns."""

    def __init__(self, limits: BatchLimits, most: int, partial_share: float = 1.0) -> None:
        """
        Args:
            most: finals that may wait, and as many partials.
            partial_share: of the model's time, which partials may take.
        """
        self._limits = limits
        self._most = most
        self._waiting: deque[Job] = deque()
        self._at_model: list[Job] = []
        self._taken = float("-inf")  # when that was
        self._pace = Pace()
        self._bulk_taken = float("-inf")  # when one of those that are ahead went
        self._bulk_through = float("-inf")  # when their last batch was
        self._partials_due = 0.0  # seconds that partials may take before the next of those batches
        self._finals_of: dict[Hashable, float] = {}  # whose were taken of late, and when
        self._allowance = Allowance(partial_share)
        self._served: dict[tuple[Hashable, bool], float] = {}  # when tenants had their last batch, of those that wait
        self._queue_delay = TenantQueueDelay()
        self._crowding = DelayByTenant()  # the same within each tenant, without those batches

    def __len__(self) -> int:
        return len(self._waiting)

    def limit(self, limits: BatchLimits) -> None:
        """Changes the limits of the batches to come."""
        self._limits = limits

    def add(self, job: Job) -> Job | None:
        """Adds a job. A partial takes the place, and the turn, of the one of its session that waits, which is returned.

        One that goes on is put back: its utterance has been let in, and counted as said, already.

        Raises:
            QueueFull: as many jobs of its kind as allowed are waiting.
        """
        if job.goes_on:
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
        """The next batch, off the queue; empty only if the queue is, or has partials alone that are to wait longer.

        The batch before is through.
        """
        self._end_batch(now)
        candidates = [
            Candidate(job.model, job.frames, job.session, job.turn, _kind(job), job.tenant, self._tenant_served(job))
            for job in self._waiting
        ]
        batch = [self._waiting[index] for index in next_batch(candidates, self._limits, self._precedence(now))]
        if any(job.is_bulk for job in batch):
            self._bulk_taken = now
        self._drop(batch)
        self._tell_haste(batch, now)
        self._at_model, self._taken = batch, now
        # One note a batch: many that came just now do not make good for one that has waited long.
        if waits := [self._wait(job) for job in batch if _is_awaited(job)]:
            self._queue_delay.note(waits, now)
            for tenant in {job.tenant for job in batch if _is_awaited(job)}:
                first = min(job.turn for job in batch if _is_awaited(job) and job.tenant == tenant)
                self._crowding.note(tenant, now - max(first, self._bulk_through), now)
        return batch

    def pause(self, now: float) -> float | None:
        """In how many seconds a batch can be taken if none could be; None if another job must come first."""
        return self._allowance.wait(now) if self._waiting else None

    def queue_delay(self, now: float, tenant: Hashable = None) -> float:
        """How late text is for a tenant, in seconds: of late, or now if that is more.

        That is how long live finals of its sessions wait for those of other sessions; or, if that is more, how long
        those of any tenant wait for other tenants, for so would its next session's.
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
        """Takes jobs that are to be done again. They keep their turn, so they go before what came after them."""
        self._waiting.extendleft(reversed(jobs))

    def drop_abandoned(self) -> list[Job]:
        """Takes out the jobs that nobody waits for."""
        return self._drop([job for job in self._waiting if job.abandoned])

    def drop_partials_without_time(self, now: float) -> list[Job]:
        """Takes out the partials of tenants whose finals wait too long already."""
        return self._drop([job for job in self._waiting if job.is_partial and self._is_crowded(job.tenant, now)])

    def clear(self) -> list[Job]:
        """Takes out everything."""
        return self._drop(list(self._waiting))

    def _precedence(self, now: float) -> tuple[Kind, ...]:
        since = min((job.turn for job in self._waiting if job.is_bulk), default=now)
        if now - max(since, self._bulk_taken) > PATIENCE_SECONDS:
            order = BULK_FIRST
        else:
            order = BULK_LAST if self._partials_due > 0 else FINALS_FIRST
            if self._crowd_keeps_partials_waiting(now):
                order = PARTIALS_FIRST
        return tuple(kind for kind in order if kind != "partial") if self._allowance.wait(now) else order

    def _crowd_keeps_partials_waiting(self, now: float) -> bool:
        """Whether all live finals that wait are of tenants that have more of them than there is time for, and none that
        somebody else's partials are to wait for."""
        partials = {job.tenant for job in self._waiting if job.is_partial}
        live = {job.tenant for job in self._waiting if _kind(job) == "live"}
        return (
            bool(partials and live)
            and all(self._is_crowded(tenant, now) for tenant in live)
            and not any(self._is_crowded(tenant, now) for tenant in partials)
        )

    def _is_crowded(self, tenant: Hashable, now: float) -> bool:
        return self._crowding.of(tenant).at(now) >= LATE_SECONDS

    def _end_batch(self, now: float) -> None:
        """Has the next of those whose batch is through wait from now on; what is to be done again keeps its turn."""
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
        # What comes later has a later turn than that.
        waiting = {(job.tenant, job.is_partial) for job in self._waiting}
        self._served = {who: at for who, at in self._served.items() if who in waiting}
        self._at_model = []

    def _tell_haste(self, batch: Sequence[Job], now: float) -> None:
        """Where others have just had finals, the next one is likely to come while this one is written."""
        self._finals_of = {who: at for who, at in self._finals_of.items() if now - at < QUIET_SECONDS}
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
    """Whether it is live, and its wait is one for other sessions: what is done again has waited for itself."""
    return _kind(job) == "live" and not job.was_tried


def _kind(job: Job) -> Kind:
    if job.is_partial:
        return "partial"
    return "ahead" if job.is_bulk else "live"
