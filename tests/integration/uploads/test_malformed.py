"""Requests that no client sends: each is answered, and none with a 5xx."""

import asyncio
import random
from typing import Any

import pytest

from tests.integration.uploads.conftest import Service
from tests.integration.uploads.scripted_server import KEY

BODY = (
    b'--b7\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    b'--b7\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    b"RIFF" + bytes(300) + b"\r\n"
    b'--b7\r\nContent-Disposition: form-data; name="response_format"\r\n\r\nverbose_json\r\n--b7--\r\n'
)


def mutated(dice: random.Random) -> bytes:
    body = bytearray(BODY)
    for _ in range(dice.randint(1, 5)):
        if len(body) < 2:
            break
        at = dice.randrange(len(body))
        match dice.randrange(4):
            case 0:
                body[at] = dice.randrange(256)
            case 1:
                del body[at : at + dice.randint(1, 40)]
            case 2:
                body[at:at] = dice.choice([b"\r\n", b"--b7", b"--b7--", b"\x00", b'"', b";", b"\xff"])
            case 3:
                del body[max(1, at) :]
    return bytes(body)


async def answer_to(service: Service, body: bytes, more: bytes = b"") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    head = (
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Type: multipart/form-data; boundary=b7\r\n" + f"Authorization: Bearer {KEY}\r\n".encode() + more
    )
    writer.write(head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    try:
        async with asyncio.timeout(20):
            response: bytes = await reader.read()
    finally:
        writer.close()
    return response


@pytest.mark.parametrize("seed", range(10))
async def test_a_mutated_body_is_answered_and_not_by_a_5xx(service: Service, seed: int) -> None:
    dice = random.Random(seed)
    answers = await asyncio.gather(*(answer_to(service, mutated(dice)) for _ in range(30)))
    statuses = {answer.split(b" ", 2)[1] for answer in answers}
    assert statuses <= {b"200", b"400", b"404"}
    assert b"400" in statuses
    assert (await service.post()).status_code == 200


@pytest.mark.parametrize(
    "chunks",
    [b"zz\r\nabc\r\n", b"5\r\nab\r\n0\r\n\r\n", b"-1\r\n\r\n", b"fffffffffffffffffff\r\nx\r\n"],
)
async def test_a_malformed_chunk_is_a_400(service: Service, chunks: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Type: multipart/form-data; boundary=b7\r\n" + f"Authorization: Bearer {KEY}\r\n\r\n".encode() + chunks
    )
    writer.write_eof()
    async with asyncio.timeout(20):
        answer: Any = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400") or not answer
