"""Finds the resume point: where in the audio of an earlier session a new one continues.

The point is read from what the bucket and Postgres have of the earlier session. The process that ends it stores no
less, so that its audio up to the point and the audio of the new session make up the recording without a gap.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

from prometheus_client import Counter
from sqlalchemy import text

from domain.errors import (
    InvalidResumption,
    SessionActive,
    SessionNotFound,
    SessionResumed,
    StorageUnavailable,
)
from domain.session_id import format_session_id
from domain.tenancy import Caller
from persistence.postgres.database import Database
from persistence.postgres.rows import SessionRows
from persistence.postgres.stored_session import STORED_SESSION_SQL, stored_session
from persistence.postgres.tables import HAS_NOTHING, HAS_SERVER
from persistence.resume_point import ResumePoint
from persistence.s3.assembly import assemble
from persistence.s3.keys import parse_tail_key, tail_prefix
from persistence.s3.objects import ObjectStore
from persistence.session_values import StoredSession
from telemetry.logs import get_logger

log = get_logger(__name__)

_LOOK_SECONDS: Final = 0.2
_SILENCE_SECONDS: Final = 2.0
# As a rule, speech in progress is transcribed and the rest is stored within a second. If not, the point is earlier.
_SETTLE_SECONDS: Final = 3.0
_BUCKET_SECONDS: Final = 2.0
_MILLIONTH: Final = 1e-6
_MILLISECOND: Final = 1e-3

_found = Counter("dalston_resumes_total", "Sessions that continue an earlier one")
_taken_over = Counter("dalston_resumes_taken_over_total", "Streams ended because they were silent and are continued")

_LOOK = text(f"""
    SELECT {STORED_SESSION_SQL}, {HAS_NOTHING} AS has_nothing, {HAS_SERVER} AS has_server,
        extract(epoch FROM coalesce(s.ended_at, now()) - s.started_at)::float8 AS open_seconds
    FROM realtime_sessions AS s
    WHERE s.tenant_id = :tenant_id AND s.deleted_at IS NULL AND (s.id = :id OR s.previous_session_id = :id)
""")  # noqa: S608 - no input
_LAST_FINAL = text("""
    SELECT start, "end" FROM session_utterances WHERE session_id = :id ORDER BY index DESC LIMIT 1
""")
_FINAL_AT = text("""
    SELECT start FROM session_utterances
    WHERE session_id = :id AND start < :before AND "end" > :after ORDER BY index LIMIT 1
""")


class RunningCall(Protocol):
    """A call of this process that runs a session."""

    @property
    def tenant_id(self) -> UUID | None: ...

    @property
    def silent_seconds(self) -> float: ...

    @property
    def received_seconds(self) -> float: ...

    def take_over(self, error: Exception) -> None: ...


@dataclass(frozen=True, slots=True)
class Resumption:
    """The request of a new session."""

    caller: Caller
    earlier: UUID
    """The session to continue."""
    new: UUID
    """The session that continues it."""
    encoding: str
    sample_rate: int
    channels: int
    seconds: float | None = None
    """Where in the earlier session's audio to begin; None: at the latest point there is."""


@dataclass(frozen=True, slots=True)
class _Session:
    """A session, and what its process is doing."""

    stored: StoredSession
    has_nothing: bool
    has_server: bool
    """Its process is alive."""
    open_seconds: float
    """From its start to its end, or until now."""

    @property
    def id(self) -> UUID:
        return self.stored.id

    @property
    def session_id(self) -> str:
        return self.stored.session_id

    @property
    def runs(self) -> bool:
        return self.stored.status == "active" and self.has_server

    @property
    def is_at_work(self) -> bool:
        """Whether a process that is alive is ending or storing it."""
        return self.stored.is_unfinished and self.stored.recover_after is None and self.has_server


