"""Limits of streams that wait to begin."""

from contextlib import ExitStack
from uuid import uuid4

import pytest

from domain.errors import TooManySessions
from domain.tenancy import Caller, TenantLimits
from server.rpc.streams import Streams
from server.session.errors import NoCapacity


def caller(max_sessions: int | None = None, token: bytes | None = None) -> Caller:
    return Caller(uuid4(), TenantLimits(max_sessions=max_sessions), token_hash=token)


def test_waiting_streams_of_a_tenant_are_limited_like_its_sessions() -> None:
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


def test_waiting_streams_of_all_tenants_are_limited() -> None:
    streams = Streams(2)
    with streams.waiting(caller()), streams.waiting(caller()), pytest.raises(NoCapacity), streams.waiting(caller()):
        pass
    with streams.waiting(caller()):
        pass


def test_one_stream_at_a_time_may_wait_with_a_token() -> None:
    streams, first = Streams(9), caller(5, b"t")
    with streams.waiting(first):
        with pytest.raises(TooManySessions), streams.waiting(first):
            pass
        assert len(streams) == 1
        with streams.waiting(caller(5, b"u")):
            pass
    with streams.waiting(first):
        pass
