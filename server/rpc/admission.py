"""Decides whether this server can admit another session."""

import math
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from server.session.errors import NoCapacity
from server.session.lag import Lag
from telemetry.recent import Recent

_RECOVERED: Final = 0.5
"""Share of the longest queue delay below which a server that was behind has recovered."""
_REMEMBERED_SECONDS: Final = 60.0
"""How long a session that has ended counts as one of this server's: its client may be about to resume it."""

_lag_seconds = Histogram(
    "dalston_session_lag_seconds",
    "Time that the next utterance of a session waits for its text.",
    buckets=(0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0),
)
_longest_lag = Gauge("dalston_longest_lag_seconds", "Longest time that a session is waiting for its next text.")
_queue_delay = Gauge(
    "dalston_queue_delay_seconds",
    "Longest queue delay of a tenant.",
)
_is_behind = Gauge("dalston_behind", "1 while new sessions of a tenant are refused because of the queue delay.")
_refused = Counter(
    "dalston_admission_refused_total", "Sessions refused, by reason: no free place, or the queue delay.", ["reason"]
)


class Backlog:
    """Whether the queue delay is too long. Pure.

    It is above `max_queue_delay_seconds`, and until it is below half of that: otherwise the next session that is
    admitted would raise it above the limit again.
    """

    def __init__(self, max_queue_delay_seconds: float) -> None:
        self._max_queue_delay_seconds = max_queue_delay_seconds
        self._is_behind = False

    def is_behind(self, queue_delay: float) -> bool:
        """Takes the current queue delay, in seconds. Returns whether it is too long."""
        limit = self._max_queue_delay_seconds
        self._is_behind = queue_delay > (limit * _RECOVERED if self._is_behind else limit)
        return self._is_behind


class Admission:
    """Admits sessions while there are free places and the queue delay is not too long.

    The queue delay is measured for each tenant: one whose own sessions wait for each other is refused, and others are
    not.
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
            max_queue_delay_seconds: the queue delay of a tenant above which its further sessions are refused.
            queue_delay_of: the queue delay of a tenant, in seconds; called on any thread.
            tenant_share: the share of the places that one tenant may use.
        """
        self.most = most
        """Sessions that may run at a time."""
        self.max_queue_delay_seconds = max_queue_delay_seconds
        """The queue delay above which further sessions are refused."""
        self.finals = Recent()
        """How long sessions have waited for the last finals, in seconds."""
        self._most_of_tenant = max(1, math.floor(most * tenant_share))
        self._running: dict[str, _Running] = {}
        self._left: dict[str, float] = {}
        self._backlogs: dict[Hashable, Backlog] = {}
        self._queue_delay_of = queue_delay_of
        _longest_lag.set_function(lambda: self._longest(time.monotonic()))
        _queue_delay.set_function(lambda: self.queue_delay)
        _is_behind.set_function(lambda: self.is_behind)

    @property
    def running(self) -> int:
        """Sessions that run."""
        return len(self._running)

    @property
    def queue_delay(self) -> float:
        """The queue delay of the tenant with the longest one, in seconds."""
        return max(map(self._queue_delay_of, self._tenants()), default=0.0)

    @property
    def longest_wait(self) -> float:
        """The longest time for which a session has been waiting for its next text, in seconds; 0 if none waits."""
        return self._longest(time.monotonic())

    @property
    def is_behind(self) -> bool:
        """Whether the queue delay of a tenant is too long."""
        return any(map(self._is_behind_now, self._tenants()))

    @contextmanager
    def place(self, session_id: str, tenant: Hashable, resumed: str = "") -> Iterator[Lag]:
        """Admits a session, which holds its place while the block runs. Yields the record of the session's lag.

        Args:
            session_id: the session.
            tenant: the tenant that owns it.
            resumed: the session that it resumes, if any.

        Raises:
            NoCapacity: the session is not admitted.
        """
        self.refuse_when_full(tenant, resumed)
        running = self._running[session_id] = _Running(tenant, Lag(self._observe))
        try:
            yield running.lag
        finally:
            del self._running[session_id]
            self._remember(session_id, time.monotonic())

    def refuse_when_full(self, tenant: Hashable, resumed: str = "") -> None:
        """Raises NoCapacity if `place` would: a session that runs here leaves its place to the one that resumes it."""
        leaves = resumed in self._running
        if len(self._running) - leaves >= self.most:
            _refused.labels("places").inc()
            raise NoCapacity("this server runs as many sessions as it can: try again in a while")
        if sum(running.tenant == tenant for running in self._running.values()) - leaves >= self._most_of_tenant:
            _refused.labels("tenant places").inc()
            raise NoCapacity("this server runs as many sessions of one tenant as it may: try again in a while")
        if self._is_behind_now(tenant) and not self._carries(resumed, time.monotonic()):
            _refused.labels("queue_delay").inc()
            raise NoCapacity("this server is behind with the sessions that it runs: try again in a while")

    def _carries(self, session_id: str, now: float) -> bool:
        """Whether the session runs on this server, or did until recently."""
        return session_id in self._running or now - self._left.get(session_id, -math.inf) < _REMEMBERED_SECONDS

    def _remember(self, session_id: str, now: float) -> None:
        self._left = {known: at for known, at in self._left.items() if now - at < _REMEMBERED_SECONDS}
        self._left[session_id] = now
        # A tenant without sessions delays no other.
        tenants = self._tenants()
        # A copy: the thread that reads the metrics adds to it.
        self._backlogs = {tenant: backlog for tenant, backlog in list(self._backlogs.items()) if tenant in tenants}

    def _is_behind_now(self, tenant: Hashable) -> bool:
        backlog = self._backlogs.get(tenant) or Backlog(self.max_queue_delay_seconds)
        is_behind = backlog.is_behind(self._queue_delay_of(tenant))
        if tenant in self._tenants():
            self._backlogs[tenant] = backlog
        # Without sessions there is nothing to protect.
        return is_behind and bool(self._running)

    def _observe(self, lag: float) -> None:
        _lag_seconds.observe(lag)
        self.finals.add(lag)

    # Metrics are read on another thread: these methods copy.

    def _tenants(self) -> set[Hashable]:
        return {running.tenant for running in list(self._running.values())}

    def _longest(self, now: float) -> float:
        return max((running.lag.at(now) for running in list(self._running.values())), default=0.0)


@dataclass(frozen=True, slots=True)
class _Running:
    tenant: Hashable
    lag: Lag
