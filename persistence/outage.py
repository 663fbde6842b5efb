"""Since when a component of the storage does not answer this process."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

_UNKNOWN_SECONDS: Final = 180.0
"""Without another failure for so long nobody knows whether the component answers. Work that waits for it is tried again
earlier, and a call to S3 with all its attempts takes 150 s at most."""


class Outage:
    """The outage of one component, by the calls of this process: every call notes how it ended."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: datetime | None = None
        self._failed_at = 0.0

    @property
    def since(self) -> datetime | None:
        """When the calls began to fail; None while they succeed."""
        if self._clock() - self._failed_at > _UNKNOWN_SECONDS:
            return None
        return self._since

    def failed(self) -> None:
        """Notes a call that the component did not answer."""
        if self.since is None:
            self._since = datetime.now(UTC)
        self._failed_at = self._clock()

    def answered(self) -> None:
        """Notes a call that the component answered."""
        self._since = None
