"""Streams that have not begun a session yet, by tenant and by token: they are in no count of Postgres."""

from collections.abc import Iterator
from contextlib import contextmanager

from domain.errors import TooManySessions
from domain.tenancy import REFUSALS, Caller
from server.rpc.places import Places
from server.session.errors import NoCapacity


class Streams:
    """Bounds the streams of this process that wait: for their config, for the session that they resume, for their row.

    A tenant has no more of them than it may have sessions, so that those of one leave room for those of others. They
    are counted apart from the sessions that run: one that resumes waits while the dead connection still has its own.
    """

    def __init__(self, most: int) -> None:
        """`most`: of all tenants together."""
        self._most = most
        self._places = Places()
        self._tokens: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._places)

    @contextmanager
    def waiting(self, caller: Caller) -> Iterator[None]:
        """Counts a stream of the caller while the block runs.

        Raises:
            NoCapacity: this process has as many as it can.
            TooManySessions: the tenant has as many as it may, or another stream waits with the same token.
        """
        if len(self) >= self._most:
            raise NoCapacity("too many streams of this server have not begun: try again in a while")
        limit = caller.limits.max_sessions
        if limit is not None and self._places.of(caller.tenant_id) >= limit:
            raise _refused(limit)
        token = caller.token_hash
        if token is not None and token in self._tokens:
            raise _refused(1)
        with self._places.taken(caller.tenant_id):
            if token is not None:
                self._tokens.add(token)
            try:
                yield
            finally:
                if token is not None:
                    self._tokens.remove(token)


def _refused(limit: int) -> TooManySessions:
    REFUSALS.labels("streams").inc()
    return TooManySessions(limit)
