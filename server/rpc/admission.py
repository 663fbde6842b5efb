"""Whether this server can take another session."""

import math
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
_queue_delay = Gauge("dalston_queue_delay_seconds", "How long utterances wait for those of other sessions.")
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

    def is_behind(self, queue_delay: float) -> bool:
        """Whether it is so, now that they wait so long."""
        self._is_behind = queue_delay > (self._most * _RECOVERED if self._is_behind else self._most)
        return self._is_behind


class Admission:
    """Lets sessions in while there are places, and while those that run do not wait too long for each other.

    A tenant whose own sessions wait for each other is refused, and others are not.
    """

    def __init__(
        self,
        most: int,
        max_queue_delay_seconds: float,
        queue_delay_of: Callable[[Hashable], float],
        tenant_share: float = 1.0,
    ) -> None:
        """
        Args:
            most: sessions at a time.
            most_lag_seconds: how late text may be for a tenant before its further sessions are refused.
            lateness_of: how late it is, in seconds; asked on any thread.
            tenant_share: of the places, which one tenant may have.
        """
        self._most = most
        self._most_of_tenant = max(1, math.floor(most * tenant_share))
        self._max_queue_delay_seconds = max_queue_delay_seconds
        self._running: dict[str, _Running] = {}
        self._left: dict[str, float] = {}
        self._backlogs: dict[Hashable, Backlog] = {}
        self._queue_delay_of = queue_delay_of
        _longest_lag.set_function(lambda: self._longest(time.monotonic()))
        _queue_delay.set_function(lambda: max(map(queue_delay_of, self._tenants()), default=0.0))
        _is_behind.set_function(lambda: any(map(self._is_behind_now, self._tenants())))

    @contextmanager
    def place(self, session_id: str, tenant: Hashable, resumed: str = "") -> Iterator[Lag]:
        """A session's place while the block runs; the session keeps its lag in what is given.

        Args:
            session_id: whose place it is.
            tenant: whose session it is.
            resumed: the session that it continues, if it does.

        Raises:
            NoCapacity: there is no place.
        """
        self.refuse_when_full(tenant, resumed)
        running = self._running[session_id] = _Running(tenant, Lag(_lag_seconds.observe))
        try:
            yield running.lag
        finally:
            del self._running[session_id]
            self._remember(session_id, time.monotonic())

    def refuse_when_full(self, tenant: Hashable, resumed: str = "") -> None:
        """Raises NoCapacity if `place` would: a session that runs here leaves its own to the one that continues it."""
        leaves = resumed in self._running
        if len(self._running) - leaves >= self._most:
            _refused.labels("places").inc()
            raise NoCapacity("this server runs as many sessions as it can: try again in a while")
        if sum(running.tenant == tenant for running in self._running.values()) - leaves >= self._most_of_tenant:
            _refused.labels("tenant places").inc()
            raise NoCapacity("this server runs as many sessions of one tenant as it may: try again in a while")
        if self._is_behind_now(tenant) and not self._carries(resumed, time.monotonic()):
            _refused.labels("lag").inc()
            raise NoCapacity("this server is behind with the sessions that it runs: try again in a while")

    def _carries(self, session_id: str, now: float) -> bool:
        """Whether the session is part of what this server does, or was until just now."""
        return session_id in self._running or now - self._left.get(session_id, -math.inf) < _REMEMBERED_SECONDS

    def _remember(self, session_id: str, now: float) -> None:
        self._left = {who: at for who, at in self._left.items() if now - at < _REMEMBERED_SECONDS}
        self._left[session_id] = now
        # A tenant that runs nothing keeps nobody waiting.
        tenants = self._tenants()
        # A copy: whoever reads the metrics, on a thread of its own, adds to it.
        self._backlogs = {tenant: backlog for tenant, backlog in list(self._backlogs.items()) if tenant in tenants}

    def _is_behind_now(self, tenant: Hashable) -> bool:
        backlog = self._backlogs.get(tenant) or Backlog(self._max_queue_delay_seconds)
        is_behind = backlog.is_behind(self._queue_delay_of(tenant))
        if tenant in self._tenants():
            self._backlogs[tenant] = backlog
        # Without a session there is nobody to be hurt.
        return is_behind and bool(self._running)

    # Metrics are read on a thread of their own: copies.

    def _tenants(self) -> set[Hashable]:
        return {running.tenant for running in list(self._running.values())}

    def _longest(self, now: float) -> float:
        return max((running.lag.at(now) for running in list(self._running.values())), default=0.0)


@dataclass(frozen=True, slots=True)
class _Running:
    tenant: Hashable
    lag: Lag
