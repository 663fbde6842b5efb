"""Ends a session without its spool: audio from the parts and tail objects in S3, the transcript from the rows.

Every step may be repeated, by this process or by the next that takes the session over. At most the tails are read back:
the audio of part 1 and of what came after the last whole part, about 10 MiB.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from uuid import UUID

from prometheus_client import Counter, Histogram

from domain.session_id import format_session_id
from domain.transcript import Utterance, document, majority_language, utterances_of
from persistence.errors import ObjectNotFound, ObjectStoreUnavailable, UploadNotFound
from persistence.postgres.finals import batches, uncovered
from persistence.postgres.lost_rows import note_restored
from persistence.postgres.rows import SessionRows, Upload
from persistence.s3 import layout
from persistence.s3.assembly import Assembly, assemble, tail_slices
from persistence.s3.keys import Tail, audio_key, parse_tail_key, tail_key, tail_prefix, transcript_key
from persistence.s3.layout import audio_range, part, part_count
from persistence.s3.objects import ObjectStore
from persistence.session_values import StoredObjects, StoredPart, StoredSession
from persistence.wav import WavFormat, data_bytes
from telemetry.logs import get_logger

log = get_logger(__name__)

_HEADER_READ_BYTES: Final = 256

_recovered = Counter("dalston_sessions_salvaged_total", "Sessions ended from the bucket, without their spool")
_read_bytes = Histogram(
    "dalston_salvage_read_bytes", "Audio read back to end one session", buckets=(0, 1e5, 1e6, 5e6, 1e7, 2e7)
)


class RemoteRecovery:
    """Ends the sessions of dead processes from what the bucket and Postgres have of them."""

    def __init__(self, objects: ObjectStore, rows: SessionRows) -> None:
        self._objects = objects
        self._rows = rows

    async def end(self, session: StoredSession) -> None:
        """Brings a session to its final state; repeated, it goes on where it was cut short.

        Raises:
            StorageUnavailable: Postgres or S3 does not do its part; call again.
            NotOwner, LeaseLost: it is not this process's to end any more.
        """
        if session.is_deleted:
            await self.delete(session.id)
            return
        wav = session.wav
        audio_uri, seconds, stored = session.audio_uri, session.audio_duration_seconds, session.stored_bytes
        if session.store_audio and (audio_uri is None or await self._stored_audio(session.id, wav) is None):
            # What it was made of goes when the recording is there, whatever the row says of it.
            told = session.stored_bytes if audio_uri is not None else 0
            stored = await self._audio(session.id, wav, session.audio_duration_seconds, at_least=told)
            audio_uri, seconds = self._objects.uri(audio_key(session.id)), wav.seconds(stored)
        transcript_uri, said, language = session.transcript_uri, None, None
        if session.store_transcript:
            await take_back_finals(self._objects, self._rows, session.id)
            said = await self._rows.utterances(session.id)
            language = majority_language(session.language, said)
            if transcript_uri is None:
                transcript_uri = await put_transcript(self._objects, session.id, language, seconds, said)
        uris = StoredObjects(audio_uri, transcript_uri)
        tails = session.has_tails or session.store_audio
        if await self._rows.set_stored(
            session.id,
            uris,
            has_tails=tails,
            audio_seconds=seconds,
            stored_bytes=stored,
            utterances=said,
            language=language,
        ):
            await delete_leftovers(self._objects, self._rows, session.id)
            _recovered.inc()
        else:
            await self.delete(session.id)

    async def delete(self, session_id: UUID) -> None:
        """Removes everything of a deleted session, its row last; nothing happens for what is gone already.

        Raises:
            StorageUnavailable: Postgres or S3 does not do its part; call again.
        """
        await delete_objects(self._objects, session_id)
        await self._rows.delete_row(session_id)

    async def _audio(self, session_id: UUID, wav: WavFormat, told_seconds: float, at_least: int = 0) -> int:
        """Makes the WAV file; gives how much audio is in it, in bytes."""
        upload = await upload_of(self._objects, self._rows, session_id)
        tails = await self._tails(session_id)
        assembly = assemble(wav, upload.parts, tails, wav.bytes_of(told_seconds))
        if assembly.audio_bytes < at_least:
            raise ObjectStoreUnavailable("a recording is not in the store, and what is left of it is shorter")
        there = await self._stored_audio(session_id, wav)
        if there is not None and there >= assembly.audio_bytes:
            # Its process had put it and not said so.
            return there
        try:
            if part_count(wav, assembly.audio_bytes) == 1:
                await self._put_whole(session_id, wav, tails, assembly)
            else:
                await self._complete(session_id, wav, tails, assembly, upload.upload_id)
        except UploadNotFound:
            if (there := await self._stored_audio(session_id, wav)) is not None and there >= assembly.audio_bytes:
                return there
            if upload.upload_id in await self._objects.uploads(audio_key(session_id)):
                raise ObjectStoreUnavailable("the store does not find an upload that it lists") from None
            log.exception("parts of a session are gone from the bucket", session_id=format_session_id(session_id))
            await self._rows.delete_upload(session_id)
            raise
        return assembly.audio_bytes

    async def _put_whole(self, session_id: UUID, wav: WavFormat, tails: Sequence[Tail], assembly: Assembly) -> None:
        audio = await self._read(session_id, tails, 0, assembly.audio_bytes)
        body = part(wav, 1, assembly.audio_bytes, audio)
        await self._objects.put(audio_key(session_id), body, "audio/wav")

    async def _complete(
        self, session_id: UUID, wav: WavFormat, tails: Sequence[Tail], assembly: Assembly, upload_id: str | None
    ) -> None:
        key = audio_key(session_id)
        if upload_id is None:
            upload_id = await self._objects.create_upload(key, "audio/wav")
        done = {each.number: each for each in assembly.ready}
        for number in assembly.missing:
            begin, end = audio_range(wav, number, assembly.audio_bytes)
            body = part(wav, number, assembly.audio_bytes, await self._read(session_id, tails, begin, end))
            etag = await self._objects.upload_part(key, upload_id, number, body)
            done[number] = StoredPart(upload_id, number, etag, len(body))
            await self._rows.add_parts([(session_id, done[number])])
        await self._objects.complete_upload(key, upload_id, [done[number] for number in sorted(done)])

    async def _read(self, session_id: UUID, tails: Sequence[Tail], begin: int, end: int) -> bytes:
        pieces = []
        for tail, first, stop in tail_slices(tails, begin, end):
            pieces.append((await self._objects.read(tail_key(session_id, tail)))[first:stop])
        audio = b"".join(pieces)
        _read_bytes.observe(len(audio))
        return audio

    async def _tails(self, session_id: UUID) -> list[Tail]:
        keys = await self._objects.list(tail_prefix(session_id))
        return [tail for key in keys if (tail := parse_tail_key(key)) is not None]

    async def _stored_audio(self, session_id: UUID, wav: WavFormat) -> int | None:
        """How much audio the object has, None where there is none."""
        try:
            return data_bytes(await stored_header(self._objects, session_id, wav))
        except ObjectNotFound:
            return None


async def stored_header(objects: ObjectStore, session_id: UUID, wav: WavFormat) -> bytes:
    """The beginning of a stored recording, as long as the header of its format.

    Raises:
        ObjectNotFound: there is none.
        StorageUnavailable: S3 does not do its part.
    """
    return (await objects.read_start(audio_key(session_id), _HEADER_READ_BYTES))[: wav.header_bytes]


async def upload_of(objects: ObjectStore, rows: SessionRows, session_id: UUID) -> Upload:
    """What there is of the multipart upload of a session that is not stored yet.

    Postgres may have lost parts, or the upload itself: what S3 has of it is taken, too. Of parts that are made again
    for the length of the recording, the first and the last, only those that Postgres has are.

    Raises:
        StorageUnavailable: Postgres or S3 does not do its part.
    """
    told = await rows.upload(session_id)
    if told.is_stored:
        return told
    best, key = told, audio_key(session_id)
    for upload_id in await objects.uploads(key):
        if told.upload_id in (None, upload_id):
            with suppress(UploadNotFound):
                found = _with_parts(told, upload_id, await objects.parts(key, upload_id))
                best = max(best, found, key=lambda upload: len(upload.parts))
    if (more := len(best.parts) - len(told.parts)) > 0:
        note_restored("session_parts", session_id, more)
    return best


def _with_parts(told: Upload, upload_id: str, listed: Sequence[StoredPart]) -> Upload:
    parts = {each.number: each for each in listed if each.number > 1 and each.size == layout.PART_BYTES}
    parts |= {each.number: each for each in told.parts}
    return Upload(upload_id, tuple(parts[number] for number in sorted(parts)))


async def take_back_finals(objects: ObjectStore, rows: SessionRows, session_id: UUID) -> int:
    """Writes finals to the rows that only the stored transcript has, for Postgres has lost them; says how many.

    Of speech that both have, the row stays as it is, whatever its text: it has been shown. What else the transcript has
    is taken all the same, for whoever writes the transcript next writes what the rows have.

    Raises:
        StorageUnavailable: Postgres or S3 does not do its part.
    """
    stored = await stored_finals(objects, session_id)
    lost = uncovered(session_id, stored, await rows.indexed_utterances(session_id))
    for batch in batches(lost):
        await rows.write({}, batch)
    if lost:
        note_restored("session_utterances", session_id, len(lost))
    return len(lost)


async def stored_finals(objects: ObjectStore, session_id: UUID) -> list[Utterance]:
    """Those in the stored transcript; none where there is no such object or it is no transcript.

    Raises:
        StorageUnavailable: S3 does not do its part.
    """
    try:
        return utterances_of(await objects.read(transcript_key(session_id)))
    except (ObjectNotFound, ValueError):
        return []


async def put_transcript(
    objects: ObjectStore, session_id: UUID, language: str, seconds: float, said: Sequence[Utterance]
) -> str:
    """Writes a session's transcript, replacing what was there; gives its URI.

    Raises:
        StorageUnavailable: S3 does not do its part.
    """
    body = document(format_session_id(session_id), language, seconds, said)
    await objects.put(transcript_key(session_id), body, "application/json")
    return objects.uri(transcript_key(session_id))


async def delete_leftovers(objects: ObjectStore, rows: SessionRows, session_id: UUID) -> None:
    """Removes what the object of a stored session has made superfluous: unfinished uploads and tails.

    Raises:
        StorageUnavailable: Postgres or S3 does not do its part.
        NotOwner, LeaseLost: the session is not this process's any more.
    """
    await delete_pieces(objects, session_id)
    await rows.mark_tails_deleted(session_id)


async def delete_pieces(objects: ObjectStore, session_id: UUID) -> None:
    """Removes what a recording was made of: unfinished uploads and tails.

    Raises:
        StorageUnavailable: S3 does not do its part.
    """
    await objects.abort_uploads(audio_key(session_id))
    await objects.delete_all(await objects.list(tail_prefix(session_id)))


async def delete_objects(objects: ObjectStore, session_id: UUID) -> None:
    """Removes a session's audio, transcript, tails and unfinished uploads, whichever there are.

    Raises:
        StorageUnavailable: S3 does not do its part.
    """
    await objects.delete(audio_key(session_id))
    await objects.delete(transcript_key(session_id))
    await objects.delete_all(await objects.list(tail_prefix(session_id)))
