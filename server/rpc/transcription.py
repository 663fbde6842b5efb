"""TranscriptionService: one session for each gRPC stream."""

import asyncio
import math
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import ExitStack
from typing import Any, Final, Protocol
from uuid import UUID

import grpc
from dalston.v1 import transcription_pb2_grpc
from dalston.v1.transcription_pb2 import (
    ListModelsRequest,
    ListModelsResponse,
    Model,
    SessionBegin,
    SessionLimits,
    TranscribeConfig,
    TranscribeControl,
    TranscribeRequest,
    TranscribeResponse,
)

from domain.audio_message import MAX_AUDIO_MESSAGE_BYTES
from domain.errors import InvalidResumption, InvalidSessionId
from domain.session_id import new_uuid7, parse_session_id
from domain.tenancy import current_caller
from persistence.recovery.resumption import Resumption, Resumptions
from server.inference.scheduling.session_key import SessionKey
from server.rpc.admission import Admission
from server.rpc.config_message import (
    ModelCatalog,
    begin_message,
    parse_config,
    parse_language,
)
from server.rpc.drain import Drain
from server.rpc.requests import Request, RequestStream, StreamLimits
from server.rpc.responses import response_of
from server.rpc.streams import Streams
from server.session.errors import NotBuilt, SessionError
from server.session.events import Ended
from server.session.lag import Lag
from server.session.options import SessionOptions
from server.session.recent_partials import RecentPartials
from server.session.recognizer import Recognizer
from server.session.session import Session
from server.vad.silero import SileroVad
from telemetry.logs import note_caller

Context = grpc.aio.ServicerContext[TranscribeRequest, TranscribeResponse]

_WAITING_PER_SESSION: Final = 4
"""Streams that may wait to begin, for each session that may run: they use no model, no spool and little memory."""


class Engine(ModelCatalog, Recognizer, Protocol):
    """Models by name, and what runs them."""

    def languages(self, model: str) -> Sequence[str]:
        """The ISO 639-1 codes of the languages that a model transcribes."""

    def queue_delay_of(self, tenant: Hashable) -> float:
        """The queue delay of a tenant, in seconds. Called on any thread."""


