"""What secrets stand for, remembered for seconds, so that Postgres is not asked for every call."""

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
"""How long a key that was revoked may still be taken."""
_MOST: Final = 10_000
_MOST_ASKED: Final = 1_000


class Grants:
    """Grants by secret. Remembered are keys, and secrets that are good for nothing: unknown, revoked or expired ones. A
    token that is good is asked for every time.

    Those that are good for nothing have a memory of their own, so that a flood of them does not push out the others.
    """

    def __init__(self, find: Find, seconds: float = SECONDS, clock: Clock = time.monotonic) -> None:
        self._find = find
        self._clock = clock
        self._known: _Memory[Grant] = _Memory(seconds, clock)
        self._useless: _Memory[Grant | None] = _Memory(seconds, clock)
        self._asking: dict[bytes, asyncio.Task[Grant | None]] = {}

    def remembers(self, secret: Secret) -> bool:
        """Whether `of` answers without Postgres."""
        return self._known.has(secret) or self._useless.has(secret)

    def was_good(self, secret: Secret) -> bool:
        """Whether the secret is a key that was good when Postgres was asked last, however long ago."""
        return self._known.had(secret)

    async def of(self, secret: Secret) -> Grant | None:
        """What the secret stands for, revoked and expired ones included; None for nothing.

        Raises:
            StorageUnavailable: it is not remembered, and Postgres is away or behind.
        """
        if self._known.has(secret):
            return self._known.of(secret)
        if self._useless.has(secret):
            return self._useless.of(secret)
        # However many calls show a secret at once, Postgres is asked once.
        asking = self._asking.get(secret.hash)
        if asking is None:
            if len(self._asking) >= _MOST_ASKED:
                raise DatabaseUnavailable("too many keys wait for the database")
            asking = asyncio.create_task(self._ask(secret), name="who is calling")
            self._asking[secret.hash] = asking
            asking.add_done_callback(lambda task: self._answered(secret, task))
        # A caller that goes away must not take the answer from the others.
        return await asyncio.shield(asking)

    async def _ask(self, secret: Secret) -> Grant | None:
        asked_at = self._clock()
        grant = await self._find(secret)
        if grant is None or grant.has_ended(datetime.now(UTC)):
            self._known.forget(secret)
            self._useless.add(secret, asked_at, grant)
        elif secret.kind == "key":
            self._known.add(secret, asked_at, grant)
        return grant

    def _answered(self, secret: Secret, task: asyncio.Task[Grant | None]) -> None:
        del self._asking[secret.hash]
        if not task.cancelled():
            task.exception()  # raised where it is awaited; all who did may have gone


class _Memory(Generic[T]):
    """At most so many answers, the newest; each counts for some seconds after it was asked for."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._seconds = seconds
        self._clock = clock
        self._answers: OrderedDict[bytes, tuple[float, T]] = OrderedDict()

    def has(self, secret: Secret) -> bool:
        answer = self._answers.get(secret.hash)
        return answer is not None and self._clock() - answer[0] < self._seconds

    def had(self, secret: Secret) -> bool:
        """Whether there is an answer, which may not count any more."""
        return secret.hash in self._answers

    def of(self, secret: Secret) -> T:
        return self._answers[secret.hash][1]

    def forget(self, secret: Secret) -> None:
        self._answers.pop(secret.hash, None)

    def add(self, secret: Secret, asked_at: float, answer: T) -> None:
        self._answers[secret.hash] = (asked_at, answer)
        self._answers.move_to_end(secret.hash)
        if len(self._answers) > _MOST:
            self._answers.popitem(last=False)
