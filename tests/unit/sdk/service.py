"""A fake service that implements the protocol of live sessions and fails where a script requires it.

Its speech consists of runs: utterance number n is a run of samples of the value n + 1, and zeros are silence. The
utterances can therefore be read from the audio, whichever session received it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import grpc
import numpy as np
from dalston.v1 import transcription_pb2 as pb
from dalston.v1 import transcription_pb2_grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

RATE = 16_000
FRAME = 2
_PAUSE = RATE // 5
"""Samples of silence that end an utterance."""


def speech(lengths: Iterable[tuple[float, float]]) -> bytes:
    """Audio of utterances: for each, seconds of silence before it and seconds of speech."""
    parts = []
    for number, (silence, length) in enumerate(lengths):
        parts += [np.zeros(round(silence * RATE), "<i2"), np.full(round(length * RATE), number + 1, "<i2")]
    return np.concatenate([*parts, np.zeros(RATE, "<i2")]).tobytes()


class SerialContext:
    """The context of a call whose tasks write one message at a time, as grpc.aio requires."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._writing = asyncio.Lock()

    async def write(self, message: pb.TranscribeResponse) -> None:
        async with self._writing:
            await self._context.write(message)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


@dataclass
class Recorded:
    """A session of the fake service."""

    id: str
    config: pb.TranscribeConfig
    previous: Recorded | None = None
    resume_from: int = 0
    audio: bytearray = field(default_factory=bytearray)
    stored: int = 0
    finals: list[pb.Final] = field(default_factory=list)
    languages: list[tuple[int, str]] = field(default_factory=list)
    is_running: bool = True
    is_completed: bool = False
    next: Recorded | None = None

    def runs(self) -> list[tuple[int, int, bool]]:
        """Start and end in samples of each utterance without a final, and whether silence has ended it."""
        first = round(self.finals[-1].end * RATE) if self.finals else 0
        samples = np.frombuffer(bytes(self.audio[first * FRAME :]), "<i2")
        edges = np.flatnonzero(np.diff(samples, prepend=0, append=0))
        return [
            (first + int(start), first + int(end), len(samples) - int(end) >= _PAUSE)
            for start, end in pairwise(edges)
            if samples[start] != 0
        ]

    def joined(self) -> bytes:
        """The recording joined with those of the sessions that this one continues."""
        before = self.previous.joined_up_to(self.resume_from) if self.previous else b""
        return before + bytes(self.audio)

    def joined_up_to(self, size: int) -> bytes:
        before = self.previous.joined_up_to(self.resume_from) if self.previous else b""
        assert len(self.audio) >= size, "the joined recording has a gap"
        return before + bytes(self.audio[:size])


class Failure(Exception):
    """A status, with an ErrorInfo if it has a reason."""

    def __init__(self, code: grpc.StatusCode, reason: str = "", **metadata: str) -> None:
        super().__init__(reason or code.name)
        self.code, self.reason, self.metadata = code, reason, metadata


LOST = Failure(grpc.StatusCode.UNAVAILABLE)
Script = Callable[["Service", "Recorded | None", str], "Failure | None"]


def no_script(_service: Service, _session: Recorded | None, _moment: str) -> Failure | None:
    return None


