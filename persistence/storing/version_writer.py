"""Writes the stored document of a version that a batch job made. `transcript_writer` writes that of the live one."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from domain.session_id import format_session_id
from domain.transcript import DocumentVersion, Utterance, document
from persistence.errors import ObjectNotFound, ObjectStoreUnavailable
from persistence.s3.keys import version_key
from persistence.s3.objects import ObjectStore

_ATTEMPTS: Final = 3


async def put_version(
    objects: ObjectStore,
    session_id: UUID,
    version: DocumentVersion,
    language: str,
    seconds: float,
    utterances: Sequence[Utterance],
) -> str:
    """Writes the document of a version before its row exists; returns its URI.

    A document that is there already stays if it is the same: an earlier attempt of the job, perhaps by another process,
    has written it. A different one has never been read, because its row does not exist, and is replaced. The caller
    must hold the claim of the job, whose rows the document consists of.

    Args:
        seconds: the length of the audio that was transcribed.

    Raises:
        StorageUnavailable: S3 is unavailable, or another process keeps writing a different document.
    """
    key = version_key(session_id, version.version)
    body = document(format_session_id(session_id), language, seconds, utterances, version)
    for _ in range(_ATTEMPTS):
        if await objects.put_new(key, body, "application/json"):
            return objects.uri(key)
        try:
            if await objects.read(key) == body:
                return objects.uri(key)
        except ObjectNotFound:
            continue
        await objects.delete(key)
    raise ObjectStoreUnavailable("another process writes a different document of the same version")
