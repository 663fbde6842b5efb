"""The stored recording of a session: one builder for all sources of its audio.

A recording is a WAV object. The session's own process builds it from the spool; another process builds it from the
parts and tails in S3, or from a shorter object and a spool. The caller decides how much audio it will hold; where the
audio is read from is a parameter.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final, Protocol, TypeVar
from uuid import UUID

from prometheus_client import Histogram

from persistence.errors import DiskUnavailable, UploadNotFound
from persistence.postgres.lost_rows import note_restored
from persistence.postgres.rows import SessionRows, Upload
from persistence.s3 import layout
from persistence.s3.assembly import tail_slices
from persistence.s3.keys import Tail, audio_key, parse_tail_key, tail_key, tail_prefix
from persistence.s3.objects import Body, ObjectStore
from persistence.session_values import StoredPart
from persistence.spool.session_spool import SessionSpool
from persistence.wav import WavFormat, data_bytes

T = TypeVar("T")

_CONTENT_TYPE: Final = "audio/wav"
_HEADER_READ_BYTES: Final = 256

_read_bytes = Histogram(
    "dalston_salvage_read_bytes", "Audio read back to end one session", buckets=(0, 1e5, 1e6, 5e6, 1e7, 2e7)
)


class AudioSource(Protocol):
    """Where the audio of a recording is read from."""

    async def read(self, begin: int, end: int) -> Body:
        """The audio from byte `begin` to byte `end`, which is within one part.

        Raises:
            StorageUnavailable: S3 or the disk is unavailable, or some of the audio is not there.
        """


class StoredAudio:
    """The audio object of a session that is in S3 already. All methods raise StorageUnavailable."""

    def __init__(self, objects: ObjectStore, session_id: UUID, wav: WavFormat) -> None:
        self._objects = objects
        self._key = audio_key(session_id)
        self._wav = wav

    async def header(self) -> bytes:
        """The beginning of the object, as long as the header of its format.

        Raises:
            ObjectNotFound: there is no object.
        """
        return (await self._objects.read_start(self._key, _HEADER_READ_BYTES))[: self._wav.header_bytes]

    async def audio_bytes(self) -> int:
        """How much audio the object holds, as its header states it.

        Raises:
            ObjectNotFound: there is no object.
            ValueError: the object is not a recording.
        """
        return data_bytes(await self.header())

    async def read(self, begin: int, end: int) -> bytes:
        """The audio from byte `begin` to byte `end`.

        Raises:
            ObjectNotFound: there is no object.
        """
        header_bytes = self._wav.header_bytes
        return await self._objects.read_range(self._key, header_bytes + begin, header_bytes + end)


class TailAudio:
    """The audio of a session in its tails, which the caller knows to cover what is read."""

    def __init__(self, objects: ObjectStore, session_id: UUID, tails: Sequence[Tail]) -> None:
        self._objects = objects
        self._session_id = session_id
        self._tails = tails

    async def read(self, begin: int, end: int) -> bytes:
        """The audio from byte `begin` to byte `end`."""
        pieces = []
        for tail, first, stop in tail_slices(self._tails, begin, end):
            pieces.append((await self._objects.read(tail_key(self._session_id, tail)))[first:stop])
        audio = b"".join(pieces)
        _read_bytes.observe(len(audio))
        return audio


class ExtendedAudio:
    """The audio of a spool, and of a shorter object where the spool has released a segment."""

    def __init__(self, spool: SessionSpool, stored: StoredAudio, stored_bytes: int) -> None:
        self._spool = spool
        self._stored = stored
        self._stored_bytes = stored_bytes

    async def read(self, begin: int, end: int) -> bytes:
        """The audio from byte `begin` to byte `end`."""
        try:
            audio = await asyncio.to_thread(self._spool.read_audio_or_none, begin, end)
            if audio is not None:
                return audio
            seam = min(max(begin, self._stored_bytes), end)
            stored = await self._stored.read(begin, seam)
            return stored + await asyncio.to_thread(self._spool.read_audio, seam, end - seam)
        except OSError as error:
            raise DiskUnavailable("the spool cannot be read") from error


class Transfer:
    """How a process sends to S3: this one sends at once. A subclass may bound, watch and time what it sends."""

    async def send(self, kind: str, read: Callable[[], Awaitable[Body]], put: Callable[[Body], Awaitable[T]]) -> T:
        """Reads a body and sends it. `kind` is `tail`, `part` or `whole`."""
        return await put(await read())

    async def complete(self, complete: Callable[[], Awaitable[None]]) -> None:
        """Completes an upload."""
        await complete()


class AudioBuilder:
    """Builds the audio object of one session, in one piece or from parts. One task at a time.

    Parts may be added while the session runs. A part that S3 and Postgres have is not sent again, whichever process
    has sent it: the next attempt, or the next process, continues the upload.
    """

    def __init__(
        self,
        objects: ObjectStore,
        session_id: UUID,
        wav: WavFormat,
        record: Callable[[StoredPart], Awaitable[None]],
        transfer: Transfer | None = None,
    ) -> None:
        """`record` writes a part that S3 has to Postgres."""
        self._objects = objects
        self._key = audio_key(session_id)
        self._wav = wav
        self._record = record
        self._transfer = transfer or Transfer()
        self._unrecorded: StoredPart | None = None
        self.upload_id: str | None = None
        """The multipart upload; None before the first part."""
        self.parts: dict[int, StoredPart] = {}
        """What S3 and Postgres have of it, by number."""

    def reset(self, upload_id: str | None = None, parts: Sequence[StoredPart] = ()) -> None:
        """Continues another upload, or begins a new one."""
        self.upload_id, self.parts, self._unrecorded = upload_id, {part.number: part for part in parts}, None

    async def add_part(self, number: int, read: Callable[[], Awaitable[Body]]) -> None:
        """Uploads a part, unless an attempt before this one has, and records it.

        Raises:
            UploadNotFound: the upload has been aborted.
        """
        part = self._unrecorded
        if part is None or part.number != number:
            part = await self._transfer.send("part", partial(self._begun, read), partial(self._put_part, number))
            self._unrecorded = part
        await self._record(part)
        self.parts[number] = part
        self._unrecorded = None

    async def build(self, audio_bytes: int, source: AudioSource) -> None:
        """Puts the object, or adds the parts that are missing and completes the upload.

        Part 1 is the last, because its header states the length.

        Raises:
            UploadNotFound: the upload has been aborted, or completed by an attempt whose answer was lost.
            StorageUnavailable: S3, Postgres or the source is unavailable.
        """
        count = layout.part_count(self._wav, audio_bytes)
        if count == 1:
            await self._transfer.send("whole", partial(_body, self._wav, 1, audio_bytes, source), self._put)
            return
        for number in (*range(2, count + 1), 1):
            if number not in self.parts:
                await self.add_part(number, partial(_body, self._wav, number, audio_bytes, source))
        await self._transfer.complete(self._complete)

    async def _begun(self, read: Callable[[], Awaitable[Body]]) -> Body:
        body = await read()
        if self.upload_id is None:
            self.upload_id = await self._objects.create_upload(self._key, _CONTENT_TYPE)
        return body

    async def _put(self, body: Body) -> None:
        await self._objects.put(self._key, body, _CONTENT_TYPE)

    async def _put_part(self, number: int, body: Body) -> StoredPart:
        assert self.upload_id is not None  # noqa: S101 - begun before
        etag = await self._objects.upload_part(self._key, self.upload_id, number, body)
        return StoredPart(self.upload_id, number, etag, len(body))

    async def _complete(self) -> None:
        assert self.upload_id is not None  # noqa: S101 - there are parts
        await self._objects.complete_upload(
            self._key, self.upload_id, [self.parts[number] for number in sorted(self.parts)]
        )


async def replace_audio(
    objects: ObjectStore, session_id: UUID, wav: WavFormat, audio_bytes: int, source: AudioSource
) -> None:
    """Replaces the audio object of a stored session by a longer one, in one step.

    An attempt that fails leaves nothing behind, and the next begins anew.

    Raises:
        StorageUnavailable: S3 or the source is unavailable.
    """
    key, count = audio_key(session_id), layout.part_count(wav, audio_bytes)
    if count == 1:
        await objects.put(key, await _body(wav, 1, audio_bytes, source), _CONTENT_TYPE)
        return
    bodies = [partial(_body, wav, number, audio_bytes, source) for number in range(1, count + 1)]
    await objects.put_parts(key, _each(bodies), _CONTENT_TYPE)


async def _each(bodies: Sequence[Callable[[], Awaitable[Body]]]) -> AsyncIterator[Body]:
    for body in bodies:
        yield await body()


async def _body(wav: WavFormat, number: int, audio_bytes: int, source: AudioSource) -> Body:
    """A part of a recording of this length, with the header or the padding if it is the first or the last."""
    audio = await source.read(*layout.audio_range(wav, number, audio_bytes))
    if isinstance(audio, bytes):
        return layout.part(wav, number, audio_bytes, audio)
    before, after = layout.header_and_padding(wav, number, audio_bytes)
    return replace(audio, before=before, after=after)


async def read_tails(objects: ObjectStore, session_id: UUID) -> list[Tail]:
    """The tails of a session that are in S3.

    Raises:
        StorageUnavailable: S3 is unavailable.
    """
    keys = await objects.list(tail_prefix(session_id))
    return [tail for key in keys if (tail := parse_tail_key(key)) is not None]


async def read_upload(objects: ObjectStore, rows: SessionRows, session_id: UUID) -> Upload:
    """What there is of the multipart upload of a session that is not stored yet.

    Postgres may have lost parts, or the upload itself; what S3 lists of it is added. The first part and the last are
    not: their length depends on the length of the recording, so they count only if Postgres has them.

    Raises:
        StorageUnavailable: Postgres or S3 is unavailable.
    """
    recorded = await rows.upload(session_id)
    if recorded.is_stored:
        return recorded
    best, key = recorded, audio_key(session_id)
    for upload_id in await objects.uploads(key):
        if recorded.upload_id in (None, upload_id):
            with suppress(UploadNotFound):
                found = _with_parts(recorded, upload_id, await objects.parts(key, upload_id))
                best = max(best, found, key=lambda upload: len(upload.parts))
    if (more := len(best.parts) - len(recorded.parts)) > 0:
        note_restored("session_parts", session_id, more)
    return best


def _with_parts(recorded: Upload, upload_id: str, listed: Sequence[StoredPart]) -> Upload:
    parts = {each.number: each for each in listed if is_full_part(each)}
    parts |= {each.number: each for each in recorded.parts}
    return Upload(upload_id, tuple(parts[number] for number in sorted(parts)))


def is_full_part(part: StoredPart) -> bool:
    """Whether a part is full and not the first: it is audio alone, whatever length the recording has."""
    return part.number > 1 and part.size == layout.PART_BYTES
