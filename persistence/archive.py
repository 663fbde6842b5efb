"""The stored audio and transcript of a session, and their removal."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final
from uuid import UUID

from domain.errors import StorageUnavailable
from domain.session_id import parse_session_id
from persistence.errors import LeaseLost
from persistence.postgres.sessions import SessionStore
from persistence.records import StoredSession
from persistence.s3.byte_map import ByteMap, Stored
from persistence.s3.keys import audio_key, transcript_key
from persistence.s3.linked import joined_audio
from persistence.s3.objects import ObjectStore
from persistence.storing.deletion import delete_objects
from telemetry.logs import get_logger

log = get_logger(__name__)

# A tenant waits no longer than this for a slow store.
_OBJECTS_SECONDS: Final = 5.0


class Archive:
    """Reads sessions' objects. All methods raise StorageUnavailable when S3 does not do its part."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def audio(self, chain: Sequence[StoredSession]) -> ByteMap:
        """The WAV file of a session, or of several that continue one another, oldest first.

        Raises:
            AudioNotStored, SessionActive: one of them cannot be read; the message names it.
        """
        if len(chain) > 1:
            return joined_audio(chain)
        chain[0].require_audio()
        return await self._whole(audio_key(chain[0].id))

    async def transcript(self, link: StoredSession) -> ByteMap:
        """The JSON document of a session.

        Raises:
            TranscriptNotStored: the session did not store it.
            SessionActive: it is not stored to its end yet.
        """
        link.require_transcript()
        return await self._whole(transcript_key(link.id))

    async def _whole(self, key: str) -> ByteMap:
        size, version = await self._objects.size_and_version(key)
        return ByteMap((Stored(key, 0, size, version),))

    async def read(self, file: ByteMap) -> AsyncGenerator[bytes, None]:
        """The bytes of a file in chunks of at most 64 KiB; close it with `aclose`."""
        for piece in file.pieces:
            if isinstance(piece, Stored):
                async with aclosing(self._objects.get_range(piece.key, piece.first, piece.size)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            else:
                for chunk in piece.chunks():
                    yield chunk


async def delete_session(sessions: SessionStore, objects: ObjectStore, tenant_id: UUID, session_id: str) -> None:
    """Removes a session: hidden first, then its objects, the row last.

    Once it is hidden the delete has happened: it is gone to its tenant, and the reaper does what is left undone here.

    Raises:
        InvalidSessionId, SessionNotFound, SessionActive: as their names say.
        StorageUnavailable: Postgres is away; the session may be deleted or not. Try again.
    """
    await sessions.soft_delete(tenant_id, session_id)
    try:
        async with asyncio.timeout(_OBJECTS_SECONDS):
            await delete_objects(objects, parse_session_id(session_id))
            await sessions.delete_row(tenant_id, session_id)
    except (StorageUnavailable, LeaseLost, TimeoutError):
        log.warning("a delete is finished in the background", session_id=session_id)
