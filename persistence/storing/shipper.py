"""Ships the audio and the transcripts of sessions from the spool to S3."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

from domain.transcript import Utterance
from persistence.errors import DiskUnavailable
from persistence.postgres.rows import SessionRows
from persistence.s3.objects import ObjectStore
from persistence.session_values import StoredObjects
from persistence.spool.session_spool import SessionSpool
from persistence.storing.audio_upload import AudioUpload, UploadDependencies
from persistence.storing.degradations import Degradations
from persistence.storing.deletion import delete_objects
from persistence.storing.part_batcher import PartBatcher
from persistence.storing.transcript_writer import TranscriptWriter
from telemetry.logs import get_logger

log = get_logger(__name__)

# A tail is in memory while it is sent. A part is not, because it is read from the spool in pieces, unless some of its
# audio is gone and it is built from what is left.
_CONCURRENT_BODIES: Final = 8


@dataclass(frozen=True, slots=True)
class Shipped:
    """An ended session's objects."""

    objects: StoredObjects = field(default_factory=StoredObjects)
    audio_bytes: int | None = None
    """Audio in the object; None if no audio was to be stored."""
    audio_seconds: float | None = None
    has_tails: bool = False
    """Whether `clean` has objects to delete."""
    utterances: list[Utterance] | None = None
    """The finals in the transcript; None if no transcript was to be stored."""
    language: str | None = None
    """The language of the transcript."""


class Shipper:
    """Puts audio and transcripts to S3. Shipping a session again replaces its objects by the same ones."""

    def __init__(
        self,
        objects: ObjectStore,
        rows: SessionRows,
        *,
        flush_seconds: float,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._objects = objects
        self._rows = rows
        self._check = check
        self._part_batcher = PartBatcher(rows)
        self._transcripts = TranscriptWriter(objects, rows, check)
        slots = asyncio.Semaphore(_CONCURRENT_BODIES)
        self._shared = UploadDependencies(objects, rows, self._part_batcher, slots, flush_seconds, check)
        self._uploads: dict[UUID, AudioUpload] = {}
        self._running: dict[UUID, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Records parts in Postgres until cancelled."""
        await self._part_batcher.run()

    def begin(self, spool: SessionSpool, degradations: Degradations) -> AudioUpload:
        """Ships the audio of a session that begins, in a task of its own, until `ship` or `close`."""
        start = spool.manifest.start
        upload = AudioUpload(spool, self._shared, degradations)
        self._uploads[start.id] = upload
        self._running[start.id] = asyncio.create_task(_run(upload, start.session_id), name=f"ship {start.session_id}")
        return upload

    def rewrite_parts(self) -> None:
        """Writes the parts of all running sessions to Postgres again, which may have lost them."""
        for upload in self._uploads.values():
            upload.rewrite_parts()

    async def ship(self, spool: SessionSpool) -> Shipped:
        """Puts the objects of a session whose end is in its row; call `clean` once their URIs are in the row.

        The transcript is written from the rows of the finals, after adding those that only the spool has.

        Raises:
            StorageUnavailable: S3, Postgres or the spool's disk is unavailable; call again.
            NotOwner, LeaseLost: another process owns the session.
        """
        start = spool.manifest.start
        shipped = Shipped()
        if start.store_audio:
            shipped = await self._ship_audio(spool)
        if start.store_transcript:
            shipped = await self._ship_transcript(spool, shipped)
        return shipped

    async def clean(self, spool: SessionSpool) -> None:
        """Deletes what a stored session no longer needs from S3.

        Raises:
            StorageUnavailable: S3 is unavailable; call again.
            LeaseLost: this process may not write.
        """
        if (upload := self._uploads.get(spool.manifest.start.id)) is not None:
            await upload.clean()

    async def delete_objects(self, session_id: UUID) -> None:
        """Deletes the objects of a session, as far as they exist.

        Raises:
            StorageUnavailable: S3 is unavailable; call again.
            LeaseLost: this process may not write.
        """
        self._check()
        await self._stop(session_id)
        await delete_objects(self._objects, session_id)

    def discard_session(self, session_id: UUID) -> None:
        """Discards the upload of a session, which is finished; calling it again does nothing."""
        self._uploads.pop(session_id, None)
        if (running := self._running.pop(session_id, None)) is not None:
            running.cancel()

    async def close(self) -> None:
        """Cancels the uploads in progress; the spool has their audio."""
        running = set(self._running.values())
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    async def _ship_audio(self, spool: SessionSpool) -> Shipped:
        try:
            upload = await self._ended_upload(spool)
            uri, size = await upload.finish()
        except OSError as error:
            raise DiskUnavailable("the spool cannot be read") from error
        return Shipped(StoredObjects(audio_uri=uri), size, spool.wav.seconds(size), upload.has_tails)

    async def _ship_transcript(self, spool: SessionSpool, shipped: Shipped) -> Shipped:
        start, seconds = spool.manifest.start, shipped.audio_seconds
        if seconds is None:
            seconds = await self._rows.audio_seconds(start.id)
        transcript = await self._transcripts.collect(
            start.id, start.language, spooled=await asyncio.to_thread(spool.utterances)
        )
        uri = await self._transcripts.put(start.id, transcript, seconds)
        return replace(
            shipped,
            objects=replace(shipped.objects, transcript_uri=uri),
            utterances=transcript.finals,
            language=transcript.language,
        )

    async def _ended_upload(self, spool: SessionSpool) -> AudioUpload:
        session_id = spool.manifest.start.id
        await self._stop(session_id)
        if session_id not in self._uploads:
            self._uploads[session_id] = AudioUpload(spool, self._shared, Degradations(), is_recovered=True)
        return self._uploads[session_id]

    async def _stop(self, session_id: UUID) -> None:
        if (running := self._running.get(session_id)) is not None:
            self._uploads[session_id].end()
            await asyncio.wait({running})
            self._running.pop(session_id, None)


async def _run(upload: AudioUpload, session_id: str) -> None:
    try:
        await upload.run()
    except Exception:
        # A bug that concerns one session: its audio stays in the spool until its end.
        log.exception("shipping stopped", session_id=session_id)
