"""Downloads of the files of sessions: audio, transcripts and exports."""

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

from domain.captions import CaptionOptions
from domain.export import FORMATS, JsonRenderer, Renderer, SrtRenderer, TextRenderer, VttRenderer
from domain.job import TranscriptVersion
from domain.session_id import parse_session_id
from domain.tenancy import REFUSALS
from domain.transcript import DocumentVersion, Utterance, WordNames
from persistence.service import Persistence
from persistence.session_values import StoredSession
from persistence.transcript_choice import LIVE, ChosenTranscript
from server.access.errors import RateLimited
from server.audio.media import MEDIA_TYPES
from server.rpc.audit import write_last
from server.rpc.byte_range import ByteRange, requested_range
from server.rpc.interceptor import Context
from server.rpc.places import Places
from server.rpc.validators import entity_tag, is_unchanged, may_take_part
from server.rpc.waveforms import Waveforms
from server.session.errors import IdleTimeout, InvalidParameter

_WRITE_SECONDS: Final = 60.0
"""The longest that a client may take to accept a chunk, and that it may lag behind the slowest rate."""
_SLOWEST_RATE: Final = 64 * 1024 / 5
"""Bytes per second, on average: below what a player of 8 kHz audio needs, the lowest rate of a recording."""
_RETRY_SECONDS: Final = 5.0
"""The pause before another attempt; how long the downloads in progress will take is not known."""
_CHUNK_BYTES: Final = 64 * 1024
_WAV: Final = "audio/wav"
_WAVEFORM: Final = "application/octet-stream"
_SUFFIXES: Final = {media_type: name for name, media_type in MEDIA_TYPES.items()}
_IN_MEMORY_BYTES: Final = 1 << 20
_UTTERANCES_PER_TURN: Final = 50
_LINE_LENGTHS: Final = (10, 200)
_LINES: Final = (1, 5)
_DEFAULT_OPTIONS: Final = CaptionOptions()


@dataclass(frozen=True, slots=True)
class _File:
    """The headers of a file."""

    content_type: str
    name: str | None
    """None: the client displays it instead of saving it."""
    size: int
    """Length of the whole file in bytes."""
    tag: str
    """The entity tag, with its quotes: different whenever the file's bytes are."""
    range: ByteRange | None = None
    """The part to send; None is the whole file."""
    takes_ranges: bool = False
    version: int | None = None
    """Of a transcript, where all of it is of one version."""


@dataclass(frozen=True, slots=True)
class _Head:
    """What is known of a transcript before it is written."""

    content_type: str
    name: str | None
    version: int | None


