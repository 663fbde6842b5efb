"""A gRPC server whose FileService follows a script, for the uploads process in front of it.

The key and the file decide what happens, so that a client that only speaks OpenAI's protocol can ask for each case:
`not audio` as a file is refused, a file that begins with `slow` takes long, and so on.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
from dalston.v1 import file_pb2, file_pb2_grpc, job_pb2, session_pb2, transcription_pb2, transcription_pb2_grpc
from google.protobuf import any_pb2, timestamp_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

MODELS = ("accurate", "fast")
KEY = "dk_valid"
NO_FORMAT = "the file is none of the formats that are taken: flac, mp3, mp4, m4a, ogg, opus, wav, webm"
WORDS = (("Hello", 0.5, 0.9), ("there.", 1.0, 1.4))


def utterances() -> Iterator[session_pb2.Utterance]:
    """The same transcript for every file."""
    words = [transcription_pb2.Word(word=word, start=start, end=end, confidence=0.9) for word, start, end in WORDS]
    yield session_pb2.Utterance(
        index=0, start=0.5, end=1.4, text="Hello there.", confidence=0.9, language="en", words=words
    )
    yield session_pb2.Utterance(
        index=1,
        start=2.0,
        end=3.0,
        text="Good bye!",
        confidence=0.8,
        language="en",
        words=[
            transcription_pb2.Word(word="Good", start=2.0, end=2.4, confidence=0.7),
            transcription_pb2.Word(word="bye!", start=2.5, end=3.0, confidence=0.8),
        ],
    )


@dataclass
class Received:
    """One TranscribeFile call."""

    metadata: dict[str, str | bytes]
    data: bytearray = field(default_factory=bytearray)
    messages: list[int] = field(default_factory=list)
    """The size of each message of data."""
    config: file_pb2.FileConfig | None = None
    is_complete: bool = False
    is_cancelled: bool = False
    job: job_pb2.Job | None = None


@dataclass
class Files(file_pb2_grpc.FileServiceServicer):
    """The script."""

    calls: list[Received] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    """A job of a file that begins with `slow` ends after this, and one that begins with `stuck` is read after it."""

    async def TranscribeFile(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        call = Received(dict(context.invocation_metadata()))
        self.calls.append(call)
        try:
            await _check_key(context)
            # Envoy limits the time until a response begins.
            await context.send_initial_metadata(())
            async for request in requests:
                if request.WhichOneof("request") == "config":
                    call.config = request.config
                    continue
                call.data += request.data
                call.messages.append(len(request.data))
                if call.data.startswith(b"stuck"):
                    await self.go_on.wait()
                if len(call.data) > 30_000_000 and not call.data.startswith(b"stuck"):
                    await refuse(
                        context, grpc.StatusCode.INVALID_ARGUMENT, "FILE_TOO_BIG", "the file is over the limit"
                    )
            if call.config is None:
                # A client that disconnects ends the requests too.
                call.is_cancelled = True
                return
            call.is_complete = True
            async for response in self._transcribe(call, context):
                yield response
        except asyncio.CancelledError:
            call.is_cancelled = True
            raise

    async def _transcribe(self, call: Received, context: Any) -> AsyncIterator[Any]:
        if call.config is None:
            raise RuntimeError("the file is not complete")
        model = call.config.model or "accurate"
        if model not in MODELS:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MODEL", f"there is no model {model!r}")
        if call.config.language == "klingon":
            text = "language must be an ISO 639-1 code or auto"
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PARAMETERS", text, parameter="language")
        if call.data.startswith(b"not audio"):
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "UNSUPPORTED_MEDIA", NO_FORMAT)
        if call.data.startswith(b"many"):
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_JOBS", "1000 jobs are queued")
        job = call.job = job_pb2.Job(
            id="job_01990000000070008000000000000001",
            session_id="sess_01990000000070008000000000000001",
            kind="upload",
            status="queued",
            step="turn",
            model=model,
            language=call.config.language,
        )
        yield file_pb2.TranscribeFileResponse(job=job)
        if call.data.startswith(b"slow"):
            await self.go_on.wait()
        ended = job_pb2.Job(audio_duration_seconds=3.5, status="completed", ended_at=timestamp_pb2.Timestamp(seconds=1))
        if call.data.startswith(b"broken"):
            ended.MergeFrom(job_pb2.Job(status="failed", error_code="undecodable", error="the file cannot be decoded"))
        elif call.data.startswith(b"lost"):
            await refuse(context, grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", "the database does not answer")
        elif not call.data.startswith(b"silent"):
            for utterance in utterances():
                yield file_pb2.TranscribeFileResponse(utterance=utterance)
        job.MergeFrom(ended)
        yield file_pb2.TranscribeFileResponse(job=job)


class Transcription(transcription_pb2_grpc.TranscriptionServiceServicer):
    async def ListModels(self, request: Any, context: Any) -> transcription_pb2.ListModelsResponse:
        await _check_key(context)
        models = [transcription_pb2.Model(name=name, languages=["de", "en"]) for name in MODELS]
        return transcription_pb2.ListModelsResponse(models=models)


async def _check_key(context: Any) -> None:
    if dict(context.invocation_metadata()).get("authorization") != f"Bearer {KEY}":
        await refuse(context, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", "the key was not accepted")


async def refuse(context: Any, code: grpc.StatusCode, reason: str, message: str, **metadata: str) -> NoReturn:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="dalston.v1", metadata=metadata))
    status = status_pb2.Status(code=code.value[0], message=message, details=[detail])
    await context.abort(code, message, (("grpc-status-details-bin", status.SerializeToString()),))
    raise AssertionError


@asynccontextmanager
async def scripted_server(address: str) -> AsyncIterator[Files]:
    """Serves on `host:port` or `unix:PATH` while the block runs."""
    # The keepalive of the edge needs the first of these options of a server.
    server = grpc.aio.server(options=[("grpc.http2.min_ping_interval_without_data_ms", 4000), ("grpc.so_reuseport", 0)])
    files = Files()
    file_pb2_grpc.add_FileServiceServicer_to_server(files, server)
    transcription_pb2_grpc.add_TranscriptionServiceServicer_to_server(Transcription(), server)
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    server.add_insecure_port(address)
    await server.start()
    try:
        yield files
    finally:
        await server.stop(grace=None)
