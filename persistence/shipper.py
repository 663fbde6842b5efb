"""From the spool to S3."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID

from prometheus_client import Counter, Histogram

from persistence.errors import StorageUnavailable
from persistence.keys import audio_key, transcript_key
from persistence.objects import PART_BYTES, ObjectStore
from persistence.records import Progress, StoredObjects
from persistence.spool import SessionSpool
from persistence.transcript import document

# Each holds up to three parts in memory while it cuts them from the segments.
_CONCURRENT_SESSIONS: Final = 4

_stored_bytes = Counter("dalston_stored_audio_bytes_total", "Bytes of WAV files put to S3")
_seconds = Histogram("dalston_ship_seconds", "From the spool to S3, one session")


class Shipper:
    """Puts sessions' audio and transcripts to S3. Shipping a session again replaces what is there by the same."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._slots = asyncio.Semaphore(_CONCURRENT_SESSIONS)

    async def ship(self, spool: SessionSpool, progress: Progress) -> StoredObjects:
        """Puts what an ended session asked to be stored.

        Raises:
            StorageUnavailable: S3 or the spool's disk does not do its part.
        """
        start = spool.manifest.start
        async with self._slots:
            began = time.monotonic()
            try:
                audio = await self._ship_audio(spool) if start.store_audio else None
                transcript = await self._ship_transcript(spool, progress) if start.store_transcript else None
            except OSError as error:
                raise StorageUnavailable("the spool cannot be read") from error
            _seconds.observe(time.monotonic() - began)
        return StoredObjects(audio, transcript)

    async def discard(self, session_id: UUID) -> None:
        """Removes a session's objects, whichever there are.

        Raises:
            StorageUnavailable: S3 does not do its part.
        """
        await self._objects.delete(audio_key(session_id))
        await self._objects.delete(transcript_key(session_id))

    async def _ship_audio(self, spool: SessionSpool) -> str:
        key = audio_key(spool.manifest.start.id)
        size = spool.wav.file_bytes(await asyncio.to_thread(spool.audio_bytes))
        if size <= PART_BYTES:
            whole = b"".join([part async for part in _read_parts(spool)])
            await self._objects.put(key, whole, "audio/wav")
        else:
            await self._objects.put_parts(key, _read_parts(spool), "audio/wav")
        _stored_bytes.inc(size)
        return self._objects.uri(key)

    async def _ship_transcript(self, spool: SessionSpool, progress: Progress) -> str:
        start = spool.manifest.start
        key = transcript_key(start.id)
        utterances = await asyncio.to_thread(spool.utterances)
        body = document(start.session_id, progress.language, progress.audio_seconds, utterances)
        await self._objects.put(key, body, "application/json")
        return self._objects.uri(key)


async def _read_parts(spool: SessionSpool) -> AsyncIterator[bytes]:
    parts = spool.parts()
    while (part := await asyncio.to_thread(next, parts, None)) is not None:
        yield part
