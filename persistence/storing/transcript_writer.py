"""The one writer of the stored transcript of a session.

The transcript is written from the rows of the session's finals. A final that the rows lack is added to them first,
from the spool or from an earlier transcript: after a power cut or a failover of Postgres each may have finals that the
others lack.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from domain.session_id import format_session_id
from domain.transcript import Utterance, document, majority_language, utterances_of
from persistence.errors import DatabaseUnavailable, ObjectNotFound
from persistence.postgres.finals import NumberedUtterance, batches, missing, uncovered
from persistence.postgres.lost_rows import note_restored
from persistence.postgres.rows import SessionRows
from persistence.s3.keys import transcript_key
from persistence.s3.objects import ObjectStore


@dataclass(frozen=True, slots=True)
class Transcript:
    """The finals of a session as its rows have them."""

    finals: list[Utterance]
    language: str
    """The requested language; for `auto`, the language of most words, or `auto` while there is none."""
    restored: int = 0
    """Finals that only the stored document had."""


class TranscriptWriter:
    """Collects the finals of sessions and writes their transcripts.

    All methods raise StorageUnavailable while Postgres or S3 is unavailable, and what `check` raises. They may be
    repeated.
    """

    def __init__(self, objects: ObjectStore, rows: SessionRows, check: Callable[[], None] = lambda: None) -> None:
        """`check` is called before a transcript is written and raises when this process may not write."""
        self._objects = objects
        self._rows = rows
        self._check = check

    async def collect(
        self,
        session_id: UUID,
        requested_language: str,
        *,
        spooled: Sequence[Utterance] | None = None,
        from_document: bool = False,
    ) -> Transcript:
        """Reads the finals from the rows, after adding what only another source has.

        Where the rows have a final of the same index (spool) or of the same speech (document), theirs stays, whatever
        its text: a tenant may have read it.

        Args:
            spooled: the finals of the session's spool, in their order; None without a spool.
            from_document: whether to read the stored transcript, too, as far as there is one.

        Raises:
            NotOwner, LeaseLost: the session belongs to another process.
        """
        documented = await stored_finals(self._objects, session_id) if from_document else []
        restored = await self._restore(session_id, documented)
        finals = await self._rows.indexed_utterances(session_id)
        if spooled is not None and (lacking := missing(session_id, spooled, finals)):
            await self._write_rows(lacking)
            finals = await self._rows.indexed_utterances(session_id)
            if missing(session_id, spooled, finals) and await self._rows.exists(session_id):
                raise DatabaseUnavailable("the database has not taken all finals of a session")
        ordered = [finals[index] for index in sorted(finals)]
        return Transcript(ordered, majority_language(requested_language, ordered), restored)

    async def put(self, session_id: UUID, transcript: Transcript, seconds: float) -> str:
        """Writes the document, replacing an earlier one, and returns its URI. `seconds` is the length of the audio."""
        self._check()
        body = document(format_session_id(session_id), transcript.language, seconds, transcript.finals)
        await self._objects.put(transcript_key(session_id), body, "application/json")
        return self._objects.uri(transcript_key(session_id))

    async def _restore(self, session_id: UUID, documented: Sequence[Utterance]) -> int:
        if not documented:
            return 0
        lost = uncovered(session_id, documented, await self._rows.indexed_utterances(session_id))
        if not lost:
            return 0
        await self._write_rows(lost)
        written = await self._rows.indexed_utterances(session_id)
        if any(each.index not in written for each in lost) and await self._rows.exists(session_id):
            # The document is the only copy of these finals: it must not be replaced.
            raise DatabaseUnavailable("the database has not taken all finals of a stored transcript")
        note_restored("session_utterances", session_id, len(lost))
        return len(lost)

    async def _write_rows(self, finals: Sequence[NumberedUtterance]) -> None:
        for batch in batches(finals):
            await self._rows.write({}, batch)


async def stored_finals(objects: ObjectStore, session_id: UUID) -> list[Utterance]:
    """The finals of the stored transcript; none if there is no such object, or if it is not a transcript.

    Raises:
        StorageUnavailable: S3 is unavailable.
    """
    try:
        return utterances_of(await objects.read(transcript_key(session_id)))
    except (ObjectNotFound, ValueError):
        return []
