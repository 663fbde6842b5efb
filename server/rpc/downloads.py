"""Files of sessions on their way to a reader: audio, transcripts and exports."""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import Final
from uuid import UUID

from dalston.v1 import session_pb2 as pb
from google.api.httpbody_pb2 import HttpBody

from domain.session_id import parse_session_id
from domain.tenancy import REFUSALS
from domain.transcript import Utterance, WordNames
from persistence.records import StoredSession
from persistence.s3.linked import joined_language, joined_seconds, session_spans
from persistence.service import Persistence
from server.access.errors import RateLimited
from server.rpc.audit import write_last
from server.rpc.byte_range import ByteRange, requested_range
from server.rpc.captions import CaptionOptions
from server.rpc.export import FORMATS, JsonRenderer, Renderer, SrtRenderer, TextRenderer, VttRenderer
from server.rpc.interceptor import Context
from server.rpc.places import Places
from server.rpc.validators import entity_tag, is_unchanged, may_take_part
from server.session.errors import IdleTimeout, InvalidParameter

_PATIENCE_SECONDS: Final = 60.0
"""A reader may take so long over one chunk, and fall so far behind the slowest rate."""
_SLOWEST_RATE: Final = 64 * 1024 / 5
"""Bytes a second, on the mean: a player of 8 kHz audio, the slowest there is, takes more."""
_RETRY_SECONDS: Final = 5.0
"""When to ask again for the place of another download; nobody knows how long that one goes on."""
_CHUNK_BYTES: Final = 64 * 1024
_IN_MEMORY_BYTES: Final = 1 << 20
_UTTERANCES_A_TURN: Final = 50
_LINE_LENGTHS: Final = (10, 200)
_LINES: Final = (1, 5)
_DEFAULT_OPTIONS: Final = CaptionOptions()


@dataclass(frozen=True, slots=True)
class _File:
    """What the headers say of a file."""

    content_type: str
    name: str | None
    """None: to be shown rather than saved."""
    size: int
    """Of the whole file, in bytes."""
    tag: str
    """Differs whenever the file's bytes do; with its quotes."""
    range: ByteRange | None = None
    """The part that is sent; None is the whole file."""
    takes_ranges: bool = False


class Downloads:
    """Sends files. Errors are raised, those that can be known before the first byte.

    Every method that sends raises IdleTimeout where the reader does not take what it asked for.
    """

    def __init__(self, persistence: Persistence, most: int) -> None:
        """`most`: downloads of one tenant in progress at a time."""
        self._persistence = persistence
        self._most = most
        self._running = Places()

    @contextmanager
    def place(self, tenant_id: UUID) -> Iterator[None]:
        """One of the tenant's places for the block: every download needs one.

        Raises:
            RateLimited: all are taken.
        """
        if self._running.of(tenant_id) >= self._most:
            REFUSALS.labels("downloads").inc()
            raise RateLimited(f"{self._most} downloads are in progress, which is the limit", _RETRY_SECONDS)
        with self._running.taken(tenant_id):
            yield

    async def audio(self, tenant_id: UUID, request: pb.GetAudioRequest, context: Context) -> None:
        """The WAV file, or the range of it that the metadata asks for.

        Raises:
            AudioNotStored, SessionActive: as their names say.
            RangeNotSatisfiable: the file does not have these bytes.
        """
        chain = await self._persistence.chains.read(
            tenant_id, parse_session_id(request.session_id), linked=request.linked
        )
        whole = await self._persistence.archive.audio_file(chain)
        tag = entity_tag(whole.identity)
        # Of HEAD a range means nothing (RFC 9110, section 14.2), and of another file than the client has a part of.
        is_whole = (
            is_head(context)
            or not may_take_part(_metadata(context, "if-range"), tag)
            # It is answered before the range is looked at.
            or is_unchanged(_metadata(context, "if-none-match"), tag)
        )
        wanted = None if is_whole else requested_range(_metadata(context, "range"), whole.size)
        file = _File("audio/wav", f"{request.session_id}.wav", whole.size, tag, wanted, takes_ranges=True)
        part = whole if wanted is None else whole.between(wanted.begin, wanted.end)
        await _send(context, file, self._persistence.archive.read(part))

    async def transcript(self, tenant_id: UUID, request: pb.GetTranscriptRequest, context: Context) -> None:
        """The JSON document.

        Raises:
            TranscriptNotStored, SessionActive: as their names say.
        """
        chain = await self._persistence.chains.read(
            tenant_id, parse_session_id(request.session_id), linked=request.linked
        )
        await self._document(chain, None, context)

    async def export(self, tenant_id: UUID, request: pb.ExportTranscriptRequest, context: Context) -> None:
        """The transcript in another format.

        Raises:
            InvalidParameter: the format is unknown, or an option out of range.
            TranscriptNotStored, SessionActive: as their names say.
        """
        if request.format not in FORMATS:
            raise InvalidParameter("format", f"must be one of {', '.join(FORMATS)}")
        options = _caption_options(request)
        chain = await self._persistence.chains.read(
            tenant_id, parse_session_id(request.session_id), linked=request.linked
        )
        name = f"{request.session_id}.{request.format}"
        if request.format == "json":
            await self._document(chain, name, context)
            return
        renderers = {"txt": TextRenderer(), "srt": SrtRenderer(options), "vtt": VttRenderer(options)}
        await self._render(chain, renderers[request.format], name, context)

    async def _document(self, chain: tuple[StoredSession, ...], name: str | None, context: Context) -> None:
        if len(chain) == 1:
            document = await self._persistence.archive.transcript_file(chain[0])
            stored = self._persistence.archive.read(document)
            await _send_written(context, JsonRenderer.content_type, name, _named(stored))
            return
        renderer = JsonRenderer(chain[-1].session_id, joined_language(chain), joined_seconds(chain))
        await self._render(chain, renderer, name, context)

    async def _render(
        self, chain: tuple[StoredSession, ...], renderer: Renderer, name: str | None, context: Context
    ) -> None:
        for session in chain:
            session.require_transcript()
        async with aclosing(self._persistence.utterances.joined(session_spans(chain))) as utterances:
            await _send_written(context, renderer.content_type, name, _rendered(renderer, utterances))


