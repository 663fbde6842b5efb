"""Adds what only a spool has to a session that another process has ended without it.

Objects that came to S3 after the session was stored are deleted with it: a process that was paused had a tail in
transfer, which arrived when it continued; the answer to the creation of an upload was lost, and the id with it.

The audio is that of the object, followed by that of the spool: a segment whose part S3 had is gone from the spool, and
its bytes are in the object. The shorter object stays readable until the longer one replaces it in one step. Every step
may be repeated: a final is written once, and the row states the new length last.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from prometheus_client import Counter

from domain.transcript import Utterance
from persistence.errors import DiskUnavailable, NotOwner, ObjectNotFound
from persistence.postgres.lost_rows import Fate
from persistence.postgres.ownership import Ownership
from persistence.postgres.rows import SessionRows
from persistence.s3.keys import audio_key
from persistence.s3.objects import ObjectStore
from persistence.session_values import INTERRUPTED, Progress, StoredObjects, StoredSession
from persistence.spool.session_spool import SessionSpool
from persistence.storing.audio_object import ExtendedAudio, StoredAudio, replace_audio
from persistence.storing.deletion import delete_superfluous, delete_uploads_and_tails
from persistence.storing.transcript_writer import Transcript, TranscriptWriter
from persistence.wav import WavFormat, data_bytes
from telemetry.logs import get_logger

log = get_logger(__name__)

# Each holds one or two parts in memory.
_CONCURRENT_BODIES: Final = 4

_extended = Counter("dalston_sessions_extended_total", "Stored sessions that were given what only a spool had of them")
_extended_bytes = Counter("dalston_extended_audio_bytes_total", "Audio that was added to recordings stored without it")
_apart = Counter("dalston_spools_apart_total", "Spools whose audio does not join what is stored, and that stay")


class SpoolStatus(Enum):
    """The relation of a session to the spool that an earlier process left of it."""

    OURS = "not stored yet, and owned by this process"
    WAITS = "being ended by another process: ask again"
    GONE = "deleted"
    STORED = "stored with all that the spool has"
    APART = "stored, and the spool has more that cannot be joined to it"
    UNKNOWN = "without a row, and older than the record of deletions"


@dataclass(frozen=True, slots=True)
class _Contents:
    """What a spool has."""

    audio_bytes: int
    utterances: list[Utterance]
    progress: Progress


class SpoolReconciliation:
    """Reclaims stored sessions to add what their spools have beyond what is stored."""

    def __init__(self, objects: ObjectStore, rows: SessionRows, ownership: Ownership) -> None:
        self._objects = objects
        self._rows = rows
        self._ownership = ownership
        self._transcripts = TranscriptWriter(objects, rows)
        self._slots = asyncio.Semaphore(_CONCURRENT_BODIES)

    async def settle(self, spool: SessionSpool, progress: Progress) -> SpoolStatus:
        """Adds what the spool has if the session is stored, and returns the status of the spool. May be repeated.

        Args:
            spool: left by an earlier process, and owned by this one.
            progress: the session's figures as the spool has them.

        Raises:
            StorageUnavailable: Postgres, S3 or the spool's disk is unavailable; call again.
            NotOwner: another process took the session over meanwhile; call again.
            LeaseLost: this process may not write.
        """
        session_id = spool.manifest.start.id
        session = await self._ownership.read(session_id)
        if session is None:
            return await self._settle_without_row(spool, progress)
        if session.is_deleted:
            return SpoolStatus.GONE
        if session.is_unfinished:
            if session.worker_id != self._rows.worker_id:
                # Read again after the adoption: until then its other owner may have written more.
                return await self.settle(spool, progress) if await self._adopt(session) else SpoolStatus.WAITS
            if self._ownership.is_recovering(session_id):
                return SpoolStatus.WAITS
            if not session.is_stored:
                return SpoolStatus.OURS
        try:
            contents = await _contents_of(spool, progress)
        except OSError as error:
            raise DiskUnavailable("the spool cannot be read") from error
        if session.is_unfinished:
            if session.store_audio and not await self._has_object(session):
                # The tails may be all that S3 has: they are deleted once the object exists, whatever its row states.
                return _leave(spool, None, contents)
            await delete_superfluous(self._objects, self._rows, session_id)
        try:
            return await self._extend(spool, session, contents)
        except OSError as error:
            raise DiskUnavailable("the spool cannot be read") from error

    async def _settle_without_row(self, spool: SessionSpool, progress: Progress) -> SpoolStatus:
        """Restores a row that Postgres has lost. A deleted session stays deleted; a doubtful one stays in the spool."""
        start = spool.manifest.start
        match await self._rows.fate(start.id):
            case Fate.DELETED:
                return SpoolStatus.GONE
            case Fate.UNKNOWN:
                _apart.inc()
                log.error(
                    "a session stays in the spool: it has no row, and there is no record of its deletion any more",
                    session_id=start.session_id,
                )
                return SpoolStatus.UNKNOWN
            case _:
                await self._rows.restore([start])
                return await self.settle(spool, progress)

    async def _has_object(self, session: StoredSession) -> bool:
        try:
            return bool(await StoredAudio(self._objects, session.id, session.wav).header())
        except ObjectNotFound:
            return False

    async def _adopt(self, session: StoredSession) -> bool:
        return bool(await self._ownership.adopt([], [session.id], INTERRUPTED, datetime.now(UTC)))

    async def _extend(self, spool: SessionSpool, session: StoredSession, contents: _Contents) -> SpoolStatus:
        stored = await self._stored_bytes(session, spool.wav) if session.store_audio else 0
        if stored is None or not await asyncio.to_thread(spool.has_audio, stored, contents.audio_bytes):
            return _leave(spool, stored, contents)
        if not await self._is_short(session, stored, contents):
            await delete_uploads_and_tails(self._objects, session.id)
            return SpoolStatus.STORED
        if not await self._ownership.reclaim(session.id, session.worker_id):
            raise NotOwner
        if session.store_audio and contents.audio_bytes > stored:
            await self._extend_audio(spool, stored, contents.audio_bytes)
            _extended_bytes.inc(contents.audio_bytes - stored)
        is_there = await self._write(session, max(stored, contents.audio_bytes), contents)
        if is_there:
            _extended.inc()
            log.info("a stored session was extended from its spool", session_id=spool.manifest.start.session_id)
        return SpoolStatus.STORED if is_there else SpoolStatus.GONE

    async def _is_short(self, session: StoredSession, stored: int, contents: _Contents) -> bool:
        """Whether the spool has more than is stored."""
        if session.is_reclaimed or contents.audio_bytes > min(stored, session.stored_bytes):
            return True
        if contents.progress.utterances > session.utterance_count:
            return True
        return not await self._rows.has_utterances(session.id, len(contents.utterances))

    async def _stored_bytes(self, session: StoredSession, wav: WavFormat) -> int | None:
        """How much audio the object holds, 0 without one; None if it is not a recording of the spool's format."""
        if wav != session.wav:
            return None
        try:
            header = await StoredAudio(self._objects, session.id, wav).header()
            stored = data_bytes(header)
        except ObjectNotFound:
            return 0
        except ValueError:
            return None
        whole = header == wav.header(stored) and await self._objects.has(audio_key(session.id), wav.file_bytes(stored))
        return stored if whole else None

    async def _extend_audio(self, spool: SessionSpool, stored: int, total: int) -> None:
        session_id = spool.manifest.start.id
        source = ExtendedAudio(spool, StoredAudio(self._objects, session_id, spool.wav), stored)
        async with self._slots:
            await replace_audio(self._objects, session_id, spool.wav, total, source)

    async def _write(self, session: StoredSession, audio_bytes: int, contents: _Contents) -> bool:
        """Writes the finals, the transcript and last the row; returns whether the session still exists.

        Status, error and `ended_at` stay: the tenant may have read them, and a session ends once.
        """
        seconds, progress = max(session.audio_duration_seconds, contents.progress.audio_seconds), contents.progress
        if session.store_audio:
            seconds = session.wav.seconds(audio_bytes)
        transcript: Transcript | None = None
        language = progress.language if session.language == "auto" else session.language
        if session.store_transcript:
            transcript = await self._transcripts.collect(
                session.id, session.language, spooled=contents.utterances, from_document=True
            )
            language = transcript.language
            await self._transcripts.put(session.id, transcript, seconds)
        await delete_uploads_and_tails(self._objects, session.id)
        return await self._rows.set_stored(
            session.id,
            StoredObjects(session.audio_uri, session.transcript_uri),
            audio_seconds=seconds,
            stored_bytes=audio_bytes,
            utterances=None if transcript is None else transcript.finals,
            language=language,
            progress=progress,
        )


async def _contents_of(spool: SessionSpool, progress: Progress) -> _Contents:
    utterances = await asyncio.to_thread(spool.utterances)
    return _Contents(await asyncio.to_thread(spool.audio_bytes), utterances, progress)


def _leave(spool: SessionSpool, stored: int | None, contents: _Contents) -> SpoolStatus:
    """Leaves the spool where it is: audio to fill the gap would be invented."""
    _apart.inc()
    log.error(
        "a session stays in the spool: its audio does not join what is stored",
        session_id=spool.manifest.start.session_id,
        stored_bytes=stored,
        spool_bytes=contents.audio_bytes,
    )
    return SpoolStatus.APART
