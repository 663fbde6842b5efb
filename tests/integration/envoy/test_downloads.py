"""A download through Envoy is an HTTP response in which a player can seek, and whose end is never silent."""

import re
import subprocess

import grpc
import httpx
import pytest
from dalston.v1 import session_pb2, session_pb2_grpc

from tests.integration.envoy.backend import AUDIO_BYTES, AUDIO_CHUNKS, AUDIO_TAG
from tests.integration.envoy.conftest import Front

AUDIO = "/v1/realtime/sessions/sess_1/audio"
BROKEN = "/v1/realtime/sessions/sess_breaks/audio"


def curl(front: Front, path: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    command = ["curl", "--silent", "--show-error", "--max-time", "5", *options, f"{front.http}{path}"]
    return subprocess.run(command, capture_output=True, check=False, timeout=10)


def test_a_whole_file_has_its_length(http: httpx.Client) -> None:
    answer = http.get(AUDIO)
    assert answer.status_code == 200
    assert answer.headers["content-length"] == str(AUDIO_BYTES)
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"] == AUDIO_TAG
    assert "transfer-encoding" not in answer.headers
    assert "x-content-length" not in answer.headers
    assert answer.content == b"".join(AUDIO_CHUNKS)


def test_a_range_is_a_206(http: httpx.Client) -> None:
    answer = http.get(AUDIO, headers={"range": "bytes=0-59999"})
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes 0-59999/{AUDIO_BYTES}"
    assert answer.headers["content-length"] == "60000"
    assert answer.content == AUDIO_CHUNKS[0]


def test_a_range_outside_the_file_is_a_416_with_its_size(http: httpx.Client) -> None:
    answer = http.get(AUDIO, headers={"range": "bytes=9000000-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{AUDIO_BYTES}"
    assert answer.json()["message"] == "no such bytes"


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_file_that_the_client_has_is_a_304_without_a_body(front: Front, protocol: str, method: str) -> None:
    options = ("--include", *(("--head",) if method == "HEAD" else ()), "--header", f"if-none-match: {AUDIO_TAG}")
    # A second request proves that the connection is still valid HTTP. Some versions of curl cannot reuse HTTP/2
    # connections at all.
    again = [f"{front.http}{AUDIO}"] if protocol == "--http1.1" else []
    answer = curl(front, AUDIO, protocol, *options, *again)
    assert answer.returncode == 0, answer.stderr
    heads = answer.stdout.split(b"\r\n\r\n")
    assert heads.pop() == b""
    assert len(heads) == 1 + len(again)
    for head in heads:
        assert b" 304" in head.splitlines()[0]
        assert f"etag: {AUDIO_TAG}".encode() in head
        assert not re.search(
            rb"(?i)^(content-length|transfer-encoding|content-type|x-not-modified):", head, re.MULTILINE
        )


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2-prior-knowledge"])
def test_head_returns_the_headers_without_a_body(front: Front, protocol: str) -> None:
    answer = curl(front, AUDIO, "--head", protocol)
    assert answer.returncode == 0, answer.stderr
    assert b" 200" in answer.stdout.splitlines()[0]
    assert f"content-length: {AUDIO_BYTES}".encode() in answer.stdout
    assert b"content-type: audio/wav" in answer.stdout
    assert front.sessions.metadata[-1]["x-head"] == "1"


def test_a_client_cannot_request_head_by_a_header(http: httpx.Client, front: Front) -> None:
    assert http.get(AUDIO, headers={"x-head": "1"}).content
    assert "x-head" not in front.sessions.metadata[-1]


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2-prior-knowledge"])
def test_an_aborted_download_is_an_error_at_once(front: Front, protocol: str) -> None:
    answer = curl(front, BROKEN, protocol)
    assert answer.returncode in (18, 92), answer.stderr
    assert 0 < len(answer.stdout) < AUDIO_BYTES


def test_a_grpc_client_gets_the_length_as_metadata_only(channel: grpc.Channel) -> None:
    stub = session_pb2_grpc.SessionServiceStub(channel)
    call = stub.GetAudio(session_pb2.GetAudioRequest(session_id="sess_1"), timeout=10)
    assert dict(call.initial_metadata())["x-content-length"] == str(AUDIO_BYTES)
    assert b"".join(part.data for part in call) == b"".join(AUDIO_CHUNKS)
