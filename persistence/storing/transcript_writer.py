"""The one writer of the stored transcript of a session.

The transcript is written from the rows of the session's finals. A final that the rows lack is added to them first,
from the spool or from an earlier transcript: after a power cut or a failover of Postgres each may have finals that the
others lack.
"""

from collections.abc import Callable, Iterable, Sequence
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
        finals, restored = await self._rows.indexed_utterances(session_id), 0
        if from_document:
            lost = uncovered(session_id, await stored_finals(self._objects, session_id), finals)
            if lost:
                # The document is the only copy of these finals: it must not be replaced before the rows have them.
                finals = await self._add(session_id, lost, {each.index for each in lost})
                note_restored("session_utterances", session_id, len(lost))
                restored = len(lost)
        if spooled is not None and (lacking := missing(session_id, spooled, finals)):
            finals = await self._add(session_id, lacking, range(len(spooled)))
        ordered = [finals[index] for index in sorted(finals)]
        return Transcript(ordered, majority_language(requested_language, ordered), restored)

    async def put(self, session_id: UUID, transcript: Transcript, seconds: float) -> str:
        """Writes the document, replacing an earlier one, and returns its URI. `seconds` is the length of the audio."""
        self._check()
        body = document(format_session_id(session_id), transcript.language, seconds, transcript.finals)
        await self._objects.put(transcript_key(session_id), body, "application/json")
        return self._objects.uri(transcript_key(session_id))

    async def _add(
        self, session_id: UUID, lacking: Sequence[NumberedUtterance], required: Iterable[int]
    ) -> dict[int, Utterance]:
        """Writes finals to the rows and returns all that these have, which must include the required indexes."""
        for batch in batches(lacking):
            await self._rows.write({}, batch)
        finals = await self._rows.indexed_utterances(session_id)
        if any(index not in finals for index in required) and await self._rows.exists(session_id):
            raise DatabaseUnavailable("the database has not taken all finals of a session")
        return finals


async def stored_finals(objects: ObjectStore, session_id: UUID) -> list[Utterance]:
    """The finals of the stored transcript; none if there is no such object, or if it is not a transcript.

    Raises:
        StorageUnavailable: S3 is unavailable.
    """
    try:
        return utterances_of(await objects.read(transcript_key(session_id)))
    except (ObjectNotFound, ValueError):
        return []
