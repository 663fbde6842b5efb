"""Rate limits: a bounded number of token buckets, one for each key."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float


class Rates:
    """Token buckets by key. A bucket is full at first, and refills while it is not used.

    Beyond `most` buckets the least recently used one is dropped, and so is full when it is used again: against a flood
    of keys, bounded memory is worth more than exactness.
    """

    def __init__(self, most: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: Hashable, per_second: float, burst: float) -> float:
        """Takes one from a bucket that holds `burst`; returns 0, or the seconds until there is one to take."""
        bucket = self._refilled(key, per_second, burst)
        if bucket.level < 1:
            return (1 - bucket.level) / per_second
        bucket.level -= 1
        return 0.0

    def wait(self, key: Hashable, per_second: float, burst: float) -> float:
        """The seconds until there is one to take, 0 if there is one. Takes none and creates no bucket."""
        if key not in self._buckets:
            return 0.0
        return max(0.0, 1 - self._refilled(key, per_second, burst).level) / per_second

    def _refilled(self, key: Hashable, per_second: float, burst: float) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.setdefault(key, _Bucket(burst, now))
        bucket.level = min(burst, bucket.level + (now - bucket.at) * per_second)
        bucket.at = now
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return bucket