class Resumptions:
    """Finds the point at which a new session continues an earlier one, once that one has ended."""

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        rows: SessionRows,
        call_of: Callable[[UUID], RunningCall | None],
        *,
        wait_seconds: float,
    ) -> None:
        self._database = database
        self._objects = objects
        self._rows = rows
        self._call_of = call_of
        self._wait_seconds = wait_seconds

    async def point(self, wanted: Resumption) -> float:
        """Where in the earlier session's audio the new one begins: seconds, a whole number of samples.

        Waits some seconds for the earlier session to end if it is active, because its connection may be dead, and then
        for its last finals. If this process runs it and its client is silent, it is ended, unless the new session would
        be refused all the same.

        Raises:
            InvalidResumption: the formats differ, or the earlier session did not receive as much.
            SessionNotFound: the tenant has no such session.
            SessionActive: it is in progress.
            SessionResumed: another session continues it.
            TooManySessions, TokenSpent: the caller may not begin the new one.
            StorageUnavailable: Postgres is unavailable.
        """
        earlier = await self._settled(wanted)
        stored = await self._stored_seconds(earlier.stored)
        if wanted.seconds is not None:
            point = _asked(earlier, stored, wanted.seconds)
        else:
            point = await self._latest(earlier.stored, stored)
        _found.inc()
        log.info(
            "session resumes another",
            session_id=format_session_id(wanted.new),
            resumed=earlier.session_id,
            seconds=point,
        )
        return point

    async def _settled(self, wanted: Resumption) -> _Session:
        """The earlier session once it has ended, and is stored unless that takes long."""
        clock = asyncio.get_running_loop().time
        give_up_at, settle_at = clock() + self._wait_seconds, math.inf
        while True:
            try:
                earlier, following = await self._look(wanted)
            except SessionNotFound:
                # The session runs here: Postgres has lost its row, which is inserted again within a second or so.
                # Neither the answer nor its time may show another tenant that the session exists.
                call = self._call_of(wanted.earlier)
                if call is None or call.tenant_id != wanted.caller.tenant_id or clock() >= give_up_at:
                    raise
                await asyncio.sleep(_LOOK_SECONDS)
                continue
            _refuse_other_format(earlier, wanted)
            if following is not None and not following.has_nothing:
                raise SessionResumed(earlier.session_id, following.session_id)
            obstacle = await self._obstacle(earlier, following, wanted)
            if obstacle is None:
                settle_at = min(settle_at, clock() + _SETTLE_SECONDS)
                is_settling = earlier.is_at_work or (following is not None and following.runs)
                if not is_settling or clock() >= settle_at:
                    return earlier
            elif clock() >= give_up_at:
                raise obstacle
            await asyncio.sleep(_LOOK_SECONDS)

    async def _obstacle(self, earlier: _Session, following: _Session | None, wanted: Resumption) -> Exception | None:
        """Why the earlier session cannot be continued yet: a session is active, and may have a client."""
        if following is not None and following.runs and not await self._take_over(following, earlier, wanted):
            return SessionResumed(earlier.session_id, following.session_id)
        if earlier.runs and not await self._take_over(earlier, earlier, wanted):
            return SessionActive(earlier.session_id)
        return None

    async def _look(self, wanted: Resumption) -> tuple[_Session, _Session | None]:
        """The earlier session and the one that continues it."""
        async with self._database.transaction() as connection:
            rows = (
                await connection.execute(_LOOK, {"id": wanted.earlier, "tenant_id": wanted.caller.tenant_id})
            ).mappings()
            found = [_session(row) for row in rows]
        earlier = next((each for each in found if each.id == wanted.earlier), None)
        if earlier is None:
            raise SessionNotFound(format_session_id(wanted.earlier))
        return earlier, next((each for each in found if each.id != wanted.earlier), None)

    async def _take_over(self, session: _Session, earlier: _Session, wanted: Resumption) -> bool:
        """Ends a running session of this process whose client is silent; returns whether it did, now or before."""
        call = self._call_of(session.id)
        if call is None or call.silent_seconds < _SILENCE_SECONDS:
            return False
        if not math.isinf(call.silent_seconds):
            await self._refuse_in_time(call, session, earlier, wanted)
            if call.silent_seconds < _SILENCE_SECONDS:
                return False
            _taken_over.inc()
        # The new session has no row yet, so it cannot be named: it may still be refused.
        call.take_over(SessionResumed(session.session_id))
        return True

    async def _refuse_in_time(
        self, call: RunningCall, session: _Session, earlier: _Session, wanted: Resumption
    ) -> None:
        """Raises what would refuse the new session after `session` was ended for it: none is ended in vain."""
        await self._rows.check_may_begin(wanted.caller, instead_of=session.id)
        if wanted.seconds is None:
            return
        if session is earlier:
            _asked(earlier, call.received_seconds, wanted.seconds, is_unfinished=False)
        else:
            _asked(earlier, await self._stored_seconds(earlier.stored), wanted.seconds)

    async def _stored_seconds(self, session: StoredSession) -> float:
        """How much of the audio is in the bucket: the process that ends the session stores no less."""
        if session.audio_uri is not None:
            return session.audio_duration_seconds
        if not session.store_audio:
            return 0.0
        return session.wav.seconds(max(session.stored_bytes, await self._bytes_in_bucket(session)))

    async def _bytes_in_bucket(self, session: StoredSession) -> int:
        # The row may be ten seconds behind, or longer if Postgres was unavailable.
        try:
            async with asyncio.timeout(_BUCKET_SECONDS):
                keys = await self._objects.list(tail_prefix(session.id))
                parts = (await self._rows.upload(session.id)).parts
        except (StorageUnavailable, TimeoutError):
            return 0
        tails = [tail for key in keys if (tail := parse_tail_key(key)) is not None]
        return assemble(session.wav, parts, tails).audio_bytes

    async def _latest(self, session: StoredSession, stored: float) -> float:
        """The latest point before which all audio and all finals are stored, and at which no word is cut."""
        point = await self._processed_seconds(session)
        if session.store_audio:
            point = min(point, stored)
        async with self._database.transaction() as connection:
            names = {"id": session.id, "before": point - _MILLIONTH, "after": point + _MILLIONTH}
            start = (await connection.execute(_FINAL_AT, names)).scalar_one_or_none()
        rate = session.sample_rate
        return math.floor((point if start is None else start) * rate + _MILLIONTH) / rate

    async def _processed_seconds(self, session: StoredSession) -> float:
        if session.status == "completed":
            return session.audio_duration_seconds
        if session.processed_seconds > 0:
            return session.processed_seconds
        # A server of the release before does not write how far it has processed the audio, but writes the finals.
        resume_point = ResumePoint()
        async with self._database.transaction() as connection:
            last = (await connection.execute(_LAST_FINAL, {"id": session.id})).one_or_none()
        if last is not None:
            resume_point.note_utterance(*last)
        return resume_point.seconds(session.audio_duration_seconds)


def _session(row: Any) -> _Session:
    return _Session(stored_session(row), row["has_nothing"], row["has_server"], row["open_seconds"])


def _refuse_other_format(earlier: _Session, wanted: Resumption) -> None:
    for name in ("encoding", "sample_rate", "channels"):
        had, asked = getattr(earlier.stored, name), getattr(wanted, name)
        if had != asked:
            raise InvalidResumption(
                name, f"is {asked}, and {had} in session {earlier.session_id}: they must be the same"
            )


def _asked(session: _Session, stored: float, seconds: float, is_unfinished: bool | None = None) -> float:
    """The point that the client requests, if the session has received as much."""
    received = max(session.stored.audio_duration_seconds, stored)
    if is_unfinished is None:
        is_unfinished = session.stored.is_unfinished
    if not session.stored.store_audio or is_unfinished:
        # Its process may have died and received more than its row has, but hardly more than there was time for.
        received = max(received, session.open_seconds)
    if not seconds <= received + _MILLISECOND:
        raise InvalidResumption(
            "resume_from_seconds", f"must be at most {received:.3f}: session {session.session_id} has no more audio"
        )
    return round(min(seconds, received) * session.stored.sample_rate) / session.stored.sample_rate
