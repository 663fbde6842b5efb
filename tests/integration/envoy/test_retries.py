"""Which calls are retried on another server, and which are not."""

import grpc
import httpx
import pytest
from dalston.v1 import session_pb2, session_pb2_grpc

from tests.integration.envoy.conftest import Front


def asked(front: Front, session_id: str) -> int:
    return sum(getattr(request, "session_id", "") == session_id for request in front.sessions.requests)


def test_no_capacity_is_retried_elsewhere_and_a_tenant_limit_is_not(channel: grpc.Channel, front: Front) -> None:
    stub = session_pb2_grpc.SessionServiceStub(channel)
    for session_id, tries in (("sess_full", 3), ("sess_limit", 1)):
        before = asked(front, session_id)
        with pytest.raises(grpc.RpcError) as refused:
            stub.GetSession(session_pb2.GetSessionRequest(session_id=session_id), timeout=10)
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert asked(front, session_id) - before == tries


def test_a_call_to_a_stopping_server_is_retried_elsewhere(channel: grpc.Channel, front: Front) -> None:
    before = asked(front, "sess_stopping")
    with pytest.raises(grpc.RpcError) as refused:
        session_pb2_grpc.SessionServiceStub(channel).GetSession(
            session_pb2.GetSessionRequest(session_id="sess_stopping"), timeout=10
        )
    assert refused.value.code() == grpc.StatusCode.CANCELLED
    assert asked(front, "sess_stopping") - before == 3


def test_rest_is_retried_and_the_header_is_removed(http: httpx.Client, front: Front) -> None:
    for session_id, tries in (("sess_full", 3), ("sess_limit", 1)):
        before = asked(front, session_id)
        answer = http.get(f"/v1/realtime/sessions/{session_id}")
        assert answer.status_code == 429
        assert "dalston-try-elsewhere" not in answer.headers
        assert asked(front, session_id) - before == tries