class Service(transcription_pb2_grpc.TranscriptionServiceServicer):
    """Records its requests. `script` is called at `config`, `begun`, `audio` and `final`, and may return a failure.

    Args:
        stored_lag: bytes that are received and not stored yet, and lost with the server.
    """

    def __init__(
        self,
        script: Script = no_script,
        *,
        stored_lag: int = 0,
        max_session_seconds: float = 0.0,
        idle_timeout_seconds: float = 60.0,
    ) -> None:
        self.script = script
        self.idle_timeout_seconds = idle_timeout_seconds
        self.keep_alives = 0
        self.text = "{}"
        """Text of finals, a template for the number and length of their utterance."""
        self.stored_lag = stored_lag
        self.max_session_seconds = max_session_seconds
        self.sessions: list[Recorded] = []
        self.configs: list[pb.TranscribeConfig] = []
        self.terminates_at: int | None = None
        self.port = 0

    @property
    def last(self) -> Recorded:
        return self.sessions[-1]

    async def Transcribe(self, requests: AsyncIterator[pb.TranscribeRequest], context: Any) -> None:  # type: ignore[override]
        session: Recorded | None = None
        context = SerialContext(context)
        try:
            config = (await anext(requests)).config
            self.configs.append(config)
            self._break(None, "config")
            session = self._begin(config)
            self._break(session, "begun")
            await context.write(pb.TranscribeResponse(session_begin=self._begin_message(session)))
            await self._run(session, requests, context)
        except Failure as failure:
            await abort(context, failure)
        finally:
            if session is not None:
                session.is_running = False
                if not session.is_completed:
                    del session.audio[max(session.stored, 0) if session.config.store_audio else len(session.audio) :]

    async def _run(self, session: Recorded, requests: AsyncIterator[pb.TranscribeRequest], context: Any) -> None:
        acknowledging = asyncio.create_task(self._acknowledge(session, context))
        try:
            await self._read_requests(session, requests, context)
        finally:
            acknowledging.cancel()
            await asyncio.wait((acknowledging,))
        await self._send_finals(session, context, to_the_end=True)
        session.is_completed = True
        await context.write(pb.TranscribeResponse(session_end=_end_message(session)))

    async def _acknowledge(self, session: Recorded, context: Any) -> None:
        """Acknowledges periodically even without progress, as the real service does."""
        while True:
            await asyncio.sleep(self.idle_timeout_seconds / 12)
            await context.write(pb.TranscribeResponse(audio_ack=_ack(session)))

    async def _read_requests(
        self, session: Recorded, requests: AsyncIterator[pb.TranscribeRequest], context: Any
    ) -> None:
        while True:
            try:
                async with asyncio.timeout(self.idle_timeout_seconds):
                    request = await anext(requests, None)
            except TimeoutError:
                raise Failure(grpc.StatusCode.DEADLINE_EXCEEDED, "IDLE_TIMEOUT") from None
            match request and request.WhichOneof("request"):
                case None:
                    break
                case "audio":
                    await self._receive(session, request.audio, context)
                    continue
                case "control" if request.control.HasField("flush"):
                    await self._send_finals(session, context, to_the_end=True)
                    flushed = pb.Flushed(timestamp=len(session.audio) / FRAME / RATE)
                    await context.write(pb.TranscribeResponse(flushed=flushed))
                case "control" if request.control.HasField("set_language"):
                    session.languages.append((len(session.audio), request.control.set_language.language))
                case "control" if request.control.HasField("keep_alive"):
                    self.keep_alives += 1
                case "control" if request.control.HasField("end"):
                    break

    async def _receive(self, session: Recorded, audio: bytes, context: Any) -> None:
        session.audio += audio
        if self.terminates_at is not None and sum(len(each.audio) for each in self.sessions) > self.terminates_at:
            self.terminates_at = None
            terminating = pb.SessionTerminating(reason="shutdown", grace_seconds=5, resume_session_id=session.id)
            await context.write(pb.TranscribeResponse(session_terminating=terminating))
        self._break(session, "audio")
        await self._send_finals(session, context)
        if session.config.store_audio:
            session.stored = max(session.stored, len(session.audio) - self.stored_lag)
        await context.write(pb.TranscribeResponse(audio_ack=_ack(session)))

    async def _send_finals(self, session: Recorded, context: Any, *, to_the_end: bool = False) -> None:
        for start, end, ended in session.runs():
            if not (ended or to_the_end):
                continue
            value = int.from_bytes(session.audio[start * FRAME : (start + 1) * FRAME], "little")
            final = pb.Final(
                text=self.text.format(f"{value - 1}:{end - start}"),
                start=start / RATE,
                end=end / RATE,
                confidence=0.9,
                language=session.config.language or "en",
            )
            session.finals.append(final)
            await context.write(pb.TranscribeResponse(final=final))
            self._break(session, "final")

    def _begin(self, config: pb.TranscribeConfig) -> Recorded:
        previous = None
        if config.resume_session_id:
            previous = next((each for each in self.sessions if each.id == config.resume_session_id), None)
            if previous is None:
                raise Failure(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
            if previous.is_running:
                raise Failure(grpc.StatusCode.ABORTED, "SESSION_ACTIVE")
            if previous.next is not None and (previous.next.audio or previous.next.is_running):
                raise Failure(grpc.StatusCode.ABORTED, "SESSION_RESUMED", resumed_by=previous.next.id)
        session = Recorded(f"sess_{len(self.sessions):032x}", config, previous)
        if previous is not None:
            assert config.HasField("resume_from_seconds")
            session.resume_from = round(config.resume_from_seconds * RATE) * FRAME
            previous.next = session
        self.sessions.append(session)
        return session

    def _begin_message(self, session: Recorded) -> pb.SessionBegin:
        config = session.config
        begin = pb.SessionBegin(
            session_id=session.id,
            config=pb.SessionConfig(sample_rate=RATE, encoding="pcm_s16le", channels=1, language=config.language),
            limits=pb.SessionLimits(
                max_session_seconds=self.max_session_seconds,
                idle_timeout_seconds=self.idle_timeout_seconds,
                max_message_bytes=65536,
            ),
        )
        if session.previous is not None:
            begin.resumed_from = session.previous.id
            begin.resume_from_seconds = session.resume_from / FRAME / RATE
        return begin

    def _break(self, session: Recorded | None, moment: str) -> None:
        if failure := self.script(self, session, moment):
            raise failure


@asynccontextmanager
async def serving(service: Service) -> AsyncIterator[str]:
    """Runs the service and yields its URL."""
    server = grpc.aio.server()
    transcription_pb2_grpc.add_TranscriptionServiceServicer_to_server(service, server)
    service.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"http://127.0.0.1:{service.port}"
    finally:
        await server.stop(None)


def _ack(session: Recorded) -> pb.AudioAck:
    received = len(session.audio) / FRAME / RATE
    pending = [start for start, _, ended in session.runs() if not ended]
    return pb.AudioAck(
        received_seconds=received,
        processed_seconds=min([received, *(start / RATE for start in pending)]),
        stored_seconds=session.stored / FRAME / RATE,
    )


def _end_message(session: Recorded) -> pb.SessionEnd:
    return pb.SessionEnd(
        session_id=session.id,
        total_duration=len(session.audio) / FRAME / RATE,
        transcript=" ".join(final.text for final in session.finals),
    )


async def abort(context: Any, failure: Failure) -> None:
    """Ends a call with a status."""
    if not failure.reason:
        await context.abort(failure.code, "somewhere on the way")
    detail = AnyMessage()
    detail.Pack(ErrorInfo(reason=failure.reason, domain="dalston.v1", metadata=failure.metadata))
    status = Status(code=failure.code.value[0], message=failure.reason.lower(), details=[detail])
    trailing = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(failure.code, failure.reason.lower(), trailing)
