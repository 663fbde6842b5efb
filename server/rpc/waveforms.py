"""The waveforms of recordings: made once, when they are first asked for, and then kept beside the audio."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final
from uuid import UUID

from prometheus_client import Histogram

from domain.errors import AudioNotStored, NoEnhancement, SessionActive, StorageUnavailable
from persistence.errors import LeaseLost
from persistence.service import Persistence
from persistence.session_values import StoredSession
from persistence.storing.waveforms import RecordedAudio
from server.access.errors import RateLimited
from server.audio.format import AudioFormat, Encoding
from server.audio.waveform import WaveformBuilder
from telemetry.logs import get_logger

log = get_logger(__name__)

WAIT_SECONDS: Final = 45.0
"""The longest that a request waits for a waveform to be made, which continues after that: below the time that Envoy
lets a download go without a byte."""
_PIECE_BYTES: Final = 1 << 20
"""Audio in memory of each waveform that is made: some milliseconds of work for a thread."""
_AT_ONCE: Final = 2
"""Waveforms that are made at a time."""
_MOST_WAITING: Final = 32
"""Waveforms of this process that are made or wait for it..."""
_MOST_OF_TENANT: Final = 8
"""...and those of a tenant: they continue when the requests for them have ended."""
_RETRY_SECONDS: Final = 5.0

_made = Histogram(
    "dalston_waveform_seconds",
    "How long it took to make a waveform, its wait for others not counted",
    buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300),
)

_Key = tuple[UUID, UUID, bytes]
"""A tenant, a session and the identity of its audio, or of the joined audio."""


class Waveforms:
    """Reads waveforms and makes those that are missing. Close it before the stores are closed."""

    def __init__(self, persistence: Persistence, wait_seconds: float = WAIT_SECONDS) -> None:
        self._persistence = persistence
        self._wait_seconds = wait_seconds
        self._making: dict[_Key, asyncio.Task[bytes]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def of(self, tenant_id: UUID, chain: Sequence[StoredSession]) -> bytes:
        """The waveform of the recording of a session, or of linked sessions, oldest first.

        Raises:
            AudioNotStored: a session, which the message names, stored no audio, or nothing was made of its file.
            SessionActive: it is running, or not stored to its end, or its waveform is not made yet.
            RateLimited: too many are made.
            StorageUnavailable: S3 is unavailable.
        """
        if len(chain) == 1 and chain[0].source == "upload":
            return await self._of_file(tenant_id, chain[0])
        recorded = await self._persistence.waveforms.recorded(chain)
        session = chain[-1]
        if len(chain) == 1:
            found = await self._persistence.waveforms.read(session.id, recorded.identity)
            if found is not None:
                return found
        return await self._wait(session, self._task(tenant_id, chain, recorded))

    async def close(self) -> None:
        """Ends what is being made."""
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _of_file(self, tenant_id: UUID, session: StoredSession) -> bytes:
        """The waveform that the worker has made of an uploaded file, which this process cannot decode."""
        session.require_audio()
        is_awaited = await self._is_awaited(tenant_id, session)
        # Read after the job: of one that ended in between, it is there.
        found = await self._persistence.waveforms.read(session.id, None)
        if found is not None:
            return found
        if is_awaited:
            raise SessionActive(session.session_id, "has no waveform yet: its batch job makes it; try again in a while")
        raise AudioNotStored(session.session_id, "has no waveform: no batch job has decoded the uploaded file")

    async def _is_awaited(self, tenant_id: UUID, session: StoredSession) -> bool:
        try:
            return (await self._persistence.jobs.newest(tenant_id, session.id)).ended_at is None
        except NoEnhancement:
            return False

    def _task(self, tenant_id: UUID, chain: Sequence[StoredSession], recorded: RecordedAudio) -> asyncio.Task[bytes]:
        """The one task that makes a waveform, however many ask for it."""
        key = (tenant_id, chain[-1].id, recorded.identity)
        task = self._making.get(key)
        if task is None:
            of_tenant = sum(each[0] == tenant_id for each in self._making)
            if len(self._making) >= _MOST_WAITING or of_tenant >= _MOST_OF_TENANT:
                raise RateLimited("too many waveforms are being made", _RETRY_SECONDS)
            task = asyncio.create_task(self._make(chain, recorded), name="making a waveform")
            self._making[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return task

    def _forget(self, key: _Key, task: asyncio.Task[bytes]) -> None:
        del self._making[key]
        if not task.cancelled():
            task.exception()  # those who wait for it raise it; perhaps nobody does any more

    async def _wait(self, session: StoredSession, task: asyncio.Task[bytes]) -> bytes:
        await asyncio.wait({task}, timeout=self._wait_seconds)
        if not task.done():
            raise SessionActive(session.session_id, "has no waveform yet: it is being made; try again in a while")
        return task.result()

    async def _make(self, chain: Sequence[StoredSession], recorded: RecordedAudio) -> bytes:
        session = chain[-1]
        builder = WaveformBuilder(AudioFormat(Encoding(session.encoding), session.sample_rate, session.channels))
        async with self._slots:
            with _made.time():
                await self._read(builder, recorded)
                data = await asyncio.to_thread(builder.finish)
        if len(chain) == 1:
            try:
                await self._persistence.waveforms.write(session.id, recorded.identity, data)
            except (StorageUnavailable, LeaseLost) as error:
                log.warning("a waveform was not stored", session_id=session.session_id, reason=str(error))
        return data

    async def _read(self, builder: WaveformBuilder, recorded: RecordedAudio) -> None:
        pieces: list[bytes] = []
        size = 0
        async with aclosing(self._persistence.archive.read(recorded.audio)) as chunks:
            async for chunk in chunks:
                pieces.append(chunk)
                size += len(chunk)
                if size >= _PIECE_BYTES:
                    await asyncio.to_thread(builder.push, b"".join(pieces))
                    pieces, size = [], 0
        await asyncio.to_thread(builder.push, b"".join(pieces))
