"""The errors that a gRPC client receives: real sockets, no model."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest
import soundfile
from dalston.v1.transcription_pb2 import TranscribeConfig, TranscribeControl, TranscribeRequest, TranscribeResponse
from dalston.v1.transcription_pb2_grpc import TranscriptionServiceStub, add_TranscriptionServiceServicer_to_server
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from server.inference.errors import RecognitionFailed
from server.inference.recognition import Recognition
from server.rpc.auth import AuthInterceptor
from server.rpc.errors import ErrorInterceptor
from server.rpc.requests import StreamLimits
from server.rpc.telemetry import TelemetryInterceptor
from server.rpc.transcription import TranscriptionServicer
from server.vad.silero import SileroVad
from tests.recognizers import Asked, Recognizer

CONFIG = TranscribeRequest(config=TranscribeConfig())
FLUSH = TranscribeRequest(control=TranscribeControl(flush=TranscribeControl.Flush()))
END = TranscribeRequest(control=TranscribeControl(end=TranscribeControl.End()))


class SilentEngine(Recognizer):
    models = frozenset({"fast"})

    def supports(self, model: str, language: str) -> bool:
        return language in {"auto", "en", "es"}

    async def answer(self, asked: Asked) -> Recognition:
        raise RecognitionFailed("secret detail of the model")


@pytest.fixture(scope="module")
async def stub() -> AsyncIterator[TranscriptionServiceStub]:
    server = grpc.aio.server(interceptors=(TelemetryInterceptor(), ErrorInterceptor(), AuthInterceptor()))
    servicer = TranscriptionServicer(SilentEngine(), SileroVad(), StreamLimits(60, 0.3), max_sessions=2)
    add_TranscriptionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield TranscriptionServiceStub(channel)
    await server.stop(0)


async def talk(stub: TranscriptionServiceStub, *requests: TranscribeRequest) -> list[TranscribeResponse]:
    return [response async for response in stub.Transcribe(iter(requests))]


async def held_open(over: asyncio.Event, *requests: TranscribeRequest) -> AsyncIterator[TranscribeRequest]:
    """Yields the requests, then waits: grpc.aio loses the status of calls that end during a write (grpc/grpc#36066)."""
    for request in requests:
        yield request
        await asyncio.sleep(0.001)
    if requests:
        await over.wait()


async def refusal(
    stub: TranscriptionServiceStub, *requests: TranscribeRequest
) -> tuple[grpc.StatusCode, str, ErrorInfo]:
    over = asyncio.Event()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in stub.Transcribe(held_open(over, *requests)):
            pass
    # Otherwise grpc.aio leaves a task that waits for the next request forever.
    over.set()
    trailing = dict(raised.value.trailing_metadata())
    status = Status.FromString(trailing["grpc-status-details-bin"])
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "dalston.v1"
    assert status.message == raised.value.details()
    return raised.value.code(), raised.value.details() or "", info


@pytest.mark.parametrize(
    ("requests", "reason", "words"),
    [
        ([], "INVALID_MESSAGE", "before its config"),
        ([TranscribeRequest(audio=b"ab")], "INVALID_MESSAGE", "first message must be config"),
        ([CONFIG, CONFIG], "INVALID_MESSAGE", "only once"),
        ([CONFIG, TranscribeRequest()], "INVALID_MESSAGE", "without config, audio or control"),
        ([CONFIG, TranscribeRequest(audio=b"abc")], "INVALID_AUDIO", "3 bytes are not a whole number"),
        ([CONFIG, TranscribeRequest(audio=b"a" * 65_538)], "MESSAGE_TOO_BIG", "at most 65536"),
        ([TranscribeRequest(config=TranscribeConfig(model="x"))], "INVALID_MODEL", "no model 'x'"),
        ([TranscribeRequest(config=TranscribeConfig(sample_rate=1))], "INVALID_PARAMETERS", "sample_rate: must be"),
        ([TranscribeRequest(config=TranscribeConfig(enhance_on_end=True))], "INVALID_PARAMETERS", "needs store_audio"),
    ],
)
async def test_bad_input_is_refused_with_a_reason(
    stub: TranscriptionServiceStub, requests: list[TranscribeRequest], reason: str, words: str
) -> None:
    code, message, info = await refusal(stub, *requests)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert info.reason == reason
    assert words in message


async def test_a_refused_parameter_is_named_for_programs(stub: TranscriptionServiceStub) -> None:
    _, _, info = await refusal(stub, TranscribeRequest(config=TranscribeConfig(channels=5)))
    assert info.metadata["parameter"] == "channels"


async def test_an_unknown_language_is_refused_during_the_stream(stub: TranscriptionServiceStub) -> None:
    change = TranscribeRequest(control=TranscribeControl(set_language=TranscribeControl.SetLanguage(language="xx")))
    _, message, info = await refusal(stub, CONFIG, change)
    assert (info.reason, info.metadata["parameter"]) == ("INVALID_PARAMETERS", "language")
    assert "'xx'" in message


async def test_a_batch_job_without_its_model_is_refused(stub: TranscriptionServiceStub) -> None:
    config = TranscribeConfig(enhance_on_end=True, store_audio=True)
    _, message, info = await refusal(stub, TranscribeRequest(config=config))
    assert (info.reason, info.metadata["parameter"]) == ("INVALID_PARAMETERS", "enhance_on_end")
    assert "needs the model accurate" in message


async def test_a_failing_model_is_internal_and_keeps_its_secrets(stub: TranscriptionServiceStub) -> None:
    speech, _ = soundfile.read("samples/sense-and-sensibility.flac", frames=80_000, dtype="int16")
    audio = [TranscribeRequest(audio=chunk.tobytes()) for chunk in np.array_split(speech, 20)]
    code, message, info = await refusal(stub, CONFIG, *audio, FLUSH)
    assert code is grpc.StatusCode.INTERNAL
    assert info.reason == "INTERNAL"
    assert "secret" not in message
    assert "incident" in message


async def test_audio_beyond_the_session_limit_ends_a_fast_session(stub: TranscriptionServiceStub) -> None:
    config = TranscribeRequest(config=TranscribeConfig(encoding="mulaw", sample_rate=8000))
    silence = [TranscribeRequest(audio=b"\xff" * 64_000)] * 8
    code, message, info = await refusal(stub, config, *silence)
    assert (code, info.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "SESSION_TIMEOUT")
    assert "60 seconds" in message


async def test_an_idle_stream_is_ended(stub: TranscriptionServiceStub) -> None:
    call = stub.Transcribe()
    await call.write(CONFIG)
    assert (await call.read()).HasField("session_begin")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_keepalive_counts_as_a_sign_of_life(stub: TranscriptionServiceStub) -> None:
    call = stub.Transcribe()
    await call.write(CONFIG)
    for _ in range(6):
        await asyncio.sleep(0.1)
        await call.write(TranscribeRequest(control=TranscribeControl(keep_alive=TranscribeControl.KeepAlive())))
    await call.done_writing()
    kinds = [response.WhichOneof("response") async for response in call]
    assert kinds == ["session_begin", "session_end"]


async def test_streams_beyond_the_limit_are_refused_until_one_ends(
    stub: TranscriptionServiceStub,
) -> None:
    calls = [stub.Transcribe() for _ in range(2)]
    for call in calls:
        await call.write(CONFIG)
        await call.read()
    code, _, info = await refusal(stub, CONFIG)
    assert (code, info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_CAPACITY")
    for call in calls:
        call.cancel()
    for _ in range(100):
        try:
            assert len(await talk(stub, CONFIG)) == 2
            return
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.01)
    pytest.fail("the places of cancelled streams were not freed")
