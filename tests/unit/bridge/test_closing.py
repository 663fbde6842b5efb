import grpc
import pytest
from dalston.v1.error_reason_pb2 import ErrorReason
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from bridge.protocols.native.protocol import NativeProtocol
from edge.closing import STATUS_DETAILS, CloseReason, close_reason_for, close_reason_of_failure, error_info

CONTRACT = {
    "message_too_big": 1009,
    "server_shutdown": 1012,
    "unauthenticated": 4001,
    "permission_denied": 4003,
    "invalid_parameters": 4400,
    "invalid_message": 4400,
    "invalid_audio": 4400,
    "invalid_model": 4400,
    "session_not_found": 4404,
    "idle_timeout": 4408,
    "session_timeout": 4408,
    "too_many_sessions": 4429,
    "no_capacity": 4503,
    "unavailable": 4503,
    "internal": 1011,
}


def failure(code: grpc.StatusCode, message: str = "", *details: ErrorInfo | BadRequest) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata(("x-envoy", "1"))
    if details:
        status = Status(code=code.value[0], message=message)
        for detail in details:
            packed = Any()
            packed.Pack(detail)
            status.details.append(packed)
        trailing.add(STATUS_DETAILS, status.SerializeToString())
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, message)


@pytest.mark.parametrize(("code", "close_code"), CONTRACT.items())
def test_each_code_of_the_contract_has_its_close_code(code: str, close_code: int):
    closing = NativeProtocol().close(close_reason_for(code.upper(), "why"))
    assert (closing.code, closing.reason) == (close_code, code)


def test_every_reason_of_the_proto_has_a_close_code():
    for name in ErrorReason.keys()[1:]:
        reason = name.removeprefix("ERROR_REASON_")
        assert NativeProtocol().close(close_reason_for(reason, "why")).reason == reason.lower()


def test_a_reason_of_a_newer_server_is_internal():
    assert close_reason_for("TEAPOT", "why") == CloseReason("INTERNAL", "why")


def test_the_reason_comes_from_the_details():
    info = ErrorInfo(reason="INVALID_MODEL", domain="dalston.v1", metadata={"parameter": "model"})
    error = failure(grpc.StatusCode.INVALID_ARGUMENT, "no model is named x", BadRequest(), info)
    assert close_reason_of_failure(error) == CloseReason("INVALID_MODEL", "no model is named x", {"parameter": "model"})


def test_details_of_another_domain_do_not_count():
    error = failure(grpc.StatusCode.UNAVAILABLE, "x", ErrorInfo(reason="INVALID_MODEL", domain="googleapis.com"))
    assert close_reason_of_failure(error).code == "unavailable"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (grpc.StatusCode.UNAVAILABLE, "unavailable"),
        (grpc.StatusCode.INTERNAL, "unavailable"),
        (grpc.StatusCode.CANCELLED, "unavailable"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "unavailable"),
        (grpc.StatusCode.UNIMPLEMENTED, "unavailable"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "no_capacity"),
        (grpc.StatusCode.UNAUTHENTICATED, "unauthenticated"),
        (grpc.StatusCode.PERMISSION_DENIED, "permission_denied"),
        (grpc.StatusCode.UNKNOWN, "internal"),
        (grpc.StatusCode.INVALID_ARGUMENT, "internal"),
    ],
)
def test_the_text_of_a_status_without_details_is_not_sent(status: grpc.StatusCode, code: str):
    close_reason = close_reason_of_failure(failure(status, "ipv4:10.0.0.1:50051: connection refused"))
    assert close_reason.code == code
    assert "10.0.0.1" not in close_reason.message
    assert close_reason.message


@given(st.binary(max_size=100))
def test_broken_details_are_none(details: bytes):
    info = error_info(grpc.aio.Metadata((STATUS_DETAILS, details)))
    assert info is None or info.domain == "dalston.v1"
