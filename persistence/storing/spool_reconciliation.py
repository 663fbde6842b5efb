"""What only a spool has, added to a session that another process has ended without it.

Its strays go with it, pieces that came to S3 when the session was stored already: a process that was paused had a tail
on its way, which arrived when it woke; an answer to the beginning of an upload was lost, and with it the upload's id.

The audio is what the object has and then what the spool has: a segment whose part S3 had is gone from the spool, and
its bytes are in the object. The shorter object stays readable until the longer one takes its place in one step. Every
step may be repeated: a final is written once, and the row tells of the longer file last.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Final
from uuid import UUID

from prometheus_client import Counter

from domain.transcript import Utterance, majority_language, with_probabilities
from persistence.errors import DiskUnavailable, NotOwner, ObjectNotFound
from persistence.postgres.finals import numbered
from persistence.postgres.lost_rows import Fate
from persistence.postgres.ownership import Ownership
from persistence.postgres.rows import SessionRows
from persistence.s3 import layout
from persistence.s3.keys import audio_key
from persistence.s3.objects import ObjectStore
from persistence.session_values import INTERRUPTED, Progress, StoredObjects, StoredSession
from persistence.spool.session_spool import SessionSpool
from persistence.storing.remote_recovery import delete_leftovers, delete_pieces, put_transcript, stored_header
from persistence.wav import WavFormat, data_bytes
from telemetry.logs import get_logger

log = get_logger(__name__)

_WAV: Final = "audio/wav"
# Each has a part or two in memory.
_CONCURRENT_BODIES: Final = 4

_extended = Counter("dalston_sessions_extended_total", "Stored sessions that were given what only a spool had of them")
_extended_bytes = Counter("dalston_extended_audio_bytes_total", "Audio that was added to recordings stored without it")
_apart = Counter("dalston_spools_apart_total", "Spools whose audio does not join what is stored, and that stay")


class Standing(Enum):
    """How a session stands to the spool that an earlier process left of it."""

    OURS = "not stored yet, and this process's to store"
    WAITS = "being ended by another: ask again"
    GONE = "deleted"
    STORED = "stored with all that the spool has"
    APART = "stored, and the spool has more that cannot be joined to it"
    UNKNOWN = "without a row, and too old for what is remembered of deletes"


@dataclass(frozen=True, slots=True)
class _Contents:
    """What a spool has."""

    audio_bytes: int
    utterances: list[Utterance]
    progress: Progress


class SpoolReconciliation:
    """Takes stored sessions back to add what their spools have beyond what is stored."""

    def __init__(self, objects: ObjectStore, rows: SessionRows, ownership: Ownership) -> None:
        self._objects = objects
        self._rows = rows
        self._ownership = ownership
        self._slots = asyncio.Semaphore(_CONCURRENT_BODIES)

    async def settle(self, spool: SessionSpool, progress: Progress) -> Standing:
        """Says how a session stands, after adding what the spool has if it is stored. May be repeated.

        Args:
            spool: left by an earlier process, and this one's now.
            progress: the session's figures as the spool knows them.

        Raises:
            StorageUnavailable: Postgres, S3 or the spool's disk does not do its part; call again.
            NotOwner: another process took the session in between; call again.
            LeaseLost: this process may not write.
        """
        session_id = spool.manifest.start.id
        session = await self._ownership.read(session_id)
        if session is None:
            return await self._without_row(spool, progress)
        if session.is_deleted:
            return Standing.GONE
        if session.is_unfinished:
            if session.worker_id != self._rows.worker_id:
                # Read again when it is ours: until then its other owner may have gone on.
                return await self.settle(spool, progress) if await self._adopt(session_id) else Standing.WAITS
            if self._ownership.is_recovering(session_id):
                return Standing.WAITS
            if not session.is_stored:
                return Standing.OURS
        try:
            contents = await _contents_of(spool, progress)
        except OSError as error:
            raise DiskUnavailable("the spool cannot be read") from error
        if session.is_unfinished:
            if session.store_audio and not await self._has_object(session_id, spool.wav):
                # The tails may be all that S3 has: they go when the recording is there, whatever the row says of it.
                return _leave(spool, None, contents)
            await delete_leftovers(self._objects, self._rows, session_id)
        try:
            return await self._extend(spool, session, contents)
        except OSError as error:
            raise DiskUnavailable("the spool cannot be read") from error

    async def _without_row(self, spool: SessionSpool, progress: Progress) -> Standing:
        """A session that was deleted is, one that Postgres has lost is made again, and one in doubt is left alone."""
        session_id = spool.manifest.start.id
        match await self._rows.fate(session_id):
            case Fate.DELETED:
                return Standing.GONE
            case Fate.UNKNOWN:
                _apart.inc()
                log.error(
                    "a session stays in the spool: it has no row, and whether it was deleted is not known any more",
                    session_id=spool.manifest.start.session_id,
                )
                return Standing.UNKNOWN
            case _:
                await self._rows.restore([spool.manifest.start])
                return await self.settle(spool, progress)

    async def _has_object(self, session_id: UUID, wav: WavFormat) -> bool:
        try:
            return bool(await stored_header(self._objects, session_id, wav))
        except ObjectNotFound:
            return False

    async def _adopt(self, session_id: UUID) -> bool:
        return bool(await self._ownership.adopt([], [session_id], INTERRUPTED, datetime.now(UTC)))

    async def _extend(self, spool: SessionSpool, session: StoredSession, contents: _Contents) -> Standing:
        stored = await self._stored_bytes(session, spool.wav) if session.store_audio else 0
        if stored is None or not await asyncio.to_thread(spool.has_audio, stored, contents.audio_bytes):
            return _leave(spool, stored, contents)
        if not await self._is_short(session, stored, contents):
            await delete_pieces(self._objects, session.id)
            return Standing.STORED
        if not await self._ownership.reclaim(session.id, session.worker_id):
            raise NotOwner
        if session.store_audio and contents.audio_bytes > stored:
            await self._put_audio(spool, stored, contents.audio_bytes)
            _extended_bytes.inc(contents.audio_bytes - stored)
        is_there = await self._write(session, max(stored, contents.audio_bytes), contents)
        if is_there:
            _extended.inc()
            log.info("a stored session has what only its spool had", session_id=spool.manifest.start.session_id)
        return Standing.STORED if is_there else Standing.GONE

    async def _is_short(self, session: StoredSession, stored: int, contents: _Contents) -> bool:
        if session.is_reclaimed or contents.audio_bytes > min(stored, session.stored_bytes):
            return True
        if contents.progress.utterances > session.utterance_count:
            return True
        return not await self._rows.has_utterances(session.id, len(contents.utterances))

    async def _stored_bytes(self, session: StoredSession, wav: WavFormat) -> int | None:
        """How much audio the object has, 0 without one; None if it is no recording of this spool's format."""
        if wav != session.wav:
            return None
        try:
            header = await stored_header(self._objects, session.id, wav)
            stored = data_bytes(header)
        except ObjectNotFound:
            return 0
        except ValueError:
            return None
        whole = header == wav.header(stored) and await self._objects.has(audio_key(session.id), wav.file_bytes(stored))
        return stored if whole else None

    async def _put_audio(self, spool: SessionSpool, stored: int, total: int) -> None:
        key = audio_key(spool.manifest.start.id)
        async with self._slots:
            if layout.part_count(spool.wav, total) == 1:
                await self._objects.put(key, await self._part(spool, 1, stored, total), _WAV)
            else:
                await self._objects.put_parts(key, self._parts(spool, stored, total), _WAV)

    async def _parts(self, spool: SessionSpool, stored: int, total: int) -> AsyncIterator[bytes]:
        for number in range(1, layout.part_count(spool.wav, total) + 1):
            yield await self._part(spool, number, stored, total)

    async def _part(self, spool: SessionSpool, number: int, stored: int, total: int) -> bytes:
        begin, end = layout.audio_range(spool.wav, number, total)
        try:
            audio = await asyncio.to_thread(spool.read_audio_or_none, begin, end)
            if audio is None:
                seam = min(max(begin, stored), end)
                audio = await self._from_object(spool, begin, seam) + await asyncio.to_thread(
                    spool.read_audio, seam, end - seam
                )
        except OSError as error:
            raise DiskUnavailable("the spool cannot be read") from error
        return layout.part(spool.wav, number, total, audio)

    async def _from_object(self, spool: SessionSpool, begin: int, end: int) -> bytes:
        header = spool.wav.header_bytes
        return await self._objects.read_range(audio_key(spool.manifest.start.id), header + begin, header + end)

    async def _write(self, session: StoredSession, audio_bytes: int, contents: _Contents) -> bool:
        """Writes the finals, the transcript and last the row; says whether the session is still there.

        Status, error and `ended_at` stay: they have been shown to the tenant, and a session ends once.
        """
        seconds, progress = max(session.audio_duration_seconds, contents.progress.audio_seconds), contents.progress
        if session.store_audio:
            seconds = session.wav.seconds(audio_bytes)
        said: list[Utterance] | None = None
        language = progress.language if session.language == "auto" else session.language
        if session.store_transcript:
            for batch in numbered(session.id, contents.utterances):
                await self._rows.write({}, batch)
            said = with_probabilities(await self._rows.indexed_utterances(session.id), contents.utterances)
            language = majority_language(session.language, said)
            await put_transcript(self._objects, session.id, language, seconds, said)
        await delete_pieces(self._objects, session.id)
        uris = StoredObjects(session.audio_uri, session.transcript_uri)
        return await self._rows.set_stored(
            session.id,
            uris,
            audio_seconds=seconds,
            stored_bytes=audio_bytes,
            utterances=said,
            language=language,
            progress=progress,
        )


async def _contents_of(spool: SessionSpool, progress: Progress) -> _Contents:
    said = await asyncio.to_thread(spool.utterances)
    return _Contents(await asyncio.to_thread(spool.audio_bytes), said, progress)


def _leave(spool: SessionSpool, stored: int | None, contents: _Contents) -> Standing:
    """Whatever was put between the two would be made up."""
    _apart.inc()
    log.error(
        "a session stays in the spool: its audio does not join what is stored",
        session_id=spool.manifest.start.session_id,
        stored_bytes=stored,
        spool_bytes=contents.audio_bytes,
    )
    return Standing.APART
