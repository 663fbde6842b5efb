"""How many streams may wait to begin."""

from contextlib import ExitStack
from uuid import uuid4

import pytest

from domain.errors import TooManySessions
from domain.tenancy import Caller, TenantLimits
from server.rpc.streams import Streams
from server.session.errors import NoCapacity


def caller(max_sessions: int | None = None, token: bytes | None = None) -> Caller:
    return Caller(uuid4(), TenantLimits(max_sessions=max_sessions), token_hash=token)


def test_a_tenant_has_no_more_than_it_may_have_sessions_and_the_others_have_theirs() -> None:
    streams, greedy, modest = Streams(9), caller(2), caller(2)
    with ExitStack() as open_streams:
        for _ in range(2):
            open_streams.enter_context(streams.waiting(greedy))
        with pytest.raises(TooManySessions, match="is 2"), streams.waiting(greedy):
            pass
        with streams.waiting(modest):
            assert len(streams) == 3
    assert len(streams) == 0
    with streams.waiting(greedy):
        pass


def test_all_tenants_together_have_no_more_than_so_many() -> None:
    streams = Streams(2)
    with streams.waiting(caller()), streams.waiting(caller()), pytest.raises(NoCapacity), streams.waiting(caller()):
        pass
    with streams.waiting(caller()):
        pass


def test_a_token_is_shown_by_one_stream_at_a_time() -> None:
    streams, first = Streams(9), caller(5, b"t")
    with streams.waiting(first):
        with pytest.raises(TooManySessions), streams.waiting(first):
            pass
        assert len(streams) == 1
        with streams.waiting(caller(5, b"u")):
            pass
    with streams.waiting(first):
        pass
