"""Deletes what S3 has of a session."""

from collections.abc import Iterable
from uuid import UUID

from persistence.postgres.rows import SessionRows
from persistence.s3.keys import audio_key, session_prefix, tail_prefix, version_key
from persistence.s3.objects import ObjectStore


async def delete_objects(objects: ObjectStore, session_id: UUID) -> None:
    """Deletes all objects and unfinished uploads of a session.

    Raises:
        StorageUnavailable: S3 is unavailable.
    """
    prefix = session_prefix(session_id)
    for key in await objects.uploads_below(prefix):
        await objects.abort_uploads(key)
    await objects.delete_all(await objects.list(prefix))


async def delete_version_objects(objects: ObjectStore, versions: Iterable[tuple[UUID, int]]) -> None:
    """Deletes the documents of versions, as far as they exist.

    Raises:
        StorageUnavailable: S3 is unavailable.
    """
    await objects.delete_all([version_key(session_id, version) for session_id, version in versions])


async def delete_uploads_and_tails(objects: ObjectStore, session_id: UUID) -> None:
    """Deletes what an audio object was built from: unfinished uploads and tails.

    Raises:
        StorageUnavailable: S3 is unavailable.
    """
    await objects.abort_uploads(audio_key(session_id))
    await objects.delete_all(await objects.list(tail_prefix(session_id)))


async def delete_superfluous(objects: ObjectStore, rows: SessionRows, session_id: UUID) -> None:
    """Deletes what the object of a stored session was built from, and records in the row that no tails are left.

    Raises:
        StorageUnavailable: Postgres or S3 is unavailable.
        NotOwner, LeaseLost: the session belongs to another process.
    """
    await delete_uploads_and_tails(objects, session_id)
    await rows.mark_tails_deleted(session_id)
