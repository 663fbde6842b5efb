"""Ends a session without its spool: its audio from the parts and tails in S3, its transcript from the rows.

Every step may be repeated, by this process or by the next owner of the session. At most the tails are read back: the
audio of part 1 and the audio after the last full part, about 10 MiB.
"""

from uuid import UUID

from prometheus_client import Counter

from persistence.errors import ObjectNotFound, ObjectStoreUnavailable, UploadNotFound
from persistence.postgres.rows import SessionRows
from persistence.s3.assembly import Assembly, assemble
from persistence.s3.keys import audio_key
from persistence.s3.objects import ObjectStore
from persistence.session_values import StoredObjects, StoredPart, StoredSession
from persistence.storing.audio_object import AudioBuilder, StoredAudio, TailAudio, read_tails, read_upload
from persistence.storing.deletion import delete_objects, delete_superfluous
from persistence.storing.transcript_writer import Transcript, TranscriptWriter
from telemetry.logs import get_logger

log = get_logger(__name__)

_recovered = Counter("dalston_sessions_salvaged_total", "Sessions ended from the bucket, without their spool")


class RemoteRecovery:
    """Ends the sessions of dead processes from what the bucket and Postgres have of them."""

    def __init__(self, objects: ObjectStore, rows: SessionRows) -> None:
        self._objects = objects
        self._rows = rows
        self._transcripts = TranscriptWriter(objects, rows)

    async def end(self, session: StoredSession) -> None:
        """Brings a session to its final state; repeated, it continues where it was interrupted.

        Raises:
            StorageUnavailable: Postgres or S3 is unavailable; call again.
            NotOwner, LeaseLost: another process owns the session.
        """
        if session.source == "upload":
            # Its server has stopped before the file was complete, and has acknowledged nothing: its client sends the
            # file again.
            await self._rows.soft_delete(session.id)
        if session.is_deleted or session.source == "upload":
            await self.delete(session.id)
            return
        audio_uri, seconds, stored = session.audio_uri, session.audio_duration_seconds, session.stored_bytes
        # What the recording is built from is deleted once the object exists, whatever its row states.
        if session.store_audio and (audio_uri is None or await self._stored_bytes(session) is None):
            stored = await self.build_audio(session)
            audio_uri, seconds = self._objects.uri(audio_key(session.id)), session.wav.seconds(stored)
        transcript_uri, transcript = session.transcript_uri, None
        if session.store_transcript:
            transcript = await self._transcripts.collect(session.id, session.language, from_document=True)
            if transcript_uri is None:
                transcript_uri = await self._transcripts.put(session.id, transcript, seconds)
        uris = StoredObjects(audio_uri, transcript_uri)
        if await self._set_stored(session, uris, seconds, stored, transcript):
            await delete_superfluous(self._objects, self._rows, session.id)
            _recovered.inc()
        else:
            await self.delete(session.id)

    async def delete(self, session_id: UUID) -> None:
        """Deletes everything of a deleted session, its row last; does nothing for what is gone already.

        Raises:
            StorageUnavailable: Postgres or S3 is unavailable; call again.
        """
        await delete_objects(self._objects, session_id)
        await self._rows.delete_row(session_id)

    async def build_audio(self, session: StoredSession) -> int:
        """Builds the audio object from parts and tails; returns the bytes of audio in it.

        Raises:
            StorageUnavailable: Postgres or S3 is unavailable, or S3 has less of the recording than its row states.
        """
        upload = await read_upload(self._objects, self._rows, session.id)
        tails = await read_tails(self._objects, session.id)
        row_bytes = session.wav.bytes_of(session.audio_duration_seconds)
        assembly = assemble(session.wav, upload.parts, tails, row_bytes)
        if session.audio_uri is not None and assembly.audio_bytes < session.stored_bytes:
            raise ObjectStoreUnavailable("a recording is not in the store, and what is left of it is shorter")
        if (stored := await self._stored_bytes(session)) is not None and stored >= assembly.audio_bytes:
            # The session's process had put the object and not recorded it.
            return stored
        try:
            await self._builder(session, assembly, upload.upload_id).build(
                assembly.audio_bytes, TailAudio(self._objects, session.id, tails)
            )
        except UploadNotFound:
            if (stored := await self._stored_bytes(session)) is not None and stored >= assembly.audio_bytes:
                return stored
            if upload.upload_id in await self._objects.uploads(audio_key(session.id)):
                raise ObjectStoreUnavailable("the store does not find an upload that it lists") from None
            log.exception("parts of a session are gone from the bucket", session_id=session.session_id)
            await self._rows.delete_upload(session.id)
            raise
        return assembly.audio_bytes

    def _builder(self, session: StoredSession, assembly: Assembly, upload_id: str | None) -> AudioBuilder:
        async def record(part: StoredPart) -> None:
            await self._rows.add_parts([(session.id, part)])

        builder = AudioBuilder(self._objects, session.id, session.wav, record)
        builder.reset(upload_id, assembly.ready)
        return builder

    async def _set_stored(
        self,
        session: StoredSession,
        uris: StoredObjects,
        seconds: float,
        stored_bytes: int,
        transcript: Transcript | None,
    ) -> bool:
        return await self._rows.set_stored(
            session.id,
            uris,
            has_tails=session.has_tails or session.store_audio,
            audio_seconds=seconds,
            stored_bytes=stored_bytes,
            utterances=None if transcript is None else transcript.finals,
            language=None if transcript is None else transcript.language,
        )

    async def _stored_bytes(self, session: StoredSession) -> int | None:
        """How much audio the object holds; None if there is no object."""
        try:
            return await StoredAudio(self._objects, session.id, session.wav).audio_bytes()
        except ObjectNotFound:
            return None
