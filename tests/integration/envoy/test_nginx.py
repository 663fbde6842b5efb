"""Behind nginx, configured as in docs/operations.md, all interfaces work; by default its errors have a reason."""

import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from dalston.v1 import session_pb2, session_pb2_grpc, transcription_pb2, transcription_pb2_grpc
from websockets.sync.client import connect

from stack.ports import free_port
from stack.settings import ROOT
from tests.integration.envoy.backend import AUDIO_CHUNKS
from tests.integration.envoy.certificates import make_certificate
from tests.integration.envoy.conftest import Front

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
STREAM = "/v1/audio/transcriptions/stream"
SESSIONS = "/v1/realtime/sessions"

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed here")


@contextmanager
def nginx(folder: Path, servers: str, port: int) -> Iterator[None]:
    """Runs it as this user, with its files in the folder."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    own = f"pid {folder}/nginx.pid;\nerror_log {folder}/error.log;\ndaemon off;\nworker_processes 1;\n"
    text = f"{own}events {{}}\nhttp {{\naccess_log off;\n{paths}{servers}\n}}\n"
    (folder / "nginx.conf").write_text(text)
    assert NGINX is not None
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            assert process.poll() is None, (folder / "error.log").read_text()
            try:
                httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def documented(front: Front, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """The port of nginx, and its certificate."""
    folder = tmp_path_factory.mktemp("nginx")
    certificate = make_certificate(folder, 1)
    guide = (ROOT / "docs" / "operations.md").read_text()
    (text,) = re.findall(r"^```nginx\n(.*?)^```", guide, re.DOTALL | re.MULTILINE)
    port = free_port()
    for there, here in (
        ("127.0.0.1:8000", f"127.0.0.1:{front.port}"),
        ("listen 443 ", f"listen 127.0.0.1:{port} "),
        ("transcripts.example.com", "localhost"),
        ("/etc/ssl/transcripts.pem", str(certificate.chain)),
        ("/etc/ssl/transcripts.key", str(certificate.private_key)),
    ):
        assert there in text
        text = text.replace(there, here)
    with nginx(folder, text, port):
        yield port, certificate.chain


def test_rest_and_downloads_and_websockets(documented: tuple[int, Path], front: Front) -> None:
    port, chain = documented
    trusted = ssl.create_default_context(cafile=str(chain))
    with httpx.Client(base_url=f"https://localhost:{port}", verify=trusted, trust_env=False, timeout=10) as http:
        assert http.get(SESSIONS).json()["sessions"][0]["id"] == "sess_1"
        assert http.head(SESSIONS).status_code == 200
        assert http.get(f"{SESSIONS}/sess_1/audio").content == b"".join(AUDIO_CHUNKS)
        part = http.get(f"{SESSIONS}/sess_1/audio", headers={"range": "bytes=0-59999"})
        assert (part.status_code, len(part.content)) == (206, 60_000)
        assert http.get(f"{SESSIONS}/sess_2").json()["details"][0]["reason"] == "SESSION_NOT_FOUND"
    with connect(f"wss://localhost:{port}{STREAM}?language=en", ssl=trusted, proxy=None) as socket:
        assert socket.recv() == f"{STREAM}?language=en"
        socket.send(bytes(65536))
        assert socket.recv() == bytes(65536)


def test_grpc_in_both_directions_at_once(documented: tuple[int, Path]) -> None:
    port, chain = documented
    credentials = grpc.ssl_channel_credentials(chain.read_bytes())
    answers: list[str] = []

    def requests() -> Iterator[transcription_pb2.TranscribeRequest]:
        yield transcription_pb2.TranscribeRequest(config=transcription_pb2.TranscribeConfig())
        for count in range(1, 11):
            while len(answers) < count:
                time.sleep(0.001)
            yield transcription_pb2.TranscribeRequest(audio=bytes(3200))

    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        sessions = session_pb2_grpc.SessionServiceStub(channel)
        assert sessions.ListSessions(session_pb2.ListSessionsRequest(), timeout=10).sessions[0].id == "sess_1"
        for response in transcription_pb2_grpc.TranscriptionServiceStub(channel).Transcribe(requests(), timeout=20):
            answers.append(response.WhichOneof("response") or "")  # noqa: PERF401 - requests() waits for it to grow
    assert answers == ["session_begin", *["final"] * 10]


def test_with_the_defaults_of_nginx_the_error_has_a_reason(front: Front, tmp_path: Path) -> None:
    port = free_port()
    server = f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{front.port}; }} }}"
    with nginx(tmp_path, server, port):
        answer = httpx.get(f"http://127.0.0.1:{port}{SESSIONS}", headers={"host": "localhost"}, trust_env=False)
    assert answer.status_code == 426
    assert "proxy_http_version 1.1" in answer.json()["message"]
