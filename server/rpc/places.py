"""Places of tenants in this process: how many of something each of them has taken."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID


class Places:
    """Counts; whoever uses it says how many are too many. A tenant that has none takes no memory."""

    def __init__(self) -> None:
        self._taken: Counter[UUID] = Counter()

    def __len__(self) -> int:
        return self._taken.total()

    def of(self, tenant_id: UUID) -> int:
        """How many the tenant has."""
        return self._taken[tenant_id]

    @contextmanager
    def taken(self, tenant_id: UUID) -> Iterator[None]:
        """One more of the tenant's while the block runs."""
        self._taken[tenant_id] += 1
        try:
            yield
        finally:
            self._taken[tenant_id] -= 1
            if not self._taken[tenant_id]:
                del self._taken[tenant_id]
