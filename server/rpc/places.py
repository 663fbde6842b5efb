"""Counters of places that tenants occupy in this process, for example by downloads."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID


class Places:
    """Counts places; its user applies the limit. A tenant without places uses no memory."""

    def __init__(self) -> None:
        self._taken: Counter[UUID] = Counter()

    def __len__(self) -> int:
        return self._taken.total()

    def of(self, tenant_id: UUID) -> int:
        """The number of places that the tenant occupies."""
        return self._taken[tenant_id]

    @contextmanager
    def taken(self, tenant_id: UUID) -> Iterator[None]:
        """Occupies one more place of the tenant while the block runs."""
        self._taken[tenant_id] += 1
        try:
            yield
        finally:
            self._taken[tenant_id] -= 1
            if not self._taken[tenant_id]:
                del self._taken[tenant_id]
