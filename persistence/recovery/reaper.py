"""Finishes what other processes left: the sessions of dead ones, interrupted deletions, objects without a session.

Every server has a reaper. They need no leader: a session that one works on is locked or assigned to it in Postgres, and
every step may be repeated.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from prometheus_client import Counter

from domain.errors import InvalidSessionId, StorageUnavailable
from domain.session_id import created_at, format_session_id
from persistence.errors import LeaseLost, NotOwner
from persistence.postgres.job_claims import LostJobs
from persistence.postgres.lease import Lease
from persistence.postgres.ownership import Ownership
from persistence.postgres.transcript_versions import TranscriptVersions
from persistence.s3.keys import SESSIONS_PREFIX, parse_version_key, session_of_key
from persistence.s3.objects import ObjectStore
from persistence.session_values import INTERRUPTED
from persistence.storing.deletion import delete_objects, delete_version_objects
from persistence.storing.remote_recovery import RemoteRecovery
from telemetry.logs import get_logger

log = get_logger(__name__)


_MOST_TAKEN: Final = 1000
_MOST_FORGOTTEN: Final = 10_000
_MOST_NAMED: Final = 10_000
_BATCH: Final = 20
_CONCURRENT: Final = 4
_RETRY_SECONDS: Final = 20.0
# For one session: two parts of 5 MiB up, 10 MiB down, and the retries of a slow store.
_DEADLINE_SECONDS: Final = 300.0

_reaped = Counter("dalston_workers_reaped_total", "Other processes that were considered dead")
_taken = Counter("dalston_sessions_taken_total", "Sessions taken over from processes that were considered dead")
_failed = Counter("dalston_recoveries_failed_total", "Failed attempts to end such a session; they are repeated")
_deletes = Counter("dalston_deletes_finished_total", "Interrupted deletions that have been finished")
_expired = Counter("dalston_sessions_expired_total", "Sessions deleted because their time was over")
_orphans = Counter("dalston_orphans_removed_total", "Deleted sessions whose remaining objects have been deleted")
_versions = Counter(
    "dalston_versions_removed_total", "Objects of versions that were deleted, or not completed, that have been deleted"
)
_unexplained = Counter(
    "dalston_orphans_kept_total", "Sessions with objects, without a row and without a deletion: they stay"
)

SpoolsOf = Callable[[Sequence[str]], Awaitable[None]]
"""Takes over the spools that these processes left on this machine, if there are any; called in every round."""


class Reaper:
    """`run` does a round every few seconds."""

    def __init__(
        self,
        lease: Lease,
        ownership: Ownership,
        remote_recovery: RemoteRecovery,
        objects: ObjectStore,
        versions: TranscriptVersions,
        spools_of: SpoolsOf,
        lost_jobs: LostJobs | None = None,
        *,
        pause_seconds: float,
        grace_seconds: float,
        delete_age_seconds: float,
        orphan_age_seconds: float,
        sweep_seconds: float,
        lost_lease_wait_seconds: float = 0.0,
    ) -> None:
        self._lease = lease
        self._ownership = ownership
        self._remote_recovery = remote_recovery
        self._objects = objects
        self._versions = versions
        self._spools_of = spools_of
        self._lost_jobs = lost_jobs
        self._pause_seconds = pause_seconds
        self._grace_seconds = grace_seconds
        self._delete_age_seconds = delete_age_seconds
        self._orphan_age_seconds = orphan_age_seconds
        self._sweep_seconds = sweep_seconds
        self._lost_lease_wait_seconds = lost_lease_wait_seconds
        # Begun, and neither ended nor deferred: Postgres became unavailable meanwhile.
        self._begun: set[UUID] = set()
        self._swept_at = time.monotonic()
        self._swept_to = ""
        self._unexplained: set[UUID] = set()

    async def run(self) -> None:
        """Does rounds until the lease is lost or the task is cancelled."""
        is_failing = False
        while True:
            await asyncio.sleep(self._pause_seconds * random.uniform(0.7, 1.3))  # noqa: S311 - jitter, not a secret
            try:
                await self.run_once()
                is_failing = False
            except LeaseLost:
                return
            except StorageUnavailable as error:
                if not is_failing:
                    log.warning("recovery waits", reason=str(error))
                is_failing = True
            except Exception:
                # A bug must not end the streams; the next round tries again.
                log.exception("a round of the reaper failed")

    async def run_once(self) -> None:
        """One round.

        Raises:
            StorageUnavailable: Postgres or S3 is unavailable.
            LeaseLost: this process is considered dead itself.
        """
        if self._lease.is_established:
            await self._take()
        await self._recover()
        await self._finish_deletes()
        if time.monotonic() - self._swept_at > self._sweep_seconds:
            self._swept_at = time.monotonic()
            await self._sweep()

    async def _take(self) -> None:
        reaped = await self._ownership.reap(
            self._grace_seconds,
            _MOST_TAKEN,
            INTERRUPTED,
            datetime.now(UTC),
            lost_lease_wait_seconds=self._lost_lease_wait_seconds,
            timeline=self._lease.timeline,
        )
        _reaped.inc(len(reaped.workers))
        _taken.inc(len(reaped.sessions))
        if reaped.sessions:
            log.warning("took over the sessions of dead servers", count=len(reaped.sessions), servers=reaped.workers)
        if self._lost_jobs is not None:
            for job in await self._lost_jobs.requeue():
                session_id = format_session_id(job.session_id)
                log.warning("took a job from a dead worker", session_id=session_id, has_failed=job.has_failed)
        await self._spools_of(reaped.workers)

    async def _recover(self) -> None:
        for session_id in list(self._begun):
            await self._defer(session_id, 0.0)
        while due := await self._ownership.due(_BATCH):
            # Without the lease, each would fail and be due again at once.
            self._lease.check()
            slots = asyncio.Semaphore(_CONCURRENT)
            async with asyncio.TaskGroup() as group:
                for session_id in due:
                    group.create_task(self._end(session_id, slots))

    async def _end(self, session_id: UUID, slots: asyncio.Semaphore) -> None:
        async with slots:
            try:
                # Before the call: its answer may be lost.
                self._begun.add(session_id)
                if not await self._ownership.begin_recovery(session_id):
                    self._begun.discard(session_id)
                    return
                session = await self._ownership.read_own(session_id)
                if session is not None:
                    async with asyncio.timeout(_DEADLINE_SECONDS):
                        await self._remote_recovery.end(session)
                self._done(session_id)
            except NotOwner:
                self._done(session_id)
            except (StorageUnavailable, TimeoutError, LeaseLost) as error:
                _failed.inc()
                log.warning("recovery waits", session_id=format_session_id(session_id), reason=str(error))
                await self._try_to_defer(session_id)
            except Exception:
                _failed.inc()
                log.exception("a session cannot be ended", session_id=format_session_id(session_id))
                await self._try_to_defer(session_id)

    def _done(self, session_id: UUID) -> None:
        self._begun.discard(session_id)
        self._ownership.end_recovery(session_id)

    async def _try_to_defer(self, session_id: UUID) -> None:
        try:
            await self._defer(session_id, _RETRY_SECONDS)
        except (StorageUnavailable, LeaseLost):
            log.warning("recovery waits for the database", session_id=format_session_id(session_id))

    async def _defer(self, session_id: UUID, seconds: float) -> None:
        await self._ownership.defer_recovery(session_id, seconds)
        self._begun.discard(session_id)

    async def _finish_deletes(self) -> None:
        _expired.inc(await self._ownership.expire(_BATCH))
        for session_id in await self._ownership.unfinished_deletions(self._delete_age_seconds, _BATCH):
            await self._remote_recovery.delete(session_id)
            _deletes.inc()

    async def _sweep(self) -> None:
        """Checks one page of the bucket, the next page the next time, and all unfinished uploads."""
        keys = await self._objects.page(SESSIONS_PREFIX, self._swept_to)
        self._swept_to = keys[-1] if keys else ""
        uploads = await self._objects.uploads_below(SESSIONS_PREFIX)
        oldest = datetime.now(UTC).timestamp() - self._orphan_age_seconds
        ids = {identifier for key in (*keys, *uploads) if (identifier := _session_of(key)) is not None}
        old = [identifier for identifier in ids if created_at(identifier).timestamp() < oldest]
        await self._ownership.delete_old_tombstones(_MOST_FORGOTTEN)
        if not old:
            return
        await self._delete_versions_left(keys, frozenset(old))
        rowless = await self._ownership.without_row(old)
        for session_id in rowless.deleted:
            await delete_objects(self._objects, session_id)
            _orphans.inc()
            log.warning("deleted the remaining objects of a deleted session", session_id=format_session_id(session_id))
        for session_id in rowless.unexplained:
            # A row that Postgres has lost is no reason to delete the objects of its session.
            if session_id in self._unexplained or len(self._unexplained) >= _MOST_NAMED:
                continue
            self._unexplained.add(session_id)
            _unexplained.inc()
            log.error("a session has objects and no row, and was not deleted", session_id=format_session_id(session_id))

    async def _delete_versions_left(self, keys: Sequence[str], old: frozenset[UUID]) -> None:
        """Deletes objects of versions that an interrupted deletion or an unsuccessful job has left."""
        found = [
            (session_of_key(key), version)
            for key in keys
            if (version := parse_version_key(key)) is not None and _session_of(key) in old
        ]
        if not found or not (left := await self._versions.superfluous(found)):
            return
        await delete_version_objects(self._objects, left)
        _versions.inc(len(left))
        for session_id, version in sorted(left):
            log.warning(
                "deleted the remaining object of a version", session_id=format_session_id(session_id), version=version
            )


def _session_of(key: str) -> UUID | None:
    try:
        return session_of_key(key)
    except InvalidSessionId:
        return None
