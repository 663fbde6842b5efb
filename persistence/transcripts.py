"""Reading the transcripts of sessions in their versions."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from domain.errors import InvalidFilter
from domain.job import TranscriptVersion
from domain.transcript import Utterance
from persistence.errors import DatabaseUnavailable
from persistence.postgres.chains import ChainStore
from persistence.postgres.finals import NumberedUtterance
from persistence.postgres.transcript_versions import TranscriptVersions
from persistence.postgres.utterances import UtteranceStore
from persistence.transcript_choice import (
    CURRENT,
    LIVE,
    ChosenTranscript,
    NotStored,
    join,
    joined_version,
    own_part,
    version_of,
    whole,
)

_MOST_READS: Final = 2
"""Reads of watches at a time in this process, so that they do not exhaust the connection pool."""
_WAIT_SECONDS: Final = 5.0
"""The longest wait for one of these reads."""


@dataclass(frozen=True, slots=True)
class News:
    """Some utterances of a transcript."""

    utterances: list[NumberedUtterance]
    has_next: bool
    """Whether there are further ones already."""
    is_growing: bool
    """Whether further ones may be added."""


class Transcripts:
    """Chooses and reads versions. All methods raise StorageUnavailable while Postgres is unavailable."""

    def __init__(self, chains: ChainStore, versions: TranscriptVersions, utterances: UtteranceStore) -> None:
        self._chains = chains
        self._versions = versions
        self._utterances = utterances
        self._reads = asyncio.Semaphore(_MOST_READS)

    async def versions(self, tenant_id: UUID, session_id: UUID) -> tuple[TranscriptVersion, ...]:
        """The stored versions of a session, in their order.

        Raises:
            SessionNotFound: the tenant has no session of this id.
            TranscriptNotStored: the session stored none.
            SessionActive: it is running, or none is stored yet.
        """
        (session,) = await self._chains.read(tenant_id, session_id, linked=False)
        return await self._versions.list_of(session)

    async def choose(self, tenant_id: UUID, session_id: UUID, version: int, *, linked: bool) -> ChosenTranscript:
        """The transcript that a request reads.

        Args:
            version: 0 is the current version, with `linked` that of each session, or the newest one of the joined
                recording. With `linked`, 1 is the join of the live ones.

        Raises:
            SessionNotFound: the tenant has no session of this id.
            TranscriptNotFound: the session has no such version.
            TranscriptNotStored: a session, which the message names, stored no transcript.
            SessionActive: it is running, or its transcript is not stored yet.
            InvalidFilter: a parameter is out of range, or the version is not of the joined recording.
        """
        _refuse_negative(version)
        chain = await self._chains.read(tenant_id, session_id, linked=linked)
        session = chain[-1]
        by_session = await self._versions.of([each.id for each in chain])
        found = version_of(by_session[session.id], version)
        if found is None and version > LIVE:
            await self._versions.refuse(session, version)
        joins = len(chain) > 1
        joined = None
        if joins or (linked and version == CURRENT):
            joined = joined_version(chain, by_session[session.id], version)
        if joined is not None:
            return whole(session, joined)
        if joins:
            try:
                return join(chain, by_session, version)
            except NotStored as error:
                await self._versions.refuse(error.session, CURRENT)
        if found is None:
            await self._versions.refuse(session, version)
        if found.linked and not linked:
            return own_part(await self._chains.read(tenant_id, session_id, linked=True), found)
        return whole(session, found)

    def utterances(self, chosen: ChosenTranscript) -> AsyncGenerator[Utterance, None]:
        """The utterances of a transcript in their order, read in batches; close it with `aclose`."""
        return self._utterances.joined(chosen.parts)

    async def page(
        self, tenant_id: UUID, session_id: UUID, version: int, offset: int, limit: int
    ) -> tuple[list[NumberedUtterance], bool]:
        """At most `limit` (1 to 1000) utterances from index `offset` on, and whether more may come.

        Args:
            version: 0 and 1 are the live one, which grows while the session runs, or the first one of an uploaded
                file, which grows while its job runs.

        Raises:
            SessionNotFound, TranscriptNotFound, TranscriptNotStored, SessionActive: as `choose` does; the live one is
                not refused while the session runs.
            InvalidFilter: a parameter is out of range.
        """
        _refuse_negative(version)
        news = await self._read(tenant_id, session_id, version or LIVE, offset, limit)
        return news.utterances, news.has_next or news.is_growing

    async def news(self, tenant_id: UUID, session_id: UUID, offset: int, limit: int) -> News:
        """At most `limit` (1 to 1000) utterances of the first transcript of a session from index `offset` on.

        Raises:
            StorageUnavailable: also while too many others read.
            Further errors are those of `page`.
        """
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._reads.acquire()
        except TimeoutError:
            raise DatabaseUnavailable("too many readers wait for the database") from None
        try:
            return await self._read(tenant_id, session_id, LIVE, offset, limit)
        finally:
            self._reads.release()

    async def _read(self, tenant_id: UUID, session_id: UUID, version: int, offset: int, limit: int) -> News:
        # Read before its utterances: if the transcript is complete, so are they.
        (session,) = await self._chains.read(tenant_id, session_id, linked=False)
        if version == LIVE and session.source == "live" and session.store_transcript:
            page, has_next = await self._utterances.page(session.id, None, offset, limit)
            return News(page, has_next, is_growing=session.transcript_uri is None)
        # Read before the versions: of a job that ends in between, the version is there.
        is_being_written = version == LIVE and await self._versions.is_being_written(session)
        found = version_of((await self._versions.of([session.id]))[session.id], version)
        if found is None and not is_being_written:
            await self._versions.refuse(session, version)
        page, has_next = await self._utterances.page(session.id, version, offset, limit)
        return News(page, has_next, is_growing=found is None)


def _refuse_negative(version: int) -> None:
    if version < 0:
        raise InvalidFilter("version", "version must be 0 or more")
