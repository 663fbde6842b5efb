"""A cache of grants, so that not every call is a lookup in Postgres."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, Generic, TypeVar

from domain.credentials import Secret
from persistence.errors import DatabaseUnavailable
from persistence.postgres.api_keys import Grant

T = TypeVar("T")

Find = Callable[[Secret], Awaitable[Grant | None]]
Clock = Callable[[], float]

SECONDS: Final = 5.0
"""How long a grant is cached, and so how long a revoked key or ended login may still be accepted."""
_MAX_CACHED: Final = 10_000
_MAX_LOOKUPS: Final = 1_000


class Grants:
    """Grants by secret. Keys and logins are cached, and so are invalid secrets: unknown, revoked or expired ones. A
    valid token is looked up every time.

    Invalid secrets have a cache of their own, so that a flood of them does not evict valid keys.
    """

    def __init__(self, find: Find, seconds: float = SECONDS, clock: Clock = time.monotonic) -> None:
        self._find = find
        self._clock = clock
        self._valid: _Cache[Grant] = _Cache(seconds, clock)
        self._invalid: _Cache[Grant | None] = _Cache(seconds, clock)
        self._lookups: dict[bytes, asyncio.Task[Grant | None]] = {}

    def is_cached(self, secret: Secret) -> bool:
        """Whether `of` answers from the cache."""
        return self._valid.has(secret) or self._invalid.has(secret)

    def was_valid(self, secret: Secret) -> bool:
        """Whether the secret is a key or login that was valid at its last lookup, however long ago."""
        return self._valid.had(secret)

    def forget(self, secret_hash: bytes) -> None:
        """Drops a valid secret, which the next call looks up again. Another server may have it for 5 s more."""
        self._valid.forget(secret_hash)

    async def of(self, secret: Secret) -> Grant | None:
        """The grant of a secret, also of a revoked or expired one; None if the secret is unknown.

        Raises:
            StorageUnavailable: it is not cached, and Postgres is unavailable or overloaded.
        """
        if self._valid.has(secret):
            return self._valid.of(secret)
        if self._invalid.has(secret):
            return self._invalid.of(secret)
        # However many calls send a secret at once, it is looked up once.
        lookup = self._lookups.get(secret.hash)
        if lookup is None:
            if len(self._lookups) >= _MAX_LOOKUPS:
                raise DatabaseUnavailable("too many keys wait for the database")
            lookup = asyncio.create_task(self._look_up(secret), name="lookup of a key")
            self._lookups[secret.hash] = lookup
            lookup.add_done_callback(lambda task: self._answered(secret, task))
        # The other calls need the result even if this one is cancelled.
        return await asyncio.shield(lookup)

    async def _look_up(self, secret: Secret) -> Grant | None:
        begun_at = self._clock()
        grant = await self._find(secret)
        if grant is None or grant.has_ended(datetime.now(UTC)):
            self._valid.forget(secret.hash)
            self._invalid.add(secret, begun_at, grant)
        elif secret.kind != "token":
            self._valid.add(secret, begun_at, grant)
        return grant

    def _answered(self, secret: Secret, task: asyncio.Task[Grant | None]) -> None:
        del self._lookups[secret.hash]
        if not task.cancelled():
            task.exception()  # raised where the lookup is awaited; all these calls may have been cancelled


class _Cache(Generic[T]):
    """The newest answers, at most 10 000. Each is valid for some seconds after its lookup began."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._seconds = seconds
        self._clock = clock
        self._answers: OrderedDict[bytes, tuple[float, T]] = OrderedDict()

    def has(self, secret: Secret) -> bool:
        answer = self._answers.get(secret.hash)
        return answer is not None and self._clock() - answer[0] < self._seconds

    def had(self, secret: Secret) -> bool:
        """Whether there is an answer, which may be out of date."""
        return secret.hash in self._answers

    def of(self, secret: Secret) -> T:
        return self._answers[secret.hash][1]

    def forget(self, secret_hash: bytes) -> None:
        self._answers.pop(secret_hash, None)

    def add(self, secret: Secret, begun_at: float, answer: T) -> None:
        self._answers[secret.hash] = (begun_at, answer)
        self._answers.move_to_end(secret.hash)
        if len(self._answers) > _MAX_CACHED:
            self._answers.popitem(last=False)
