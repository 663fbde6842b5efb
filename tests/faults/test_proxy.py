"""The proxy breaks what its methods name, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from tests.faults.proxy import Proxy


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(line.upper())
        except OSError:
            pass
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    async with Proxy(*server.sockets[0].getsockname()[:2]) as proxy:
        yield proxy
    server.close()


async def ask(proxy: Proxy, line: bytes = b"hello\n", seconds: float = 5) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        async with asyncio.timeout(seconds):
            writer.write(line)
            return await reader.readline()
    finally:
        writer.transport.abort()


async def test_a_proxy_passes_all_data_and_the_end(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"hello\n" * 100_000)
    writer.write_eof()
    assert await reader.read(-1) == b"HELLO\n" * 100_000
    writer.transport.abort()
    assert await ask(proxy) == b"HELLO\n"


async def test_a_cut_resets_and_a_new_connection_works(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"a\n")
    assert await reader.readline() == b"A\n"
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        await reader.readline()
    writer.transport.abort()
    assert await ask(proxy) == b"HELLO\n"


async def test_a_proxy_refuses_until_restored(proxy: Proxy) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionResetError):
        await ask(proxy)
    proxy.restore()
    assert await ask(proxy) == b"HELLO\n"


async def test_a_stall_is_silence_and_loses_nothing(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    proxy.stall()
    writer.write(b"a\n")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await reader.read(1)
    proxy.restore()
    assert await reader.readline() == b"A\n"
    writer.transport.abort()


async def test_a_stalled_answer_means_that_the_question_arrived(proxy: Proxy) -> None:
    proxy.stall(proxy.to_client)
    with pytest.raises(TimeoutError):
        await ask(proxy, seconds=0.2)
    assert proxy.to_server.passed_bytes == 6


async def test_a_swallowed_question_never_arrives(proxy: Proxy) -> None:
    proxy.swallow(proxy.to_server)
    with pytest.raises(TimeoutError):
        await ask(proxy, seconds=0.2)
    assert proxy.to_server.passed_bytes == 0


async def test_a_delay_delays(proxy: Proxy) -> None:
    proxy.delay(0.15)
    began = asyncio.get_running_loop().time()
    assert await ask(proxy) == b"HELLO\n"
    assert asyncio.get_running_loop().time() - began >= 0.29


async def test_a_lost_answer_was_an_answer(proxy: Proxy) -> None:
    proxy.lose_answers()
    with pytest.raises(ConnectionResetError):
        await ask(proxy)
    assert proxy.to_server.passed_bytes == 6


@pytest.mark.parametrize(("before", "arrives"), [(True, 0), (False, 7)])
async def test_a_proxy_cuts_once_at_a_given_word(proxy: Proxy, before: bool, arrives: int) -> None:
    proxy.cut_on(b"COMMIT", before=before)
    assert await ask(proxy) == b"HELLO\n"
    if before:
        with pytest.raises(ConnectionResetError):
            await ask(proxy, b"COMMIT\n")
    else:
        with suppress(ConnectionResetError):  # or its answer came first
            await ask(proxy, b"COMMIT\n")
    assert proxy.to_server.passed_bytes == 6 + arrives
    assert await ask(proxy, b"COMMIT\n") == b"COMMIT\n"
