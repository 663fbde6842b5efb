"""The stream of the changes of one batch job."""

import asyncio
from typing import Final
from uuid import UUID

from dalston.v1 import job_pb2 as pb

from domain.errors import StorageUnavailable
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
        JobNotFound: the tenant has no job of this id, or it went with its session meanwhile.
        NoCapacity: there are too many streams.
        ServerStopping: the server drains.
        IdleTimeout: the client does not read.
        Unauthenticated, PermissionDenied: the key was revoked, has expired or has lost the scope.
        StorageUnavailable: Postgres was unavailable at the beginning.
    """
    with watches.place(tenant_id) as changed:
        watches.refuse_when_stopping()
        message = job_message(await jobs.get(tenant_id, job_id))
        if not is_head(context):
            await _follow(jobs, watches, tenant_id, job_id, message, changed, context)


async def _follow(
    jobs: JobStore,
    watches: Watches,
    tenant_id: UUID,
    job_id: UUID,
    message: pb.Job,
    changed: asyncio.Event,
    context: Context,
) -> None:
    clock = asyncio.get_running_loop().time
    authorization = authorization_of(context)
    sent: pb.Job | None = None
    sent_at = read_at = admitted_at = clock()
    while True:
        if message != sent or clock() - sent_at >= HEARTBEAT_SECONDS:
            await write_in_time(context, message)
            sent, sent_at = message, clock()
        if message.HasField("ended_at"):
            return
        await asyncio.sleep(POLL_SECONDS)
        is_notified = await is_set(changed, WAIT_SECONDS)
        watches.refuse_when_stopping()
        if clock() - admitted_at >= READMIT_SECONDS:
            await watches.readmit(_METHOD, authorization)
            admitted_at = clock()
        if is_notified or clock() - read_at >= LONGEST_POLL_SECONDS:
            changed.clear()
            read_at = clock()
            try:
                message = job_message(await jobs.get(tenant_id, job_id))
            except StorageUnavailable:
                # The last state is sent on, so that the client sees that the stream lives.
                changed.set()
