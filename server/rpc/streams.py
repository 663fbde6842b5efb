"""Limits of streams that have not begun a session yet, by tenant and by token: Postgres does not count them."""

from collections.abc import Iterator
from contextlib import contextmanager

from domain.errors import TooManySessions
from domain.tenancy import REFUSALS, Caller
from server.rpc.places import Places
from server.session.errors import NoCapacity


class Streams:
    """Limits the waiting streams of this process: they wait for their config, for the session that they resume, or for
    their row.

    A tenant may have as many as sessions, so that one tenant leaves room for others. Running sessions are counted apart
    from them: a stream that resumes a session waits while the dead connection still occupies a place.
    """

    def __init__(self, most: int) -> None:
        """`most`: waiting streams of all tenants together."""
        self._most = most
        self._places = Places()
        self._tokens: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._places)

    @contextmanager
    def waiting(self, caller: Caller) -> Iterator[None]:
        """Counts a stream of the caller while the block runs.

        Raises:
            NoCapacity: the process has reached its limit.
            TooManySessions: the tenant has reached its limit, or another stream waits with the same token.
        """
        if len(self) >= self._most:
            raise NoCapacity("too many streams of this server wait to begin: try again in a while")
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
