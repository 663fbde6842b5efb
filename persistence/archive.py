"""The stored audio and transcript of a session, and their removal."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final, NamedTuple
from uuid import UUID

from persistence.errors import AudioNotStored, LeaseLost, SessionActive, StorageUnavailable, TranscriptNotStored
from persistence.keys import audio_key, transcript_key
from persistence.objects import ObjectStore
from persistence.records import SessionRecord
from persistence.salvage import remove_objects
from persistence.session_id import parse_session_id
from persistence.sessions import SessionStore
from telemetry.logs import get_logger

log = get_logger(__name__)

# A tenant waits no longer than this for a slow store.
_OBJECTS_SECONDS: Final = 5.0


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

    Once it is hidden the delete has happened: it is gone to its tenant, and the reaper does what is left undone here.

    Raises:
        InvalidSessionId, SessionNotFound, SessionActive: as their names say.
        StorageUnavailable: Postgres is away; the session may be deleted or not. Try again.
    """
    await sessions.bury(tenant_id, session_id)
    try:
        async with asyncio.timeout(_OBJECTS_SECONDS):
            await remove_objects(objects, parse_session_id(session_id))
            await sessions.remove(tenant_id, session_id)
    except (StorageUnavailable, LeaseLost, TimeoutError):
        log.warning("a delete is finished in the background", session_id=session_id)
