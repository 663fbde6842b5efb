"""The stream of the changes of one batch job."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final
from uuid import UUID

from domain.credentials import Authorization
from domain.errors import StorageUnavailable
from domain.job import JobRecord
from persistence.postgres.jobs import JobStore
from server.rpc.auth import authorization_of
from server.rpc.downloads import is_head
from server.rpc.interceptor import Context
from server.rpc.job_message import job_message
from server.rpc.watch import (
    HEARTBEAT_SECONDS,
    LONGEST_POLL_SECONDS,
    POLL_SECONDS,
    READMIT_SECONDS,
    WAIT_SECONDS,
    Watches,
    is_set,
    write_in_time,
)

_METHOD: Final = "WatchJob"


async def watch_job(jobs: JobStore, watches: Watches, tenant_id: UUID, job_id: UUID, context: Context) -> None:
    """Sends a job, then every change of it, until it has ended; without a change, the same every 15 s.

    Raises:
        IdleTimeout: the client does not read.
        Further errors are those of `job_states`.
    """
    states = job_states(jobs, watches, tenant_id, job_id, _METHOD, authorization_of(context))
    async with aclosing(states):
        async for record in states:
            if is_head(context):
                return
            await write_in_time(context, job_message(record))


async def job_states(
    jobs: JobStore, watches: Watches, tenant_id: UUID, job_id: UUID, method: str, authorization: Authorization
) -> AsyncGenerator[JobRecord, None]:
    """The state of a job, then every other one, until it has ended; without a change, the same every 15 s.

    Args:
        method: whose scope the caller's key must keep.

    Raises:
        JobNotFound: the tenant has no job of this id, or it was deleted with its session meanwhile.
        NoCapacity: there are too many streams.
        ServerStopping: the server drains.
        Unauthenticated, PermissionDenied: the key was revoked, has expired or has lost the scope.
        StorageUnavailable: Postgres was unavailable at the beginning.
    """
    clock = asyncio.get_running_loop().time
    with watches.place(tenant_id) as changed:
        watches.refuse_when_stopping()
        record = await jobs.get(tenant_id, job_id)
        sent: JobRecord | None = None
        sent_at = read_at = admitted_at = clock()
        while True:
            if record != sent or clock() - sent_at >= HEARTBEAT_SECONDS:
                sent, sent_at = record, clock()
                yield record
            if record.ended_at is not None:
                return
            await asyncio.sleep(POLL_SECONDS)
            is_notified = await is_set(changed, WAIT_SECONDS)
            watches.refuse_when_stopping()
            if clock() - admitted_at >= READMIT_SECONDS:
                await watches.readmit(method, authorization)
                admitted_at = clock()
            if is_notified or clock() - read_at >= LONGEST_POLL_SECONDS:
                changed.clear()
                read_at = clock()
                try:
                    record = await jobs.get(tenant_id, job_id)
                except StorageUnavailable:
                    # The last state is sent again, so that the client sees that the stream lives.
                    changed.set()
