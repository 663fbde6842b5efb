"""The queue delay of each tenant. Pure."""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass

from server.inference.scheduling.moving_delay import MovingDelay

_FORGOTTEN = 0.01
"""Seconds: a smaller average is discarded."""


@dataclass(frozen=True, slots=True)
class Wait:
    """An utterance that waits, or has waited until now, for others."""

    tenant: Hashable
    since: float
    """Since when it has waited for other sessions."""
    tenant_since: float
    """Since when its tenant has waited for other tenants: another of its utterances may have been served meanwhile."""


class DelayByTenant:
    """A moving average for each tenant; averages that have decayed are discarded."""

    def __init__(self) -> None:
        self._of: dict[Hashable, MovingDelay] = {}

    def __len__(self) -> int:
        return len(self._of)

    def note(self, tenant: Hashable, seconds: float, now: float) -> None:
        """Adds a delay to the average of a tenant."""
        self._of.setdefault(tenant, MovingDelay()).note(seconds, now)
        self._of = {known: average for known, average in self._of.items() if average.at(now) > _FORGOTTEN}

    def of(self, tenant: Hashable) -> MovingDelay:
        """The average of a tenant."""
        return self._of.get(tenant) or MovingDelay()


class TenantQueueDelay:
    """Two measures: how long a tenant's utterances wait for other sessions, and how long tenants wait for each other.

    A tenant whose many sessions wait for each other raises the first for itself only; if many tenants share the model,
    the second rises for all of them. `now` is any clock, in seconds.
    """

    def __init__(self) -> None:
        self._within = DelayByTenant()
        self._between = MovingDelay()

    def note(self, waits: Sequence[Wait], now: float) -> None:
        """Notes the waits that a batch ends by beginning now: the longest wait of each tenant counts, and the longest
        of all."""
        for tenant in {wait.tenant for wait in waits}:
            first = min(wait.since for wait in waits if wait.tenant == tenant)
            self._within.note(tenant, now - first, now)
        self._between.note(now - min(wait.tenant_since for wait in waits), now)

    def of(
        self, tenant: Hashable, waits: Sequence[Wait], served: Collection[Hashable], taken: float, now: float
    ) -> float:
        """The queue delay of a tenant, in seconds.

        Args:
            waits: the utterances that wait now.
            served: the tenants with an utterance in the current batch.
            taken: when that batch was taken.
        """
        own = [wait.since for wait in waits if wait.tenant == tenant]
        others = [wait.tenant_since for wait in waits if wait.tenant not in served]
        return max(
            _current_delay(self._within.of(tenant), own, taken, now),
            _current_delay(self._between, others, taken, now),
        )


def _current_delay(average: MovingDelay, turns: Sequence[float], taken: float, now: float) -> float:
    """The moving average, or the current wait if that is longer.

    An utterance that has not been passed over yet waits for a single batch, as any does with a slow model: it counts as
    much as it will when it is taken. One that was passed over counts with all of its wait.
    """
    if not turns:
        return average.at(now)
    longest = now - min(turns)
    return max(average.at(now), longest if min(turns) <= taken else average.with_one_more(longest, now))
