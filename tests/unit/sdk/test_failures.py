"""Conversion of statuses to errors."""

import grpc
import pytest
from dalston import DalstonError, DeadlineExceeded, RateLimited, ServerError, TooManySessions, Unavailable, errors
from dalston.calls import retry_pause
from dalston.failures import REASONS, error_of, error_of_reason
from dalston.v1.error_reason_pb2 import ErrorReason
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status


def failure(
    code: grpc.StatusCode, reason: str = "", domain: str = "dalston.v1", **metadata: str
) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata()
    if reason:
        detail = AnyMessage()
        detail.Pack(ErrorInfo(reason=reason, domain=domain, metadata=metadata))
        trailing.add("grpc-status-details-bin", Status(code=code.value[0], details=[detail]).SerializeToString())
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, "in words", None)


def test_every_error_reason_has_an_exception() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.DESCRIPTOR.values_by_name} - {"UNSPECIFIED"}
    assert set(REASONS) == names


def test_reason_takes_precedence_over_status() -> None:
    error = error_of(failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry_after_seconds="2.5"))
    assert isinstance(error, RateLimited)
    assert (error.message, error.reason, error.retry_after) == ("in words", "RATE_LIMITED", 2.5)
    assert isinstance(error_of(failure(grpc.StatusCode.INTERNAL, "INTERNAL")), ServerError)


def test_running_job_of_a_session_is_named() -> None:
    error = error_of(failure(grpc.StatusCode.ALREADY_EXISTS, "ENHANCEMENT_RUNNING", job_id="job_1"))
    assert isinstance(error, errors.JobRunning)
    assert error.job_id == "job_1"
    assert errors.JobRunning("another").job_id is None


@pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL", "CANCELLED"])
def test_status_without_reason_is_a_lost_connection(code: str) -> None:
    assert type(error_of(failure(grpc.StatusCode[code]))) is Unavailable
    assert type(error_of(failure(grpc.StatusCode[code], "INTERNAL", "another.v1"))) is Unavailable


def test_unknown_reason_is_mapped_by_status() -> None:
    error = error_of(failure(grpc.StatusCode.PERMISSION_DENIED, "WRONG_MOON"))
    assert isinstance(error, errors.PermissionDenied)
    assert error.reason == "WRONG_MOON"


def test_every_status_maps_to_a_dalston_error() -> None:
    for code in grpc.StatusCode:
        assert isinstance(error_of(failure(code)), DalstonError)
    assert isinstance(error_of(failure(grpc.StatusCode.DEADLINE_EXCEEDED)), DeadlineExceeded)


def test_retryable_errors_have_a_pause() -> None:
    limited = error_of_reason("RATE_LIMITED", "", {"retry_after_seconds": "7"})
    pause = retry_pause(limited, 1)
    assert pause is not None
    assert pause >= 7
    assert retry_pause(error_of_reason("UNAVAILABLE", "", {}), 1) is not None
    lasting = ("TOO_MANY_SESSIONS", "TOO_MANY_JOBS", "SESSION_NOT_FOUND", "INTERNAL", "INVALID_PARAMETERS")
    for reason in (*lasting, "SESSION_ACTIVE", "ENHANCEMENT_RUNNING", "JOB_ACTIVE"):
        assert retry_pause(error_of_reason(reason, "", {}), 1) is None
    assert TooManySessions("full").retry_after is None
    assert TooManySessions("full", metadata={"retry_after_seconds": "soon"}).retry_after is None


def error_for(code: grpc.StatusCode, details: str) -> DalstonError:
    return error_of(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details, None))


def test_unimplemented_call_of_an_older_service_is_unsupported() -> None:
    error = error_for(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    assert isinstance(error, errors.Unsupported)
    assert (
        error.message
        == "the service does not support this request; it may be older than this client (Method not found!)"
    )
    assert error.reason == ""
    other_service = error_for(grpc.StatusCode.UNIMPLEMENTED, "Received http2 header with status: 404")
    assert other_service.message == "there is no Dalston service at this address; the response was HTTP status 404"
    explicit = error_of(failure(grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED"))
    assert (explicit.message, explicit.reason) == ("in words", "UNIMPLEMENTED")


@pytest.mark.parametrize(
    ("details", "plain"),
    [
        (
            (
                "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to "
                "remote host: Connection refused"
            ),
            "127.0.0.1:1: Connection refused",
        ),
        (
            (
                "failed to connect to all addresses; last error: UNKNOWN: ipv6:%5B::1%5D:1: Failed to connect to "
                "remote host: Connection refused"
            ),
            "[::1]:1: Connection refused",
        ),
        (
            (
                "errors resolving a.invalid:80: [field:hostname lookup error:address lookup failed for a.invalid:80: "
                "Domain name not found]"
            ),
            "a.invalid:80: Domain name not found",
        ),
        (
            (
                "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:443: Tls handshake failed "
                "(TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:"
                "CERTIFICATE_VERIFY_FAILED: self signed certificate: OK"
            ),
            "10.0.0.1:443: TLS failed: certificate verify failed: self signed certificate",
        ),
        (
            (
                "failed to connect to all addresses; last error: UNIMPLEMENTED: ipv4:127.0.0.1:80: Failed parsing "
                "HTTP/2 (Expected SETTINGS frame as the first frame, got frame type 80) (Trying to connect an http1.x "
                "server (HTTP status 404))"
            ),
            "127.0.0.1:80: it does not speak gRPC (HTTP status 404)",
        ),
        ("an unknown message", "an unknown message"),
    ],
)
def test_connection_error_is_described_in_plain_words(details: str, plain: str) -> None:
    error = error_for(grpc.StatusCode.UNAVAILABLE, details)
    assert isinstance(error, Unavailable)
    assert error.message == f"the service cannot be reached: {plain}"
