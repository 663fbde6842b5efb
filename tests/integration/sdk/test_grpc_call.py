"""The stream that the SDK and the bridge share, against a server that ends it while the client writes."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from dalston.grpc_call import GrpcCall
from dalston.v1 import transcription_pb2 as pb
from dalston.v1.transcription_pb2_grpc import (
    TranscriptionServiceServicer,
    TranscriptionServiceStub,
    add_TranscriptionServiceServicer_to_server,
)

AUDIO = pb.TranscribeRequest(audio=bytes(3200))
END = pb.TranscribeRequest(control={"end": {}})
MESSAGES = 5


class Servicer(TranscriptionServiceServicer):
    """Refuses a stream with the model `refused` after some messages; serves any other to its end."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def Transcribe(self, _requests, context):
        try:
            first = await context.read()
            for _ in range(MESSAGES):
                await context.write(pb.TranscribeResponse(flushed={}))
            if first.config.model == "refused":
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", (("reason", "NO_CAPACITY"),))
            while await context.read() is not grpc.aio.EOF:
                pass
            await context.write(pb.TranscribeResponse(session_end={}))
        finally:
            self.ended.set()


@pytest.fixture
async def servicer() -> Servicer:
    return Servicer()


@pytest.fixture
async def stub(servicer: Servicer) -> AsyncIterator[TranscriptionServiceStub]:
    server = grpc.aio.server()
    add_TranscriptionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield TranscriptionServiceStub(channel)
    await server.stop(None)


async def opened(stub: TranscriptionServiceStub, model: str) -> GrpcCall:
    call = GrpcCall(stub.Transcribe())
    assert await call.write(pb.TranscribeRequest(config={"model": model}))
    return call


async def test_a_client_that_writes_during_a_refusal_gets_the_servers_status(stub):
    for _ in range(20):
        call = await opened(stub, "refused")
        async with asyncio.timeout(20):
            while await call.write(AUDIO):
                pass
            for _ in range(MESSAGES):
                response = await call.read()
                assert response is not None
                assert response.HasField("flushed")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        assert ("reason", "NO_CAPACITY") in tuple(caught.value.trailing_metadata() or ())
        assert call.done()
        assert not await call.write(AUDIO)
        await call.close()


async def test_a_half_closed_stream_is_read_to_its_end(stub):
    call = await opened(stub, "fast")
    assert await call.write(END)
    await call.half_close()
    async with asyncio.timeout(20):
        kinds = [(await call.read()).WhichOneof("response") for _ in range(MESSAGES + 1)]
        assert kinds == ["flushed"] * MESSAGES + ["session_end"]
        assert await call.read() is None
        await call.wait_done()
    await call.half_close()  # Does nothing once the stream is over.
    await call.close()


async def test_closing_cancels_a_stream_that_a_task_was_reading(stub, servicer):
    call = await opened(stub, "fast")
    for _ in range(MESSAGES):
        await call.read()
    reading = asyncio.create_task(call.read())
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait({reading})
    await call.close()
    async with asyncio.timeout(20):
        await servicer.ended.wait()
