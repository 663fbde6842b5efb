"""Rate limits of reflection, which needs no key."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from dalston.v1 import transcription_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from server.access.rates import Rates
from server.rpc.reflection import BoundedReflection

SERVICE = transcription_pb2.DESCRIPTOR.services_by_name["TranscriptionService"].full_name
QUESTION = reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE)


@pytest.fixture
async def stub() -> AsyncIterator[reflection_pb2_grpc.ServerReflectionStub]:
    server = grpc.aio.server()
    # The clock does not advance: buckets are not refilled.
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
        BoundedReflection((SERVICE,), Rates(clock=lambda: 0.0)), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield reflection_pb2_grpc.ServerReflectionStub(channel)
    await server.stop(None)


async def ask(stub: reflection_pb2_grpc.ServerReflectionStub, times: int, address: str) -> tuple[int, str]:
    """The number of answers, and the status."""
    call = stub.ServerReflectionInfo(metadata=(("x-forwarded-for", address),), timeout=20)
    count = 0
    try:
        # One at a time: grpc.aio loses the status of a call while it writes.
        for _ in range(times):
            await call.write(QUESTION)
            response = await call.read()
            assert response.file_descriptor_response.file_descriptor_proto
            count += 1
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        # The second exception occurs if the status arrives before the request has been written.
        return count, (await call.code()).name
    return count, "OK"


async def test_an_address_has_a_rate_limit_of_its_own(
    stub: reflection_pb2_grpc.ServerReflectionStub,
) -> None:
    assert await ask(stub, 100, "192.0.2.1") == (100, "OK")
    count, status = await ask(stub, 1000, "192.0.2.1")
    assert (count, status == "OK") == (301, False)
    assert await ask(stub, 100, "192.0.2.2") == (100, "OK")


async def test_all_addresses_together_have_a_rate_limit(stub: reflection_pb2_grpc.ServerReflectionStub) -> None:
    answers = [await ask(stub, 100, f"192.0.2.{number}") for number in range(20)]
    assert answers[:10] == [(100, "OK")] * 10
    # One more answer each, after which the stream ends: the proxy limits streams.
    assert {count for count, _ in answers[10:]} == {1}
