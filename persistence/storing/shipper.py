"""From the spool to S3."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

from domain.transcript import Utterance
from persistence.errors import DiskUnavailable
from persistence.postgres.rows import SessionRows
from persistence.records import StoredObjects
from persistence.s3.objects import ObjectStore
from persistence.spool.session_spool import SessionSpool
from persistence.storing.audio_upload import AudioUpload, UploadDependencies
from persistence.storing.degradations import Degradations
from persistence.storing.deletion import delete_objects
from persistence.storing.part_batcher import PartBatcher
from persistence.storing.transcript_writer import TranscriptWriter
from telemetry.logs import get_logger

log = get_logger(__name__)

# A tail is in memory while it is sent, a part is not: it is read from the spool bit by bit, unless something of it is
# gone and it is made of what is left.
_CONCURRENT_BODIES: Final = 8


@dataclass(frozen=True, slots=True)
class Shipped:
    """An ended session's objects."""

    objects: StoredObjects = field(default_factory=StoredObjects)
    audio_bytes: int | None = None
    """Audio in the object; None when no audio was asked for."""
    audio_seconds: float | None = None
    has_tails: bool = False
    """Whether `clean` has something to remove."""
    utterances: list[Utterance] | None = None
    """The finals in the transcript; None when no transcript was asked for."""
    language: str | None = None
    """What the transcript is in."""


class Shipper:
    """Puts sessions' audio and transcripts to S3. Shipping a session again replaces what is there by the same."""

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
        """Notes parts in Postgres until cancelled."""
        await self._part_batcher.run()

    def begin(self, spool: SessionSpool, degradations: Degradations) -> AudioUpload:
        """Ships the audio of a session that begins, in a task of its own, until `ship` or `close`."""
        start = spool.manifest.start
        upload = AudioUpload(spool, self._shared, degradations)
        self._uploads[start.id] = upload
        self._running[start.id] = asyncio.create_task(_run(upload, start.session_id), name=f"ship {start.session_id}")
        return upload

    def rewrite_parts(self) -> None:
        """Has the parts of all running sessions written to Postgres again, which may have lost them."""
        for upload in self._uploads.values():
            upload.rewrite_parts()

    async def ship(self, spool: SessionSpool) -> Shipped:
        """Puts what a session asked to be stored whose end is in its row; call `clean` when its row says what is there.

        The transcript is made of the rows of utterances, to which those of the spool are added that are not there:
        after a power cut or a failover of Postgres either may have finals that the other has not. Of an index that both
        have, the row's has been shown.

        Raises:
            StorageUnavailable: S3, Postgres or the spool's disk does not do its part; call again.
            NotOwner, LeaseLost: the session is not this process's any more.
        """
        start = spool.manifest.start
        shipped = Shipped()
        if start.store_audio:
            shipped = await self._ship_audio(spool)
        if start.store_transcript:
            shipped = await self._ship_transcript(spool, shipped)
        return shipped

    async def clean(self, spool: SessionSpool) -> None:
        """Removes from S3 what a stored session needs no longer.

        Raises:
            StorageUnavailable: S3 does not do its part; call again.
            LeaseLost: this process may not write.
        """
        if (upload := self._uploads.get(spool.manifest.start.id)) is not None:
            await upload.clean()

    async def delete_objects(self, session_id: UUID) -> None:
        """Removes a session's objects, whichever there are.

        Raises:
            StorageUnavailable: S3 does not do its part; call again.
            LeaseLost: this process may not write.
        """
        self._check()
        await self._stop(session_id)
        await delete_objects(self._objects, session_id)

    def discard_session(self, session_id: UUID) -> None:
        """Nothing more is to be done for a session; calling it again does nothing."""
        self._uploads.pop(session_id, None)
        if (running := self._running.pop(session_id, None)) is not None:
            running.cancel()

    async def close(self) -> None:
        """Ends what still ships; the spool has it."""
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
        # A mistake of ours with one session: its audio stays in the spool until its end.
        log.exception("shipping stopped", session_id=session_id)
