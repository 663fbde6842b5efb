"""The stored audio and transcript of a session, and the deletion of a session."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final
from uuid import UUID

from domain.errors import StorageUnavailable
from domain.session_id import format_session_id
from persistence.errors import LeaseLost
from persistence.postgres.sessions import SessionStore
from persistence.postgres.transcript_versions import TranscriptVersions
from persistence.s3.byte_map import ByteMap, ObjectRange
from persistence.s3.keys import audio_key, source_key
from persistence.s3.linked import joined_audio
from persistence.s3.objects import ObjectStore
from persistence.session_values import StoredSession
from persistence.storing.deletion import delete_objects, delete_version_objects
from telemetry.logs import get_logger

log = get_logger(__name__)

# The longest that a tenant waits for S3; the rest of the deletion is done in the background.
_OBJECTS_SECONDS: Final = 5.0


class Archive:
    """Reads the objects of sessions. All methods raise StorageUnavailable while S3 is unavailable."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def audio_file(self, chain: Sequence[StoredSession]) -> ByteMap:
        """The WAV file of a session, or of linked sessions, oldest first; the file of an upload. `read` reads it.

        Raises:
            AudioNotStored, SessionActive: the audio of a session, which the message names, cannot be read.
        """
        if len(chain) > 1:
            return joined_audio(chain)
        chain[0].require_audio()
        is_file = chain[0].source == "upload"
        return await self._whole(source_key(chain[0].id) if is_file else audio_key(chain[0].id))

    async def document_file(self, key: str) -> ByteMap:
        """A stored transcript by its key. `read` reads it."""
        return await self._whole(key)

    async def _whole(self, key: str) -> ByteMap:
        size, version = await self._objects.size_and_version(key)
        return ByteMap((ObjectRange(key, 0, size, version),))

    async def read(self, file: ByteMap) -> AsyncGenerator[bytes, None]:
        """The bytes of a file in chunks of at most 64 KiB; close it with `aclose`."""
        for piece in file.pieces:
            if isinstance(piece, ObjectRange):
                async with aclosing(self._objects.get_range(piece.key, piece.first, piece.size)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            else:
                for chunk in piece.chunks():
                    yield chunk


async def delete_session(sessions: SessionStore, objects: ObjectStore, tenant_id: UUID, session_id: UUID) -> None:
    """Deletes a session: it is soft-deleted first, then its objects are deleted, the row last.

    The soft delete hides it from its tenant; the reaper completes the deletion if it is interrupted afterwards.

    Versions of the transcripts of joined recordings that contain it are deleted with it.

    Raises:
        SessionNotFound: the tenant has no session of this id.
        SessionActive: the session is running.
        StorageUnavailable: Postgres is unavailable; the session may or may not be deleted. Call again.
    """
    containing = await sessions.soft_delete(tenant_id, session_id)
    try:
        async with asyncio.timeout(_OBJECTS_SECONDS):
            await delete_objects(objects, session_id)
            await delete_version_objects(objects, containing)
            await sessions.delete_row(tenant_id, session_id)
    except (StorageUnavailable, LeaseLost, TimeoutError):
        log.warning("a deletion is completed in the background", session_id=format_session_id(session_id))


async def delete_transcript(
    versions: TranscriptVersions, objects: ObjectStore, tenant_id: UUID, session_id: UUID, version: int
) -> None:
    """Deletes a version of a transcript: its rows first, then its object.

    The reaper deletes the object if this is interrupted in between.

    Raises:
        SessionNotFound, TranscriptNotFound: as their names say.
        InvalidFilter: it is version 1.
        StorageUnavailable: Postgres is unavailable; the version may or may not be deleted. Call again.
    """
    await versions.delete(tenant_id, session_id, version)
    try:
        async with asyncio.timeout(_OBJECTS_SECONDS):
            await delete_version_objects(objects, [(session_id, version)])
    except (StorageUnavailable, LeaseLost, TimeoutError):
        log.warning("a deletion is completed in the background", session_id=format_session_id(session_id))
