"""Streams of the changes of a tenant's sessions, and the places of all streams of changes."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal
from uuid import UUID

from dalston.v1 import session_pb2 as pb
from prometheus_client import Counter, Gauge

from domain.credentials import Authorization
from domain.errors import StorageUnavailable
from domain.session_id import format_session_id
from persistence.postgres.change_notifier import ChangeNotifier
from persistence.postgres.changes import Change, ChangeStore
from persistence.postgres.position import Position
from server.access.gate import Gate
from server.rpc.auth import authorization_of
from server.rpc.downloads import is_head
from server.rpc.drain import Drain
from server.rpc.errors import describe
from server.rpc.interceptor import Context
from server.rpc.session_message import session_message
from server.session.errors import IdleTimeout, NoCapacity, ServerStopping

MAX_SNAPSHOT: Final = 1_000
HEARTBEAT_SECONDS: Final = 15.0
POLL_SECONDS: Final = 1.0
"""The shortest pause between two polls: a session is sent once in it, however often it changes."""
LONGEST_POLL_SECONDS: Final = 10.0
"""The longest pause between two polls: a proxy in front of Postgres may drop notifications."""
READMIT_SECONDS: Final = 5.0
WAIT_SECONDS: Final = 2.0
"""The longest wait for a notification: readmission and heartbeats are late by as much at most."""
_WRITE_SECONDS: Final = 60.0
"""The longest that a client may take to accept a message. The stream of a slower one ends without a last message."""
LAST_WRITE_SECONDS: Final = 1.0
_MAX_STREAMS: Final = 1_000
"""Concurrent streams of all tenants."""

_METHOD: Final = "WatchSessions"

_open = Gauge("dalston_watches", "Open streams of changes")
_sent = Counter("dalston_watch_messages_total", "Messages sent on streams of changes", ["type"])


class Watches:
    """All streams of changes of the process."""

    def __init__(
        self, changes: ChangeStore, change_notifier: ChangeNotifier, gate: Gate, drain: Drain, most_of_tenant: int
    ) -> None:
        self._changes = changes
        self._change_notifier = change_notifier
        self._gate = gate
        self._drain = drain
        self._most_of_tenant = most_of_tenant
        self._count = 0

    async def run(self, tenant_id: UUID, request: pb.WatchSessionsRequest, context: Context) -> None:
        """Serves one stream until its client disconnects or an error ends it.

        Raises:
            InvalidFilter: there is no such status.
            NoCapacity: there are too many streams.
            ServerStopping: the server drains.
            IdleTimeout: the client does not read.
            Unauthenticated, PermissionDenied: the key was revoked, has expired or has lost the scope.
            StorageUnavailable: Postgres was unavailable before the snapshot was complete.
        """
        with self.place(tenant_id) as changed:
            watch = _Watch(self._changes, tenant_id, request.status or None, context)
            try:
                self.refuse_when_stopping()
                if is_head(context):
                    await watch.check(request.resume_token)
                    return
                await watch.begin(request.resume_token)
                await self._follow(watch, changed, authorization_of(context))
            except IdleTimeout:
                raise
            except Exception as error:
                await watch.fail(error)
                raise

    async def _follow(self, watch: "_Watch", changed: asyncio.Event, authorization: Authorization) -> None:
        clock = asyncio.get_running_loop().time
        polled_at = admitted_at = clock()
        while True:
            await asyncio.sleep(POLL_SECONDS)
            is_notified = await is_set(changed, WAIT_SECONDS)
            self.refuse_when_stopping()
            if clock() - admitted_at >= READMIT_SECONDS:
                await self.readmit(_METHOD, authorization)
                admitted_at = clock()
            # Before and after the poll, which may take seconds while Postgres hangs.
            await watch.keep_alive()
            if is_notified or clock() - polled_at >= LONGEST_POLL_SECONDS:
                changed.clear()
                polled_at = clock()
                try:
                    await watch.poll()
                except StorageUnavailable:
                    # The position stays, so that no change is missed. Heartbeats continue.
                    changed.set()
            await watch.keep_alive()

    async def readmit(self, method: str, authorization: Authorization) -> None:
        """Checks whether a stream may continue.

        Raises:
            Unauthenticated, PermissionDenied: the key was revoked, has expired or has lost the scope.
        """
        try:
            await self._gate.readmit(method, authorization)
        except StorageUnavailable:
            # Nothing is read in the meantime either.
            return

    def refuse_when_stopping(self) -> None:
        """Raises ServerStopping if the server drains."""
        if self._drain.has_begun:
            raise ServerStopping("the server is stopping: connect again")

    @contextmanager
    def place(self, tenant_id: UUID) -> Iterator[asyncio.Event]:
        """A place for one stream; the event is set when the tenant's sessions may have changed, or the server drains.

        Raises:
            NoCapacity: there are too many streams.
        """
        if self._change_notifier.watches(tenant_id) >= self._most_of_tenant or self._count >= _MAX_STREAMS:
            raise NoCapacity("this server has reached its limit of streams of changes: close one, or try again")
        self._count += 1
        _open.inc()
        try:
            with self._change_notifier.watching(tenant_id) as changed, self._drain.waking(changed.set):
                yield changed
        finally:
            self._count -= 1
            _open.dec()


class _Watch:
    """One stream, and the position up to which its client has received the changes."""

    def __init__(self, changes: ChangeStore, tenant_id: UUID, status: str | None, context: Context) -> None:
        self._changes = changes
        self._tenant_id = tenant_id
        self._status = status
        self._context = context
        self._clock = asyncio.get_running_loop().time
        self._position: Position | None = None
        self._token = ""
        self._written_at: float | None = None

    async def check(self, token: str) -> None:
        """Raises the error that `begin` would raise for the token; sends nothing."""
        await self._changes.resume(self._tenant_id, self._status, token)

    async def begin(self, token: str) -> None:
        """Sends a snapshot, or the changes since the token, and then `ready`."""
        self._position = await self._changes.resume(self._tenant_id, self._status, token)
        if self._position is None:
            await self._snapshot()
        else:
            self._token = token
            await self.poll()
        await self._write("ready")

    async def poll(self) -> None:
        """Sends the changes since the last poll.

        Raises:
            StorageUnavailable: Postgres is unavailable; the next poll may send some of the changes again.
        """
        since = self._position
        assert since is not None  # noqa: S101 - it has begun
        page = await self._changes.page(self._tenant_id, self._status, since)
        reached = page.position
        await self._send(page.changes)
        while page.next is not None:
            page = await self._changes.page(self._tenant_id, self._status, since, page.next)
            await self._send(page.changes)
        self._move_to(reached)

    async def keep_alive(self) -> None:
        """Sends a heartbeat if nothing was sent for long."""
        if self._written_at is None or self._clock() - self._written_at >= HEARTBEAT_SECONDS:
            await self._write("heartbeat")

    async def fail(self, error: Exception) -> None:
        """Sends the error as a message if the stream has begun: HTTP/1.1 clients do not receive the status after it."""
        if self._written_at is None:
            return
        code, message = describe(error)
        try:
            async with asyncio.timeout(LAST_WRITE_SECONDS):
                await self._write("error", code=code, message=message)
        except (TimeoutError, IdleTimeout):
            return

    async def _snapshot(self) -> None:
        page = await self._changes.snapshot(self._tenant_id, self._status)
        reached, count = page.position, 0
        while True:
            for record in page.sessions:
                await self._write("snapshot", session_message(record))
            count += len(page.sessions)
            if page.next is None or count >= MAX_SNAPSHOT:
                break
            page = await self._changes.snapshot(self._tenant_id, self._status, page.next)
        self._move_to(reached)

    async def _send(self, changes: tuple[Change, ...]) -> None:
        for change in changes:
            if change.record is None:
                await self._write("deleted", pb.Session(id=format_session_id(change.session_id)))
            else:
                await self._write("changed", session_message(change.record))

    def _move_to(self, position: Position) -> None:
        self._position = position
        self._token = position.encode(self._tenant_id, self._status)

    async def _write(
        self,
        kind: Literal["snapshot", "ready", "changed", "deleted", "heartbeat", "error"],
        session: pb.Session | None = None,
        code: str | None = None,
        message: str | None = None,
    ) -> None:
        response = pb.WatchSessionsResponse(
            type=kind, session=session, resume_token=self._token, code=code, message=message
        )
        await write_in_time(self._context, response)
        self._written_at = self._clock()
        _sent.labels(kind).inc()


async def write_in_time(context: Context, message: Any) -> None:
    """Writes a message of a stream.

    Raises:
        IdleTimeout: the client does not read.
    """
    try:
        async with asyncio.timeout(_WRITE_SECONDS):
            await context.write(message)
    except TimeoutError:
        raise IdleTimeout(f"nothing was read for {_WRITE_SECONDS:g} seconds") from None


async def is_set(event: asyncio.Event, seconds: float) -> bool:
    """Waits for an event; returns whether it was set in time."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


async def any_set(events: Sequence[asyncio.Event], seconds: float) -> None:
    """Waits until one of the events is set, at most so long."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
