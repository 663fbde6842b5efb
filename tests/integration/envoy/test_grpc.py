"""gRPC clients use the service through Envoy as they would directly."""

import base64
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from dalston.v1 import session_pb2, session_pb2_grpc, transcription_pb2, transcription_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc
from grpc_status import rpc_status

from stack.envoy import Endpoints, envoy
from stack.ports import free_port
from tests.integration.envoy.backend import backend
from tests.integration.envoy.conftest import Front


def test_a_call_and_its_rich_error_pass(channel: grpc.Channel) -> None:
    stub = session_pb2_grpc.SessionServiceStub(channel)
    assert stub.ListSessions(session_pb2.ListSessionsRequest(), timeout=5).pagination.total == 1
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetSession(session_pb2.GetSessionRequest(session_id="sess_2"), timeout=5)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    status = rpc_status.from_call(caught.value)
    assert status is not None
    assert len(status.details) == 1


def test_metadata_up_to_the_limit_is_accepted_and_cookies_are_removed(channel: grpc.Channel, front: Front) -> None:
    stub = session_pb2_grpc.SessionServiceStub(channel)
    for size in (1_000, 10_000, 14_000):
        metadata = (("x-any", "x" * size), ("cookie", "a" * 30_000))
        stub.ListSessions(session_pb2.ListSessionsRequest(), timeout=5, metadata=metadata)
        assert front.sessions.metadata[-1]["x-any"] == "x" * size
        assert "cookie" not in front.sessions.metadata[-1]


def test_metadata_beyond_the_limit_is_refused_with_a_message(channel: grpc.Channel) -> None:
    stub = session_pb2_grpc.SessionServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ListSessions(session_pb2.ListSessionsRequest(), timeout=5, metadata=(("x-any", "x" * 20_000),))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "the request's headers are larger than 16 KiB"


def test_reflection_without_a_key_is_limited_and_calls_continue(tmp_path: Path) -> None:
    endpoints = Endpoints(["127.0.0.1"], free_port(), free_port(), free_port())
    with (
        backend(endpoints.server_port),
        envoy(tmp_path, endpoints),
        grpc.insecure_channel(f"127.0.0.1:{endpoints.port}") as own,
    ):
        grpc.channel_ready_future(own).result(10)
        stub = session_pb2_grpc.SessionServiceStub(own)
        assert stub.ListSessions(session_pb2.ListSessionsRequest(), timeout=10, wait_for_ready=True).sessions
        reflect = reflection_pb2_grpc.ServerReflectionStub(own).ServerReflectionInfo
        codes = Counter(ended_with(reflect(iter(()), timeout=10)) for _ in range(200))
        assert codes[grpc.StatusCode.OK] >= 40
        assert codes[grpc.StatusCode.RESOURCE_EXHAUSTED] > 50
        assert stub.ListSessions(session_pb2.ListSessionsRequest(), timeout=10).sessions


def ended_with(call: Any) -> grpc.StatusCode:
    """The status of a stream without messages."""
    with suppress(grpc.RpcError):
        list(call)
    return grpc.StatusCode(call.code())


@pytest.mark.parametrize("method", ["ListSessions", "GetAudio"])
def test_a_request_larger_than_any_of_the_contract_is_refused(channel: grpc.Channel, method: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        next(channel.unary_stream(f"/dalston.v1.SessionService/{method}")(bytes(100_000), timeout=5))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "the request is larger than 16 KiB"


def test_a_bidirectional_stream_is_not_buffered(channel: grpc.Channel) -> None:
    """Each message is sent after the response to the one before."""
    answers: list[str] = []

    def requests() -> Iterator[transcription_pb2.TranscribeRequest]:
        yield transcription_pb2.TranscribeRequest(config=transcription_pb2.TranscribeConfig())
        for count in range(1, 21):
            while len(answers) < count:
                pass
            yield transcription_pb2.TranscribeRequest(audio=bytes(3200))

    for response in transcription_pb2_grpc.TranscriptionServiceStub(channel).Transcribe(requests(), timeout=10):
        answers.append(response.WhichOneof("response") or "")  # noqa: PERF401 - requests() waits for it to grow
    assert answers == ["session_begin", *["final"] * 20]


def test_health_is_answered(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    assert stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status == health_pb2.HealthCheckResponse.SERVING


def test_an_unknown_method_is_unimplemented(channel: grpc.Channel) -> None:
    call = channel.unary_unary("/dalston.v1.SessionService/Nothing")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=5)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    other = channel.unary_unary("/elsewhere.Service/Nothing")
    with pytest.raises(grpc.RpcError) as caught:
        other(b"", timeout=5)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("protocol", ["grpc", "grpcweb"])
def test_a_client_without_stubs_finds_the_service_by_reflection(front: Front, protocol: str) -> None:
    buf = Path(sys.executable).parent / "buf"
    url = f"{front.http}/dalston.v1.SessionService/ListSessions"
    flags = ["--http2-prior-knowledge", "--reflect-protocol", "grpc-v1alpha"]
    command = [buf, "curl", *flags, "--protocol", protocol, "-d", "{}", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sessions"][0]["id"] == "sess_1"


def test_grpc_web_from_a_browser_over_http_1(http: httpx.Client) -> None:
    frame = base64.b64encode(bytes(5))
    headers = {"content-type": "application/grpc-web-text", "accept": "application/grpc-web-text"}
    answer = http.post("/dalston.v1.SessionService/ListSessions", content=frame, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/grpc-web-text")
    assert b"sess_1" in base64.b64decode(answer.content[: len(answer.content) // 4 * 4])
