"""A real gRPC server whose engine returns a fixed text."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import pytest
import soundfile
from dalston.v1.transcription_pb2_grpc import TranscriptionServiceStub, add_TranscriptionServiceServicer_to_server

from server.inference.recognition import Recognition
from server.rpc.auth import AuthInterceptor
from server.rpc.drain import Drain, DrainInterceptor
from server.rpc.errors import ErrorInterceptor
from server.rpc.requests import StreamLimits
from server.rpc.telemetry import TelemetryInterceptor
from server.rpc.transcription import TranscriptionServicer
from server.vad.silero import SileroVad
from tests.recognizers import Asked, Recognizer


class GatedEngine(Recognizer):
    """Returns the same words for every utterance, while `may_answer` is set."""

    models = frozenset({"fast"})

    def __init__(self) -> None:
        self.was_asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def supports(self, model: str, language: str) -> bool:
        return True

    async def answer(self, asked: Asked) -> Recognition:
        self.was_asked.set()
        await self.may_answer.wait()
        return Recognition("some words", "en", 0.9, 0.0, None)


@dataclass
class Draining:
    """A server and its drain."""

    stub: TranscriptionServiceStub
    drain: Drain
    engine: GatedEngine


@pytest.fixture
async def draining() -> AsyncIterator[Draining]:
    drain, engine = Drain(), GatedEngine()
    server = grpc.aio.server(
        interceptors=(TelemetryInterceptor(), ErrorInterceptor(), AuthInterceptor(), DrainInterceptor(drain))
    )
    servicer = TranscriptionServicer(engine, SileroVad(), StreamLimits(60, 30), max_sessions=9, drain=drain)
    add_TranscriptionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Draining(TranscriptionServiceStub(channel), drain, engine)
    await server.stop(0)


@pytest.fixture(scope="session")
def speech() -> bytes:
    """Three seconds in the middle of a sentence."""
    samples, _ = soundfile.read("samples/sense-and-sensibility.flac", frames=48_000, dtype="int16")
    return bytes(samples.tobytes())
