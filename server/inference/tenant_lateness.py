"""How late text is for each tenant. Pure."""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass

from server.inference.lateness import Lateness

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


class TenantLateness:
    """Two measures: how long a tenant's utterances wait for other sessions, and how long tenants wait for each other.

    A tenant whose many sessions wait for each other is late by the first, and nobody else is late because of it; where
    many tenants share the model, the second says so to all of them. `now` is any clock, in seconds.
    """

    def __init__(self) -> None:
        self._of: dict[Hashable, Lateness] = {}
        self._between = Lateness()

    def note(self, waits: Sequence[Wait], now: float) -> None:
        """What a batch that begins now kept waiting: the longest wait of each tenant counts, and the longest of all."""
        for tenant in {wait.tenant for wait in waits}:
            first = min(wait.since for wait in waits if wait.tenant == tenant)
            self._of.setdefault(tenant, Lateness()).note(now - first, now)
        self._between.note(now - min(wait.tenant_since for wait in waits), now)
        self._of = {tenant: late for tenant, late in self._of.items() if late.at(now) > _FORGOTTEN}

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
            _lateness(self._of.get(tenant) or Lateness(), own, taken, now),
            _lateness(self._between, others, taken, now),
        )


def _lateness(late: Lateness, turns: Sequence[float], taken: float, now: float) -> float:
    """Of late, or now if that is more.

    One that has not been passed over yet waits for a single batch, as anyone does where the model is slow: it counts as
    much as it will when it is taken. One that has been counts with all its time.
    """
    if not turns:
        return late.at(now)
    longest = now - min(turns)
    return max(late.at(now), longest if min(turns) <= taken else late.with_one_more(longest, now))
