"""What a server reports of itself: its state, its figures, and what is wrong with them."""

from collections.abc import Callable, Collection
from typing import Final

from dalston.v1.status_pb2 import Latency, Process, ServerFigures, StorageBacklog

from server.rpc.admission import Admission
from server.rpc.drain import Drain
from server.session.recent_partials import RecentPartials
from telemetry.recent import Recent, quantile

TEXT_LATE_SECONDS: Final = 10.0
"""A session that waits longer for its next text makes the degradation `text_late`."""
_SUPPRESSED_SHARE: Final = 0.5
_FEWEST_PASSES: Final = 20
"""Passes below which their share means nothing."""


class ServerReport:
    """Describes one server."""

    def __init__(
        self,
        admission: Admission,
        recent_partials: RecentPartials,
        drain: Drain,
        backlog: Callable[[], StorageBacklog] = StorageBacklog,
    ) -> None:
        """`backlog` returns what waits to be stored now."""
        self._admission = admission
        self._recent_partials = recent_partials
        self._drain = drain
        self._backlog = backlog
        self.is_ready = False
        """Whether the server has begun to serve."""

    def describe(self, process: Process) -> Collection[str]:
        """Fills in the state and the figures of the server; returns its degradations other than those of storage."""
        process.state = "draining" if self._drain.has_begun else "ready" if self.is_ready else "starting"
        figures = self._figures()
        process.server.CopyFrom(figures)
        conditions = {
            "at_capacity": figures.sessions >= figures.max_sessions,
            "behind": self._admission.is_behind,
            "text_late": figures.longest_wait_seconds >= TEXT_LATE_SECONDS,
            "partials_suppressed": self._recent_partials.passes >= _FEWEST_PASSES
            and figures.suppressed_partials >= _SUPPRESSED_SHARE,
        }
        return [name for name, is_true in conditions.items() if is_true]

    def _figures(self) -> ServerFigures:
        return ServerFigures(
            sessions=self._admission.running,
            max_sessions=self._admission.most,
            queue_delay_seconds=round(self._admission.queue_delay, 3),
            max_queue_delay_seconds=self._admission.max_queue_delay_seconds,
            longest_wait_seconds=round(self._admission.longest_wait, 3),
            finals=_latency(self._admission.finals),
            partials=_latency(self._recent_partials.sent),
            suppressed_partials=self._recent_partials.suppressed,
            storage=self._backlog(),
        )


def _latency(recent: Recent) -> Latency:
    values = recent.values()
    if not values:
        return Latency()
    return Latency(
        count=len(values), p50_seconds=round(quantile(values, 0.5), 3), p95_seconds=round(quantile(values, 0.95), 3)
    )
