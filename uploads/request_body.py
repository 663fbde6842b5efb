"""Reads the body of a request: its fields are collected, and its file is passed on as it arrives."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from uploads.body import BodyParser, Field, FileBegin
from uploads.config import UploadLimits
from uploads.errors import ApiError, invalid, too_big
from uploads.json_body import JsonBody
from uploads.multipart_body import MultipartBody, boundary_of
from uploads.parameters import check_field

SPARE_BYTES: Final = 1024 * 1024
"""What a body may have besides its file: fields, and the boundaries between them."""
DISCARD_SECONDS: Final = 5.0
"""How long the rest of a request that is refused is read: many clients do not read a response before they have sent
their request."""
DISCARD_IDLE_SECONDS: Final = 1.0
"""A client that sends nothing for so long has stopped, and reads."""
MAX_DISCARDED: Final = 64
"""How many such requests there may be at once; beyond that they are answered without it."""


@dataclass(slots=True)
class ReceivedBody:
    """What a body had, besides the bytes of its file."""

    fields: list[Field] = field(default_factory=list)
    file_name: str = ""
    file_bytes: int = 0


async def receive(request: web.Request, limits: UploadLimits, send: Callable[[bytes], Awaitable[None]]) -> ReceivedBody:
    """Reads a whole body; `send` takes the bytes of its file, and the body is read no faster than it does.

    Raises:
        ApiError: the body is malformed, too large or too slow, has no file, or has a field that is refused.
    """
    parser = _parser_for(request, limits)
    body = ReceivedBody()
    has_file = False
    async for piece in _pieces(request, limits):
        for event in parser.feed(piece) if piece else parser.finish():
            if isinstance(event, Field):
                check_field(event)
                body.fields.append(event)
            elif isinstance(event, FileBegin):
                has_file, body.file_name = True, event.name
            else:
                body.file_bytes += len(event.data)
                if body.file_bytes > limits.max_bytes:
                    raise too_big(limits.max_bytes)
                await send(event.data)
    if not has_file:
        raise invalid("the request has no file: send it as the part `file`", "file")
    if body.file_bytes == 0:
        raise invalid("the file is empty", "file")
    return body


async def discard(request: web.Request) -> None:
    """Reads the rest of a request that is refused, for a while."""
    with suppress(TimeoutError, ConnectionError, web.RequestPayloadError, HttpProcessingError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while await asyncio.wait_for(request.content.readany(), DISCARD_IDLE_SECONDS):
                pass


def _parser_for(request: web.Request, limits: UploadLimits) -> BodyParser:
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise invalid("a compressed body is not taken: audio formats are compressed already", None)
    length = request.content_length
    match request.content_type:
        case "multipart/form-data":
            if length is not None and length > limits.max_bytes + SPARE_BYTES:
                raise too_big(limits.max_bytes)
            return MultipartBody(boundary_of(request.headers["Content-Type"]))
        case "application/json":
            if length is not None and length > limits.max_bytes * 4 // 3 + SPARE_BYTES:
                raise too_big(limits.max_bytes)
            return JsonBody()
    raise invalid("the content type must be multipart/form-data, with the file as the part `file`", None)


async def _pieces(request: web.Request, limits: UploadLimits) -> AsyncIterator[bytes]:
    """The pieces of the body, and an empty one at its end."""
    loop = asyncio.get_running_loop()
    end = loop.time() + limits.receive_seconds
    is_done = False
    while not is_done:
        try:
            async with asyncio.timeout(min(limits.idle_seconds, max(0.0, end - loop.time()))):
                piece = await request.content.readany()
        except TimeoutError:
            raise ApiError(
                408, "the request took too long to arrive", "request_timeout", retry_after=1, should_retry=True
            ) from None
        except (web.RequestPayloadError, HttpProcessingError):
            raise invalid("the body is not well-formed HTTP", None) from None
        is_done = not piece
        yield piece
