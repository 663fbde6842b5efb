"""Streams of the finals of one session."""

import asyncio
from typing import Final, Literal
from uuid import UUID

from dalston.v1 import session_pb2 as pb
from dalston.v1.transcription_pb2 import Partial
from prometheus_client import Counter

from domain.credentials import Authorization
from domain.errors import StorageUnavailable
from domain.session_id import parse_session_id
from persistence.postgres.partials import PartialExchange, PartialFeed
from persistence.transcripts import Transcripts
from server.rpc.auth import authorization_of
from server.rpc.downloads import is_head
from server.rpc.errors import describe
from server.rpc.interceptor import Context
from server.rpc.utterance_message import utterance_message
from server.rpc.watch import (
    HEARTBEAT_SECONDS,
    LAST_WRITE_SECONDS,
    LONGEST_POLL_SECONDS,
    READMIT_SECONDS,
    WAIT_SECONDS,
    Watches,
    any_set,
    write_in_time,
)
from server.session.errors import IdleTimeout

PAUSE_SECONDS: Final = 0.5
"""The shortest pause between two reads. Finals are written once a second: they are sent within two."""
_PAGE: Final = 200
_METHOD: Final = "WatchUtterances"

_sent = Counter("dalston_utterance_watch_messages_total", "Messages sent on streams of utterances", ["type"])

Kind = Literal["utterance", "partial", "ended", "heartbeat", "error"]


class UtteranceWatches:
    """All streams of utterances of the process. They take the places of watches."""

    def __init__(self, transcripts: Transcripts, partials: PartialExchange, watches: Watches) -> None:
        self._transcripts = transcripts
        self._partials = partials
        self._watches = watches

    async def run(self, tenant_id: UUID, request: pb.WatchUtterancesRequest, context: Context) -> None:
        """Sends the finals of a session from `offset` on, until it has ended and all of them were sent.

        Raises:
            SessionNotFound, TranscriptNotStored: as their names say; the first also when it is deleted meanwhile.
            InvalidFilter: the offset is out of range.
            NoCapacity: there are too many streams.
            ServerStopping: the server drains.
            IdleTimeout: the client does not read.
            Unauthenticated, PermissionDenied: the key was revoked, has expired or has lost the scope.
            StorageUnavailable: Postgres was unavailable at the beginning.
        """
        session_id = parse_session_id(request.session_id)
        with self._watches.place(tenant_id) as changed:
            watch = _Watch(self._transcripts, tenant_id, session_id, request.offset, context)
            try:
                self._watches.refuse_when_stopping()
                if is_head(context):
                    await watch.check()
                    return
                if await watch.poll():
                    return
                spoken = asyncio.Event()
                # Only now is it known that the tenant may read the text of the session.
                with self._partials.watching(session_id, spoken.set) as feed:
                    await self._follow(watch, feed, changed, spoken, authorization_of(context))
            except IdleTimeout:
                raise
            except Exception as error:
                await watch.fail(error)
                raise

    async def _follow(
        self,
        watch: "_Watch",
        feed: PartialFeed,
        changed: asyncio.Event,
        spoken: asyncio.Event,
        authorization: Authorization,
    ) -> None:
        clock = asyncio.get_running_loop().time
        polled_at = admitted_at = clock()
        while True:
            await watch.keep_alive()
            await asyncio.sleep(PAUSE_SECONDS)
            await any_set((changed, spoken), WAIT_SECONDS)
            spoken.clear()
            self._watches.refuse_when_stopping()
            if clock() - admitted_at >= READMIT_SECONDS:
                await self._watches.readmit(_METHOD, authorization)
                admitted_at = clock()
            await watch.keep_alive()
            if changed.is_set() or clock() - polled_at >= LONGEST_POLL_SECONDS:
                changed.clear()
                polled_at = clock()
                try:
                    if await watch.poll():
                        return
                except StorageUnavailable:
                    # The index stays, so that no final is missed. Heartbeats continue.
                    changed.set()
            await watch.show(feed)


class _Watch:
    """One stream, and the index up to which its client has received the finals."""

    def __init__(
        self, transcripts: Transcripts, tenant_id: UUID, session_id: UUID, offset: int, context: Context
    ) -> None:
        self._transcripts = transcripts
        self._tenant_id = tenant_id
        self._session_id = session_id
        self._next = offset
        self._context = context
        self._clock = asyncio.get_running_loop().time
        self._written_at: float | None = None

    async def check(self) -> None:
        """Raises the error that the first `poll` would raise; sends nothing."""
        await self._transcripts.news(self._tenant_id, self._session_id, self._next, 1)

    async def poll(self) -> bool:
        """Sends the finals that are new; returns whether there will be no further ones.

        Raises:
            StorageUnavailable: Postgres is unavailable; call again.
        """
        while True:
            news = await self._transcripts.news(self._tenant_id, self._session_id, self._next, _PAGE)
            for each in news.utterances:
                if news.is_growing and each.index != self._next:
                    # One before it is still to be written, as after a failover of Postgres. The order is kept.
                    return False
                await self._write("utterance", utterance=utterance_message(each))
                self._next = each.index + 1
            if not news.has_next:
                break
        if not news.is_growing:
            await self._write("ended")
        return not news.is_growing

    async def show(self, feed: PartialFeed) -> None:
        """Sends the newest partial, if all finals before it were sent."""
        if (partial := feed.take(self._next)) is not None:
            await self._write("partial", partial=Partial(text=partial.text, start=partial.start, end=partial.end))

    async def keep_alive(self) -> None:
        """Sends a heartbeat if nothing was sent for long, or at all."""
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

    async def _write(
        self,
        kind: Kind,
        *,
        utterance: pb.Utterance | None = None,
        partial: Partial | None = None,
        code: str | None = None,
        message: str | None = None,
    ) -> None:
        response = pb.WatchUtterancesResponse(
            type=kind, utterance=utterance, partial=partial, code=code, message=message
        )
        await write_in_time(self._context, response)
        self._written_at = self._clock()
        _sent.labels(kind).inc()