class Downloads:
    """Sends files. Errors that can be known in advance are raised before the first byte.

    Every method that sends raises IdleTimeout if the client reads too slowly.
    """

    def __init__(self, persistence: Persistence, most: int, waveforms: Waveforms) -> None:
        """`most`: concurrent downloads of one tenant."""
        self._persistence = persistence
        self._waveforms = waveforms
        self._most = most
        self._running = Places()

    @contextmanager
    def place(self, tenant_id: UUID) -> Iterator[None]:
        """Occupies one of the tenant's places for the block; every download needs one.

        Raises:
            RateLimited: all are occupied.
        """
        if self._running.of(tenant_id) >= self._most:
            REFUSALS.labels("downloads").inc()
            raise RateLimited(f"{self._most} downloads are in progress, which is the limit", _RETRY_SECONDS)
        with self._running.taken(tenant_id):
            yield

    async def send_audio(self, tenant_id: UUID, request: pb.GetAudioRequest, context: Context) -> None:
        """Sends the WAV file, or the uploaded file, or the part of it that the metadata requests.

        Raises:
            AudioNotStored, SessionActive: as their names say.
            RangeNotSatisfiable: the file does not have the requested bytes.
        """
        chain = await self._chain(tenant_id, request.session_id, linked=request.linked)
        whole = await self._persistence.archive.audio_file(chain)
        tag = entity_tag(whole.identity)
        # A range is ignored for HEAD (RFC 9110, section 14.2), and if the client has a part of another version.
        is_whole = (
            is_head(context)
            or not may_take_part(_metadata(context, "if-range"), tag)
            # This condition precedes the range.
            or is_unchanged(_metadata(context, "if-none-match"), tag)
        )
        wanted = None if is_whole else requested_range(_metadata(context, "range"), whole.size)
        content_type = chain[-1].media_type or _WAV
        name = f"{request.session_id}.{_SUFFIXES.get(content_type, 'bin')}"
        file = _File(content_type, name, whole.size, tag, wanted, takes_ranges=True)
        part = whole if wanted is None else whole.between(wanted.begin, wanted.end)
        await _send(context, file, self._persistence.archive.read(part))

    async def send_waveform(self, tenant_id: UUID, request: pb.GetWaveformRequest, context: Context) -> None:
        """Sends the waveform of the audio.

        Raises:
            AudioNotStored, SessionActive: as their names say.
            RateLimited: too many waveforms are made.
        """
        chain = await self._chain(tenant_id, request.session_id, linked=request.linked)
        data = await self._waveforms.of(tenant_id, chain)
        file = _File(_WAVEFORM, f"{request.session_id}.dat", len(data), entity_tag(data))
        await _send(context, file, _pieces(data))

    async def send_transcript(self, tenant_id: UUID, request: pb.GetTranscriptRequest, context: Context) -> None:
        """Sends the JSON document.

        Raises:
            TranscriptNotStored, TranscriptNotFound, SessionActive: as their names say.
        """
        await self._document(await self._chosen(tenant_id, request), None, context)

    async def send_export(self, tenant_id: UUID, request: pb.ExportTranscriptRequest, context: Context) -> None:
        """Sends the transcript in another format.

        Raises:
            InvalidParameter: the format is unknown, or an option out of range.
            TranscriptNotStored, TranscriptNotFound, SessionActive: as their names say.
        """
        if request.format not in FORMATS:
            raise InvalidParameter("format", f"must be one of {', '.join(FORMATS)}")
        options = _caption_options(request)
        chosen = await self._chosen(tenant_id, request)
        name = f"{request.session_id}.{request.format}"
        if request.format == "json":
            await self._document(chosen, name, context)
            return
        renderers = {"txt": TextRenderer(), "srt": SrtRenderer(options), "vtt": VttRenderer(options)}
        await self._render(chosen, renderers[request.format], name, context)

    async def _chain(self, tenant_id: UUID, session_id: str, *, linked: bool) -> tuple[StoredSession, ...]:
        return await self._persistence.chains.read(tenant_id, parse_session_id(session_id), linked=linked)

    async def _chosen(
        self, tenant_id: UUID, request: pb.GetTranscriptRequest | pb.ExportTranscriptRequest
    ) -> ChosenTranscript:
        session_id = parse_session_id(request.session_id)
        return await self._persistence.transcripts.choose(tenant_id, session_id, request.version, linked=request.linked)

    async def _document(self, chosen: ChosenTranscript, name: str | None, context: Context) -> None:
        if chosen.document_key is not None:
            document = await self._persistence.archive.document_file(chosen.document_key)
            stored = self._persistence.archive.read(document)
            await _send_written(context, _Head(JsonRenderer.content_type, name, chosen.number), _named(stored))
            return
        renderer = JsonRenderer(
            chosen.session.session_id, chosen.language, chosen.seconds, _document_version(chosen.version)
        )
        await self._render(chosen, renderer, name, context)

    async def _render(self, chosen: ChosenTranscript, renderer: Renderer, name: str | None, context: Context) -> None:
        head = _Head(renderer.content_type, name, chosen.number)
        async with aclosing(self._persistence.transcripts.utterances(chosen)) as utterances:
            await _send_written(context, head, _rendered(renderer, utterances))


