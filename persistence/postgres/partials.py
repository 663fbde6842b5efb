"""Passes the partials of running sessions from the server that runs them to the servers where somebody watches them.

Soft state, by notifications of Postgres only. Every few seconds a server names the sessions that are watched there; the
server that runs one publishes its partials for a little longer than that. What is lost is replaced by the next partial,
and nothing is sent of a session that nobody watches.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from prometheus_client import Counter
from sqlalchemy import Text, text

from domain.errors import StorageUnavailable
from persistence.postgres.arrays import arrays
from persistence.postgres.database import Database
from telemetry.logs import get_logger

log = get_logger(__name__)

OBSERVED: Final = "dalston_observed"
"""Where a server names the sessions that are watched there."""
PARTIALS: Final = "dalston_partials"
"""Where a server publishes partials."""
MOST_TEXT_BYTES: Final = 2048
_TICK_SECONDS: Final = 0.5
"""The shortest pause between two partials of a session."""
_NAME_SECONDS: Final = 5.0
"""How often the watched sessions are named."""
_OBSERVED_SECONDS: Final = 12.0
"""How long partials are published after a session was named: two names may be late or lost."""
_NAMES_AT_ONCE: Final = 200
"""Sessions in one notification, whose payload must be shorter than 8000 bytes."""
_MOST_OBSERVED: Final = 10_000

_NOTIFY = text("""
    SELECT pg_notify(n.channel, n.payload) FROM unnest(:channels, :payloads) AS n(channel, payload)
""").bindparams(*arrays(channels=Text, payloads=Text))

_published = Counter("dalston_partials_published_total", "Partials that this process published for watches")


@dataclass(frozen=True, slots=True)
class ObservedPartial:
    """The utterance of a session that is being spoken, as it is transcribed so far."""

    index: int
    """The finals before it, which is the index that its final will have."""
    text: str
    """Empty where it turned out to be no speech."""
    start: float
    end: float


class PartialFeed:
    """The newest partial of one watched session."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._newest: ObservedPartial | None = None

    def put(self, partial: ObservedPartial) -> None:
        """Replaces the partial that was not taken."""
        self._newest = partial
        self._wake()

    def take(self, index: int) -> ObservedPartial | None:
        """The newest partial, once, if all finals before it have an index below `index`.

        One whose final has such an index is dropped.
        """
        newest = self._newest
        if newest is None or newest.index > index:
            return None
        self._newest = None
        return newest if newest.index == index else None


class PartialExchange:
    """One per process; `run` sends, and `channels` are to be listened to."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._feeds: dict[UUID, set[PartialFeed]] = {}
        self._observed: dict[UUID, float] = {}
        """Until when the partials of each session are published, on the clock of the loop."""
        self._due: dict[UUID, ObservedPartial] = {}
        self._named_at = -_NAME_SECONDS

    @property
    def channels(self) -> Mapping[str, Callable[[str], None]]:
        """What receives the notifications of each channel."""
        return {OBSERVED: self._on_names, PARTIALS: self._on_partial}

    @contextmanager
    def watching(self, session_id: UUID, wake: Callable[[], None]) -> Iterator[PartialFeed]:
        """The partials of a session while the block runs. The caller has checked that the tenant may read its text.

        Args:
            session_id: the session.
            wake: called when there is a new partial.
        """
        feed = PartialFeed(wake)
        self._feeds.setdefault(session_id, set()).add(feed)
        self._named_at = -_NAME_SECONDS
        try:
            yield feed
        finally:
            self._feeds[session_id].discard(feed)
            if not self._feeds[session_id]:
                del self._feeds[session_id]

    def publish(self, session_id: UUID, partial: ObservedPartial) -> None:
        """Has a partial of a session of this process sent at the next tick, if somebody watches the session."""
        if session_id in self._observed:
            self._due[session_id] = partial

    async def run(self) -> None:
        """Sends until cancelled. What cannot be sent is dropped."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            try:
                await self.send()
            except StorageUnavailable:
                continue  # the watches themselves find that the database does not answer
            except Exception:
                log.exception("partials are not passed to watches")

    async def send(self) -> None:
        """Sends what is due.

        Raises:
            StorageUnavailable: Postgres is unavailable.
        """
        now = asyncio.get_running_loop().time()
        self._observed = {each: until for each, until in self._observed.items() if until > now}
        due, self._due = self._due, {}
        partials = [_payload(each, partial) for each, partial in due.items() if each in self._observed]
        names: list[str] = []
        if self._feeds and now - self._named_at >= _NAME_SECONDS:
            self._named_at = now
            names = _names(list(self._feeds))
        if not partials and not names:
            return
        channels = [PARTIALS] * len(partials) + [OBSERVED] * len(names)
        async with self._database.transaction() as connection:
            await connection.execute(_NOTIFY, {"channels": channels, "payloads": partials + names})
        _published.inc(len(partials))

    def _on_names(self, payload: str) -> None:
        until = asyncio.get_running_loop().time() + _OBSERVED_SECONDS
        try:
            for name in payload.split(","):
                if len(self._observed) < _MOST_OBSERVED:
                    self._observed[UUID(name)] = until
        except ValueError:
            log.warning("a notification has an unknown payload")

    def _on_partial(self, payload: str) -> None:
        try:
            name, *fields = json.loads(payload)
            session_id, partial = UUID(name), ObservedPartial(*fields)
        except (ValueError, TypeError):
            log.warning("a notification has an unknown payload")
            return
        for feed in self._feeds.get(session_id, ()):
            feed.put(partial)


def _names(session_ids: Sequence[UUID]) -> list[str]:
    return [
        ",".join(each.hex for each in session_ids[at : at + _NAMES_AT_ONCE])
        for at in range(0, len(session_ids), _NAMES_AT_ONCE)
    ]


def _payload(session_id: UUID, partial: ObservedPartial) -> str:
    """At most 5 KB: of the characters that are left, a quotation mark and a backslash need two bytes, others one."""
    fields = (session_id.hex, partial.index, shortened(partial.text), partial.start, partial.end)
    return json.dumps(fields, ensure_ascii=False)


def shortened(spoken: str) -> str:
    """A text as it is passed on: without control characters, at most 2 KB, cut after a word if possible."""
    plain = "".join(each if each.isprintable() else " " for each in spoken)
    data = plain.encode(errors="replace")
    if len(data) <= MOST_TEXT_BYTES:
        return data.decode()
    kept = data[:MOST_TEXT_BYTES].decode(errors="ignore")
    words, _, _ = kept.rpartition(" ")
    return words or kept