async def _rendered(renderer: Renderer, utterances: AsyncIterator[Utterance]) -> AsyncGenerator[bytes, None]:
    yield renderer.begin().encode()
    count = 0
    async for utterance in utterances:
        yield renderer.push(utterance).encode()
        count += 1
        if count % _UTTERANCES_A_TURN == 0:
            # Live streams share this loop.
            await asyncio.sleep(0)
    yield renderer.end().encode()


async def _named(document: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """A stored document with both names of a word, whenever it was stored."""
    names = WordNames()
    async with aclosing(document):
        async for chunk in document:
            yield names.push(chunk)
    yield names.finish()


async def _send_written(
    context: Context, content_type: str, name: str | None, chunks: AsyncGenerator[bytes, None]
) -> None:
    """Sends what is written to its end first: what can fail has failed by then, and its length and tag are known."""
    digest = hashlib.sha256()
    with SpooledTemporaryFile(_IN_MEMORY_BYTES) as written:
        async with aclosing(chunks):
            async for chunk in chunks:
                written.write(chunk)
                digest.update(chunk)
        size = written.tell()
        written.seek(0)
        file = _File(content_type, name, size, entity_tag(digest.digest()))
        await _send(context, file, _chunks(written))


async def _chunks(file: "SpooledTemporaryFile[bytes]") -> AsyncGenerator[bytes, None]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


async def _send(context: Context, file: _File, chunks: AsyncGenerator[bytes, None]) -> None:
    async with aclosing(chunks):
        if is_unchanged(_metadata(context, "if-none-match"), file.tag):
            await context.send_initial_metadata((("etag", file.tag), ("x-not-modified", "1")))
            await write_last(context, HttpBody(content_type=file.content_type))
            return
        if is_head(context):
            await context.send_initial_metadata(_headers(file))
            await write_last(context, HttpBody(content_type=file.content_type))
            return
        # Nothing is promised before there is something to send: until then an error has its own status.
        chunk = await anext(chunks, b"")
        await context.send_initial_metadata(_headers(file))
        reader = _Reader(context, file)
        await reader.give(chunk)
        async for chunk in chunks:
            await reader.give(chunk)


class _Reader:
    """Whoever reads a download, and how fast. Time that is spent on anything but waiting for them does not count."""

    def __init__(self, context: Context, file: _File) -> None:
        self._context = context
        self._content_type = file.content_type
        self._size = _sent_size(file)
        self._bytes = 0
        self._seconds = 0.0

    async def give(self, chunk: bytes) -> None:
        """Waits until the reader has room for a chunk.

        Raises:
            IdleTimeout: it makes none in time.
        """
        bulk = self._bytes / _SLOWEST_RATE - self._seconds
        begun = time.monotonic()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS + min(0.0, bulk)):
                await self._write(chunk)
        except TimeoutError:
            raise IdleTimeout("the download was read too slowly, or not at all") from None
        self._bytes += len(chunk)
        self._seconds += time.monotonic() - begun

    async def _write(self, chunk: bytes) -> None:
        body = HttpBody(content_type=self._content_type, data=chunk)
        if self._bytes + len(chunk) < self._size:
            await self._context.write(body)
        else:
            await write_last(self._context, body)


def _sent_size(file: _File) -> int:
    return file.size if file.range is None else file.range.end - file.range.begin


def _headers(file: _File) -> tuple[tuple[str, str], ...]:
    """Envoy's filter `download` makes an HTTP answer of them."""
    headers = [("x-content-length", str(_sent_size(file))), ("etag", file.tag)]
    if file.name is not None:
        headers.append(("content-disposition", f'attachment; filename="{file.name}"'))
    if file.takes_ranges:
        headers.append(("accept-ranges", "bytes"))
    if file.range is not None:
        headers.append(("content-range", file.range.content_range(file.size)))
    return tuple(headers)


def is_head(context: Context) -> bool:
    """Whether the headers alone are wanted: Envoy's filters `download` and `lines` say so."""
    return bool(_metadata(context, "x-head"))


def _metadata(context: Context, name: str) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == name:
            return value if isinstance(value, str) else ""
    return ""


def _caption_options(request: pb.ExportTranscriptRequest) -> CaptionOptions:
    length = request.max_line_length if request.HasField("max_line_length") else _DEFAULT_OPTIONS.max_line_length
    lines = request.max_lines if request.HasField("max_lines") else _DEFAULT_OPTIONS.max_lines
    for name, value, (least, most) in (("max_line_length", length, _LINE_LENGTHS), ("max_lines", lines, _LINES)):
        if not least <= value <= most:
            raise InvalidParameter(name, f"must be {least} to {most}")
    return CaptionOptions(length, lines)