def _document_version(version: TranscriptVersion | None) -> DocumentVersion | None:
    if version is None or version.kind == "live":
        return None
    return DocumentVersion(version.version, version.model, version.kind)


async def _rendered(renderer: Renderer, utterances: AsyncIterator[Utterance]) -> AsyncGenerator[bytes, None]:
    yield renderer.begin().encode()
    count = 0
    async for utterance in utterances:
        yield renderer.push(utterance).encode()
        count += 1
        if count % _UTTERANCES_PER_TURN == 0:
            # Live streams share this event loop.
            await asyncio.sleep(0)
    yield renderer.end().encode()


async def _named(document: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """A stored document with both names of each word: older ones have only `word`."""
    names = WordNames()
    async with aclosing(document):
        async for chunk in document:
            yield names.push(chunk)
    yield names.finish()


async def _send_written(context: Context, head: _Head, chunks: AsyncGenerator[bytes, None]) -> None:
    """Writes the document to a temporary file first: errors, length and tag are then known before the first byte."""
    digest, size = hashlib.sha256(), 0
    if head.version is not None and head.version > LIVE:
        # Two versions may have the same text.
        digest.update(b"version %d\n" % head.version)
    with SpooledTemporaryFile(_IN_MEMORY_BYTES) as written:
        async with aclosing(chunks):
            async for chunk in chunks:
                written.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        written.seek(0)
        file = _File(head.content_type, head.name, size, entity_tag(digest.digest()), version=head.version)
        await _send(context, file, _chunks(written))


async def _pieces(data: bytes) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(data), _CHUNK_BYTES):
        yield data[at : at + _CHUNK_BYTES]


async def _chunks(file: "SpooledTemporaryFile[bytes]") -> AsyncGenerator[bytes, None]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


async def _send(context: Context, file: _File, chunks: AsyncGenerator[bytes, None]) -> None:
    async with aclosing(chunks):
        if is_unchanged(_metadata(context, "if-none-match"), file.tag):
            await context.send_initial_metadata((("etag", file.tag), *_version_header(file), ("x-not-modified", "1")))
            await write_last(context, HttpBody(content_type=file.content_type))
            return
        if is_head(context):
            await context.send_initial_metadata(_headers(file))
            await write_last(context, HttpBody(content_type=file.content_type))
            return
        # Headers are sent with the first chunk: an error before it has a status of its own.
        chunk = await anext(chunks, b"")
        await context.send_initial_metadata(_headers(file))
        client = _DownloadClient(context, file)
        await client.send(chunk)
        async for chunk in chunks:
            await client.send(chunk)


class _DownloadClient:
    """The client of a download and its rate. Only time spent waiting for the client counts."""

    def __init__(self, context: Context, file: _File) -> None:
        self._context = context
        self._content_type = file.content_type
        self._size = _sent_size(file)
        self._bytes = 0
        self._seconds = 0.0

    async def send(self, chunk: bytes) -> None:
        """Sends a chunk, as soon as the client has room for it.

        Raises:
            IdleTimeout: the client is too slow.
        """
        bulk = self._bytes / _SLOWEST_RATE - self._seconds
        begun = time.monotonic()
        try:
            async with asyncio.timeout(_WRITE_SECONDS + min(0.0, bulk)):
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
    """Metadata that Envoy's filter `download` converts to headers of HTTP."""
    headers = [("x-content-length", str(_sent_size(file))), ("etag", file.tag), *_version_header(file)]
    if file.name is not None:
        headers.append(("content-disposition", f'attachment; filename="{file.name}"'))
    if file.takes_ranges:
        headers.append(("accept-ranges", "bytes"))
    if file.range is not None:
        headers.append(("content-range", file.range.content_range(file.size)))
    return tuple(headers)


def _version_header(file: _File) -> tuple[tuple[str, str], ...]:
    return () if file.version is None else (("x-transcript-version", str(file.version)),)


def is_head(context: Context) -> bool:
    """Whether the client requests the headers only. Envoy's filters `download` and `lines` set the metadata for it."""
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
