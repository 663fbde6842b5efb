"""SessionService: reads, ends and deletes the sessions of the caller's tenant."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

from dalston.v1 import session_pb2 as pb
from dalston.v1 import session_pb2_grpc
from dalston.v1.job_pb2 import Job
from google.protobuf.timestamp_pb2 import Timestamp

from domain.session import SessionFilter
from domain.session_id import parse_session_id
from domain.tenancy import current_caller
from persistence.service import Persistence
from server.access.gate import Gate, OpenGate
from server.rpc.auth import authorization_of
from server.rpc.downloads import Downloads
from server.rpc.interceptor import Context
from server.rpc.job_message import job_message
from server.rpc.job_requests import JobRequests
from server.rpc.readmission import while_admitted
from server.rpc.session_message import session_message, version_message
from server.rpc.utterance_message import utterance_message
from server.rpc.utterance_watch import UtteranceWatches
from server.rpc.watch import Watches
from server.rpc.waveforms import Waveforms
from server.session.errors import InvalidParameter

DEFAULT_LIMIT = 50
DEFAULT_UTTERANCES = 100
MAX_DOWNLOADS = 8


class SessionServicer(session_pb2_grpc.SessionServiceServicer):
    """Every method sees the caller's tenant only; errors are raised, not answered."""

    def __init__(
        self,
        persistence: Persistence,
        watches: Watches,
        jobs: JobRequests,
        waveforms: Waveforms,
        max_downloads: int = MAX_DOWNLOADS,
        gate: Gate | None = None,
    ) -> None:
        """
        Args:
            waveforms: makes waveforms; its owner closes it.
            max_downloads: concurrent downloads of one tenant.
            gate: checks whether downloads may continue. Without one they may.
        """
        self._persistence = persistence
        self._gate = gate or OpenGate()
        self._downloads = Downloads(persistence, max_downloads, waveforms)
        self._watches = watches
        self._utterance_watches = UtteranceWatches(persistence.transcripts, persistence.partials, watches)
        self._jobs = jobs

    async def ListSessions(self, request: pb.ListSessionsRequest, _context: Context) -> pb.ListSessionsResponse:
        limit = request.limit if request.HasField("limit") else DEFAULT_LIMIT
        wanted = SessionFilter(
            status=request.status or None,
            source=request.source or None,
            since=_time("since", request.since) if request.HasField("since") else None,
            until=_time("until", request.until) if request.HasField("until") else None,
        )
        page = await self._persistence.sessions.list(
            _tenant(), wanted, limit=limit, offset=request.offset, cursor=request.cursor or None
        )
        return pb.ListSessionsResponse(
            sessions=[session_message(record) for record in page.sessions],
            pagination=pb.Pagination(
                limit=limit,
                offset=request.offset,
                total=page.total,
                total_is_exact=page.is_total_exact,
                next_cursor=page.next_cursor,
            ),
            cursor=page.next_cursor,
            has_more=page.next_cursor is not None,
        )

    async def GetSession(self, request: pb.GetSessionRequest, _context: Context) -> pb.Session:
        return session_message(await self._persistence.sessions.get(_tenant(), parse_session_id(request.session_id)))

    async def DeleteSession(self, request: pb.DeleteSessionRequest, _context: Context) -> pb.DeleteSessionResponse:
        await self._persistence.delete_session(_tenant(), parse_session_id(request.session_id))
        return pb.DeleteSessionResponse(deleted=True, session_id=request.session_id)

    async def GetAudio(self, request: pb.GetAudioRequest, context: Context) -> None:  # type: ignore[override]
        async with self._download("GetAudio", context):
            await self._downloads.send_audio(_tenant(), request, context)

    async def GetWaveform(self, request: pb.GetWaveformRequest, context: Context) -> None:  # type: ignore[override]
        async with self._download("GetWaveform", context):
            await self._downloads.send_waveform(_tenant(), request, context)

    async def GetTranscript(self, request: pb.GetTranscriptRequest, context: Context) -> None:  # type: ignore[override]
        async with self._download("GetTranscript", context):
            await self._downloads.send_transcript(_tenant(), request, context)

    async def ExportTranscript(self, request: pb.ExportTranscriptRequest, context: Context) -> None:  # type: ignore[override]
        async with self._download("ExportTranscript", context):
            await self._downloads.send_export(_tenant(), request, context)

    @asynccontextmanager
    async def _download(self, method: str, context: Context) -> AsyncIterator[None]:
        with self._downloads.place(_tenant()):
            async with while_admitted(self._gate, method, authorization_of(context)):
                yield

    async def ListUtterances(self, request: pb.ListUtterancesRequest, _context: Context) -> pb.ListUtterancesResponse:
        limit = request.limit if request.HasField("limit") else DEFAULT_UTTERANCES
        page, has_more = await self._persistence.transcripts.page(
            _tenant(), parse_session_id(request.session_id), request.version, request.offset, limit
        )
        return pb.ListUtterancesResponse(utterances=[utterance_message(each) for each in page], has_more=has_more)

    async def WatchSessions(self, request: pb.WatchSessionsRequest, context: Context) -> None:  # type: ignore[override]
        await self._watches.run(_tenant(), request, context)

    async def WatchUtterances(self, request: pb.WatchUtterancesRequest, context: Context) -> None:  # type: ignore[override]
        await self._utterance_watches.run(_tenant(), request, context)

    async def EndSession(self, request: pb.EndSessionRequest, _context: Context) -> pb.Session:
        return session_message(
            await self._persistence.sessions.request_end(_tenant(), parse_session_id(request.session_id))
        )

    async def EnhanceSession(self, request: pb.EnhanceSessionRequest, _context: Context) -> Job:
        return job_message(await self._jobs.enhance(request))

    async def GetEnhancement(self, request: pb.GetEnhancementRequest, _context: Context) -> Job:
        return job_message(await self._persistence.jobs.newest(_tenant(), parse_session_id(request.session_id)))

    async def ListTranscripts(
        self, request: pb.ListTranscriptsRequest, _context: Context
    ) -> pb.ListTranscriptsResponse:
        versions = await self._persistence.transcripts.versions(_tenant(), parse_session_id(request.session_id))
        return pb.ListTranscriptsResponse(transcripts=[version_message(each) for each in versions])

    async def SetCurrentTranscript(
        self, request: pb.SetCurrentTranscriptRequest, _context: Context
    ) -> pb.TranscriptVersion:
        session_id = parse_session_id(request.session_id)
        return version_message(await self._persistence.set_current_transcript(_tenant(), session_id, request.version))

    async def DeleteTranscript(
        self, request: pb.DeleteTranscriptRequest, _context: Context
    ) -> pb.DeleteTranscriptResponse:
        session_id = parse_session_id(request.session_id)
        await self._persistence.delete_transcript(_tenant(), session_id, request.version)
        return pb.DeleteTranscriptResponse(deleted=True, session_id=request.session_id, version=request.version)


def _tenant() -> UUID:
    return current_caller.get().tenant_id


def _time(parameter: str, value: Timestamp) -> datetime:
    try:
        return value.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidParameter(parameter, "is not a time between the years 1 and 9999") from None