class TranscriptionServicer(transcription_pb2_grpc.TranscriptionServiceServicer):
    """Runs at most `max_sessions` sessions at a time, of which one tenant may have `tenant_share`.

    A tenant with a queue delay above `max_queue_delay_seconds` cannot begin another session.
    """

    def __init__(
        self,
        engine: Engine,
        vad: SileroVad,
        limits: StreamLimits,
        max_sessions: int,
        max_queue_delay_seconds: float = math.inf,
        drain: Drain | None = None,
        resumptions: Resumptions | None = None,
        tenant_share: float = 1.0,
    ) -> None:
        self._engine = engine
        self._vad = vad
        self._limits = limits
        self.admission = Admission(max_sessions, max_queue_delay_seconds, engine.queue_delay_of, tenant_share)
        """The places of this server, and how long its sessions wait."""
        self.recent_partials = RecentPartials()
        """How the passes of partials have ended lately."""
        self._streams = Streams(_WAITING_PER_SESSION * max_sessions)
        self._drain = drain or Drain()
        self._resumptions = resumptions

    @property
    def is_behind(self) -> bool:
        """Whether new sessions of a tenant are refused because of the queue delay."""
        return self.admission.is_behind

    async def ListModels(self, _request: ListModelsRequest, _context: object) -> ListModelsResponse:
        """The models of this server with their languages."""
        names = sorted(self._engine.models)
        return ListModelsResponse(models=[Model(name=name, languages=self._engine.languages(name)) for name in names])

    async def Transcribe(self, requests: AsyncIterator[Request], context: Context) -> None:  # type: ignore[override]
        """Runs one session; errors are raised, not answered."""
        caller = current_caller.get()
        with ExitStack() as place:
            with self._streams.waiting(caller):
                stream = RequestStream(requests, self._limits.of(caller.limits))
                config = await stream.read_config()
                options = parse_config(config, self._engine)
                begin = await self._begin(config, options, stream.limits)
                lag = place.enter_context(self.admission.place(begin.session_id, caller.tenant_id, begin.resumed_from))
                note_caller(session_id=begin.session_id)
                await context.write(TranscribeResponse(session_begin=begin))
            await self._run(begin.session_id, options, lag, stream, context)

    async def _begin(self, config: TranscribeConfig, options: SessionOptions, limits: StreamLimits) -> SessionBegin:
        """The answer to the config, once the session that this one resumes has ended."""
        session_id = new_uuid7()
        begin = begin_message(session_id, options, _session_limits(limits))
        if config.resume_session_id:
            # A stream that waits for another session to end occupies no place. A full server ends no session for it.
            self.admission.refuse_when_full(current_caller.get().tenant_id, config.resume_session_id)
            begin.resumed_from = config.resume_session_id
            begin.resume_from_seconds = await self._resume_point(session_id, config, options)
        return begin

    async def _resume_point(self, session_id: UUID, config: TranscribeConfig, options: SessionOptions) -> float:
        if self._resumptions is None:
            raise NotBuilt("this server stores no sessions that could be resumed")
        wanted = Resumption(
            caller=current_caller.get(),
            earlier=_parse_earlier(config.resume_session_id),
            new=session_id,
            encoding=options.audio.encoding,
            sample_rate=options.audio.sample_rate,
            channels=options.audio.channels,
            seconds=config.resume_from_seconds if config.HasField("resume_from_seconds") else None,
        )
        return await self._resumptions.point(wanted)

    async def _run(
        self, session_id: str, options: SessionOptions, lag: Lag, stream: RequestStream, context: Context
    ) -> None:
        session_key = SessionKey(current_caller.get().tenant_id)
        session = Session(options, self._vad.stream(), self._engine, lag, session_key, self.recent_partials)
        try:
            async with session, asyncio.TaskGroup() as tasks:
                feeding = tasks.create_task(self._feed(session, options, stream))
                warning = tasks.create_task(self._announce_drain(session))
                async for event in session:
                    if isinstance(event, Ended) and await feeding:
                        continue  # the stream ends by the error instead
                    await context.write(response_of(event, session_id))
                warning.cancel()
        except BaseExceptionGroup as group:
            raise _first_error(group) from None
        if error := feeding.result():
            raise error

    async def _feed(self, session: Session, options: SessionOptions, stream: RequestStream) -> SessionError | None:
        """Feeds the requests to the session; returns the error that ended them.

        Audio that was received before an error is transcribed before the client receives the error.
        """
        error = None
        try:
            async for request in stream.read(options.audio):
                if isinstance(request, TranscribeControl):
                    await self._control(session, options, request)
                else:
                    await session.push(request)
                    if session.duration > stream.limits.max_session_seconds:
                        raise stream.limits.exceeded()
        except SessionError as ended_by:
            error = ended_by
        # A cancelled stream often looks half-closed first; the cancellation arrives in the next turn of the event loop.
        await asyncio.sleep(0)
        await session.finish()
        return error

    async def _announce_drain(self, session: Session) -> None:
        await session.announce_end("shutdown", round(await self._drain.wait_begun(), 3))

    async def _control(self, session: Session, options: SessionOptions, control: TranscribeControl) -> None:
        match control.WhichOneof("control"):
            case "flush":
                await session.flush()
            case "set_language":
                session.set_language(parse_language(control.set_language.language, options.model, self._engine))


def _parse_earlier(session_id: str) -> UUID:
    try:
        return parse_session_id(session_id)
    except InvalidSessionId as error:
        raise InvalidResumption("resume_session_id", str(error)) from None


def _session_limits(limits: StreamLimits) -> SessionLimits:
    return SessionLimits(
        max_session_seconds=limits.max_session_seconds,
        idle_timeout_seconds=limits.idle_timeout_seconds,
        max_message_bytes=MAX_AUDIO_MESSAGE_BYTES,
    )


def _first_error(group: BaseExceptionGroup[Any]) -> BaseException:
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
