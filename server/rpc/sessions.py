"""SessionService: the record of sessions, over persistence."""

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime
from typing import NoReturn
from uuid import UUID

from dalston.v1 import session_pb2 as pb
from dalston.v1 import session_pb2_grpc
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from persistence.records import SessionFilter, SessionRecord
from persistence.service import Persistence, StoredObject
from persistence.tenancy import current_caller
from server.rpc import unimplemented
from server.rpc.interceptor import Context
from server.rpc.times import timestamp
from server.session.errors import IdleTimeout, InvalidParameter

_SLOWEST_CHUNK_SECONDS = 60.0
"""For a reader to take 64 KiB: one that does not would hold a connection to S3 for ever."""
DEFAULT_LIMIT = 50


class SessionServicer(session_pb2_grpc.SessionServiceServicer):
    """Every method sees the caller's tenant only; errors are raised, not answered."""

    def __init__(self, persistence: Persistence) -> None:
        self._persistence = persistence

    async def ListSessions(self, request: pb.ListSessionsRequest, _context: Context) -> pb.ListSessionsResponse:
        limit = request.limit if request.HasField("limit") else DEFAULT_LIMIT
        wanted = SessionFilter(
            status=request.status or None,
            since=_time("since", request.since) if request.HasField("since") else None,
            until=_time("until", request.until) if request.HasField("until") else None,
        )
        page = await self._persistence.sessions.list(
            _tenant(), wanted, limit=limit, offset=request.offset, cursor=request.cursor or None
        )
        return pb.ListSessionsResponse(
            sessions=[session_message(record) for record in page.sessions],
            pagination=pb.Pagination(
                limit=limit, offset=request.offset, total=page.total, next_cursor=page.next_cursor
            ),
        )

    async def GetSession(self, request: pb.GetSessionRequest, _context: Context) -> pb.Session:
        return session_message(await self._get(request.session_id))

    async def DeleteSession(self, request: pb.DeleteSessionRequest, _context: Context) -> pb.DeleteSessionResponse:
        await self._persistence.delete(_tenant(), request.session_id)
        return pb.DeleteSessionResponse(deleted=True, session_id=request.session_id)

    async def GetAudio(self, request: pb.GetAudioRequest, context: Context) -> None:  # type: ignore[override]
        unimplemented.refuse_fields(request, unimplemented.QUERY_FIELDS)
        record = await self._get(request.session_id)
        await _send(context, await self._persistence.archive.audio(record), "audio/wav", f"{record.id}.wav")

    async def GetTranscript(self, request: pb.GetTranscriptRequest, context: Context) -> None:  # type: ignore[override]
        unimplemented.refuse_fields(request, unimplemented.QUERY_FIELDS)
        record = await self._get(request.session_id)
        await _send(context, await self._persistence.archive.transcript(record), "application/json")

    async def ListUtterances(self, _request: Message, _context: Context) -> NoReturn:
        unimplemented.refuse_method("ListUtterances")

    async def ExportTranscript(self, _request: Message, _context: Context) -> NoReturn:  # type: ignore[override]
        unimplemented.refuse_method("ExportTranscript")

    async def WatchSessions(self, _request: Message, _context: Context) -> NoReturn:  # type: ignore[override]
        unimplemented.refuse_method("WatchSessions")

    async def EnhanceSession(self, _request: Message, _context: Context) -> NoReturn:
        unimplemented.refuse_method("EnhanceSession")

    async def GetEnhancement(self, _request: Message, _context: Context) -> NoReturn:
        unimplemented.refuse_method("GetEnhancement")

    async def _get(self, session_id: str) -> SessionRecord:
        return await self._persistence.sessions.get(_tenant(), session_id)


def session_message(record: SessionRecord) -> pb.Session:
    """A record as the API shows it."""
    path = f"/v1/realtime/sessions/{record.id}"
    return pb.Session(
        id=record.id,
        status=record.status,
        language=record.language,
        model=record.model,
        encoding=record.encoding,
        sample_rate=record.sample_rate,
        channels=record.channels,
        store_audio=record.store_audio,
        store_transcript=record.store_transcript,
        enhance_on_end=record.enhance_on_end,
        audio_duration_seconds=record.audio_duration_seconds,
        utterance_count=record.utterance_count,
        word_count=record.word_count,
        started_at=timestamp(record.started_at),
        ended_at=timestamp(record.ended_at),
        audio_uri=record.audio_uri,
        audio_url=f"{path}/audio" if record.audio_uri else None,
        transcript_uri=record.transcript_uri,
        transcript_url=f"{path}/transcript" if record.transcript_uri else None,
        previous_session_id=record.previous_session_id,
        next_session_id=record.next_session_id,
        enhancement_job_id=record.enhancement_job_id,
        worker_id=record.worker_id,
        client_ip=record.client_ip,
        error=record.error,
    )


async def _send(context: Context, stored: StoredObject, content_type: str, filename: str | None = None) -> None:
    if filename:
        disposition = ("content-disposition", f'attachment; filename="{filename}"')
        await context.send_initial_metadata((disposition,))
    async with aclosing(stored.chunks) as chunks:
        async for chunk in chunks:
            try:
                async with asyncio.timeout(_SLOWEST_CHUNK_SECONDS):
                    await context.write(HttpBody(content_type=content_type, data=chunk))
            except TimeoutError:
                raise IdleTimeout(f"nothing was read for {_SLOWEST_CHUNK_SECONDS:g} seconds") from None


def _tenant() -> UUID:
    return current_caller.get().tenant_id


def _time(parameter: str, value: Timestamp) -> datetime:
    try:
        return value.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidParameter(parameter, "is no time between the years 1 and 9999") from None
