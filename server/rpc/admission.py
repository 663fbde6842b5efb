"""Whether this server can take another session."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from server.session.errors import NoCapacity
from server.session.lag import Lag

_RECOVERED: Final = 0.5
"""Share of the longest wait below which a server that was behind has caught up."""
_REMEMBERED_SECONDS: Final = 60.0
"""How long a session that has left counts as one that this server carries: its client may be about to resume it."""

_lag_seconds = Histogram(
    "dalston_session_lag_seconds",
    "From when an utterance was its session's next to be transcribed until it was.",
    buckets=(0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0),
)
_longest_lag = Gauge("dalston_longest_lag_seconds", "How long the session waits now that has waited longest for text.")
_lateness = Gauge("dalston_lateness_seconds", "How long utterances wait for those of other sessions.")
_is_behind = Gauge("dalston_behind", "1 while new sessions are refused because those that run wait for each other.")
_refused = Counter("dalston_admission_refused_total", "Sessions refused: too many run, or text is late.", ["reason"])


class Backlog:
    """Whether utterances wait too long for those of other sessions. Pure.

    They do from `most` seconds on, and no longer once it is half of that: the session that would be let in at once
    would bring it back.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._is_behind = False

    def is_behind(self, lateness: float) -> bool:
        """Whether it is so, now that they wait so long."""
        self._is_behind = lateness > (self._most * _RECOVERED if self._is_behind else self._most)
        return self._is_behind


class Admission:
    """Lets sessions in while there are places, and while those that run do not wait too long for each other."""

    def __init__(self, most: int, most_lag_seconds: float, lateness: Callable[[], float]) -> None:
        """`lateness`: how long utterances wait for those of other sessions, in seconds; asked on any thread."""
        self._most = most
        self._lags: dict[str, Lag] = {}
        self._left: dict[str, float] = {}
        self._backlog = Backlog(most_lag_seconds)
        self._lateness = lateness
        _longest_lag.set_function(lambda: self._longest(time.monotonic()))
        _lateness.set_function(lateness)
        _is_behind.set_function(self._is_behind_now)

    @contextmanager
    def place(self, session_id: str, resumed: str = "") -> Iterator[Lag]:
        """A session's place while the block runs; the session keeps its lag in what is given.

        Args:
            session_id: whose place it is.
            resumed: the session that it continues, if it does.

        Raises:
            NoCapacity: there is no place.
        """
        self.refuse_when_full(resumed)
        lag = self._lags[session_id] = Lag(_lag_seconds.observe)
        try:
            yield lag
        finally:
            del self._lags[session_id]
            self._remember(session_id, time.monotonic())

    def refuse_when_full(self, resumed: str = "") -> None:
        """Raises NoCapacity if `place` would: a session that runs here leaves its own to the one that continues it."""
        if len(self._lags) - (resumed in self._lags) >= self._most:
            _refused.labels("places").inc()
            raise NoCapacity("this server runs as many sessions as it can: try again in a while")
        if self._is_behind_now() and not self._carries(resumed, time.monotonic()):
            _refused.labels("lag").inc()
            raise NoCapacity("this server is behind with the sessions that it runs: try again in a while")

    def _carries(self, session_id: str, now: float) -> bool:
        """Whether the session is part of what this server does, or was until just now."""
        return session_id in self._lags or now - self._left.get(session_id, -math.inf) < _REMEMBERED_SECONDS

    def _remember(self, session_id: str, now: float) -> None:
        self._left = {who: at for who, at in self._left.items() if now - at < _REMEMBERED_SECONDS}
        self._left[session_id] = now

    def _is_behind_now(self) -> bool:
        # Without a session there is nobody to be hurt.
        return self._backlog.is_behind(self._lateness()) and bool(self._lags)

    def _longest(self, now: float) -> float:
        # A copy: metrics are read on a thread of their own.
        return max((lag.at(now) for lag in list(self._lags.values())), default=0.0)
