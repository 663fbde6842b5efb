"""The stored audio and transcript of a session, and their removal."""

from collections.abc import AsyncGenerator
from typing import NamedTuple
from uuid import UUID

from persistence.errors import AudioNotStored, SessionActive, TranscriptNotStored
from persistence.keys import audio_key, transcript_key
from persistence.objects import ObjectStore
from persistence.records import SessionRecord
from persistence.session_id import parse_session_id
from persistence.sessions import SessionStore


class StoredObject(NamedTuple):
    """An object on its way to a reader."""

    size: int
    """In bytes, of all chunks together."""
    chunks: AsyncGenerator[bytes, None]


class Archive:
    """Reads sessions' objects. All methods raise StorageUnavailable when S3 does not do its part."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def audio(self, record: SessionRecord) -> StoredObject:
        """The WAV file.

        Raises:
            AudioNotStored: the session did not store it.
            SessionActive: it is not stored to its end yet.
        """
        if not record.store_audio:
            raise AudioNotStored(record.id)
        _refuse_unfinished(record, record.audio_uri)
        return StoredObject(*await self._objects.get(audio_key(parse_session_id(record.id))))

    async def transcript(self, record: SessionRecord) -> StoredObject:
        """The JSON document.

        Raises:
            TranscriptNotStored: the session did not store it.
            SessionActive: it is not stored to its end yet.
        """
        if not record.store_transcript:
            raise TranscriptNotStored(record.id)
        _refuse_unfinished(record, record.transcript_uri)
        return StoredObject(*await self._objects.get(transcript_key(parse_session_id(record.id))))


def _refuse_unfinished(record: SessionRecord, uri: str | None) -> None:
    if record.status == "active":
        raise SessionActive(record.id)
    if uri is None:
        raise SessionActive(record.id, "is not stored to its end yet: try again in a while")


async def delete_session(sessions: SessionStore, objects: ObjectStore, tenant_id: UUID, session_id: str) -> None:
    """Removes a session: hidden first, then its objects, the row last.

    Cut short at any point, the session is gone to its tenant, and deleting it again goes on from there.

    Raises:
        InvalidSessionId, SessionNotFound, SessionActive: as their names say.
        StorageUnavailable: Postgres or S3 does not do its part; try again.
    """
    identifier = parse_session_id(session_id)
    await sessions.bury(tenant_id, session_id)
    await objects.delete(audio_key(identifier))
    await objects.delete(transcript_key(identifier))
    await sessions.remove(tenant_id, session_id)
