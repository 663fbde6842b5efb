"""A gRPC server on loopback whose servicer behaves like the real one but transcribes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from dalston.v1 import transcription_pb2 as pb
from dalston.v1 import transcription_pb2_grpc

from domain.errors import StorageUnavailable
from domain.session import EndReason
from domain.session_id import new_session_id
from domain.tenancy import DEFAULT_TENANT_ID, Caller, current_caller
from persistence.errors import LeaseLost
from persistence.recording.request_queue import Request
from persistence.service import Persistence


async def messages(requests: AsyncIterator[Request]) -> AsyncIterator[pb.TranscribeRequest]:
    async for request in requests:
        yield request.message


@dataclass
class FakeTranscriber(transcription_pb2_grpc.TranscriptionServiceServicer):
    """Sends one final for every `message_count` audio messages, and one for what is left at the end."""

    message_count: int = 2
    language: str = "en"
    fail_at_message: int | None = None
    final_seconds: float = 0.0
    acks: bool = False
    partials: bool = False
    """Whether each audio message makes a partial, whose text is the number of messages."""
    text: Callable[[int], str] = lambda number: f"this is final {number}"
    finals: list[str] = field(default_factory=list)

    async def Transcribe(self, requests: Any, context: Any) -> None:
        config = (await anext(requests)).message.config
        session_id = new_session_id()
        begin = pb.SessionBegin(
            session_id=session_id,
            config=pb.SessionConfig(
                sample_rate=config.sample_rate or 16000,
                encoding=config.encoding or "pcm_s16le",
                channels=config.channels or 1,
                language=config.language or "auto",
                model=config.model or "fast",
            ),
        )
        await context.write(pb.TranscribeResponse(session_begin=begin))
        received = 0
        async for request in messages(requests):
            if request.control.HasField("end"):
                break
            if request.WhichOneof("request") == "audio":
                received += 1
                if self.acks:
                    await context.write(pb.TranscribeResponse(audio_ack=pb.AudioAck(processed_seconds=0.25)))
                if self.partials:
                    partial = pb.Partial(text=str(received), start=float(received), end=received + 0.5)
                    await context.write(pb.TranscribeResponse(partial=partial))
                if received == self.fail_at_message:
                    raise ValueError("the fake transcriber failed")
                if received % self.message_count == 0:
                    await self._send_final(context)
        if received % self.message_count:
            await self._send_final(context)
        await context.write(pb.TranscribeResponse(session_end=pb.SessionEnd(session_id=session_id)))

    async def _send_final(self, context: Any) -> None:
        await asyncio.sleep(self.final_seconds)
        number = len(self.finals) + 1
        self.finals.append(self.text(number))
        final = pb.Final(
            text=self.finals[-1],
            start=number - 1.0,
            end=float(number),
            confidence=0.5,
            language=self.language,
            language_probability=0.75,
        )
        await context.write(pb.TranscribeResponse(final=final))


class Authentication(grpc.aio.ServerInterceptor):
    """Makes every caller the default tenant and turns StorageUnavailable into UNAVAILABLE, as the server does."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)

        async def behave(requests: Any, context: Any) -> None:
            current_caller.set(Caller(DEFAULT_TENANT_ID))
            try:
                await handler.stream_stream(requests, context)
            except StorageUnavailable as error:
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            except ValueError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

        return grpc.stream_stream_rpc_method_handler(behave, handler.request_deserializer, handler.response_serializer)


def classify(error: BaseException) -> EndReason:
    return EndReason("interrupted" if isinstance(error, LeaseLost) else "error", str(error))


@asynccontextmanager
async def serving(persistence: Persistence, fake_transcriber: FakeTranscriber) -> AsyncIterator[str]:
    server = grpc.aio.server(interceptors=(Authentication(), persistence.interceptor))
    transcription_pb2_grpc.add_TranscriptionServiceServicer_to_server(fake_transcriber, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0.2)
