"""How late text is for each tenant. Pure."""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass

from server.inference.scheduling.queue_delay import MovingDelay

_FORGOTTEN = 0.01
"""Seconds: what is less late is not remembered."""


@dataclass(frozen=True, slots=True)
class Wait:
    """An utterance that waits, or has waited until now, for those of others."""

    tenant: Hashable
    since: float
    """For those of other sessions."""
    tenant_since: float
    """For those of other tenants: its tenant may have had something else served meanwhile."""


class DelayByTenant:
    """How late things are of late, for each tenant; what was not late for long is forgotten."""

    def __init__(self) -> None:
        self._of: dict[Hashable, MovingDelay] = {}

    def __len__(self) -> int:
        return len(self._of)

    def note(self, tenant: Hashable, seconds: float, now: float) -> None:
        """Something of a tenant had to wait so long."""
        self._of.setdefault(tenant, MovingDelay()).note(seconds, now)
        self._of = {who: late for who, late in self._of.items() if late.at(now) > _FORGOTTEN}

    def of(self, tenant: Hashable) -> MovingDelay:
        """For a tenant."""
        return self._of.get(tenant) or MovingDelay()


class TenantQueueDelay:
    """Two measures: how long a tenant's utterances wait for other sessions, and how long tenants wait for each other.

    A tenant whose many sessions wait for each other is late by the first, and nobody else is late because of it; where
    many tenants share the model, the second says so to all of them. `now` is any clock, in seconds.
    """

    def __init__(self) -> None:
        self._within = DelayByTenant()
        self._between = MovingDelay()

    def note(self, waits: Sequence[Wait], now: float) -> None:
        """What a batch that begins now kept waiting: the longest wait of each tenant counts, and the longest of all."""
        for tenant in {wait.tenant for wait in waits}:
            first = min(wait.since for wait in waits if wait.tenant == tenant)
            self._within.note(tenant, now - first, now)
        self._between.note(now - min(wait.tenant_since for wait in waits), now)

    def of(
        self, tenant: Hashable, waits: Sequence[Wait], served: Collection[Hashable], taken: float, now: float
    ) -> float:
        """How late text is for a tenant.

        Args:
            waits: what waits now.
            served: tenants that have something at the model.
            taken: when that was taken.
        """
        own = [wait.since for wait in waits if wait.tenant == tenant]
        others = [wait.tenant_since for wait in waits if wait.tenant not in served]
        return max(
            _current_delay(self._within.of(tenant), own, taken, now),
            _current_delay(self._between, others, taken, now),
        )


def _current_delay(late: MovingDelay, turns: Sequence[float], taken: float, now: float) -> float:
    """Of late, or now if that is more.

    One that has not been passed over yet waits for a single batch, as anyone does where the model is slow: it counts as
    much as it will when it is taken. One that has been counts with all its time.
    """
    if not turns:
        return late.at(now)
    longest = now - min(turns)
    return max(late.at(now), longest if min(turns) <= taken else late.with_one_more(longest, now))
