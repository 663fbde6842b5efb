"""The process as clients see it: behind Envoy, in front of a scripted server."""

import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from dalston.v1 import file_pb2, file_pb2_grpc

from stack.envoy import Endpoints, envoy
from stack.ports import free_port
from tests.integration.uploads.front import ORIGIN, Front, front_of
from tests.integration.uploads.scripted_server import KEY

PATH = "/v1/audio/transcriptions"
CALL_SECONDS = 1
HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with front_of(tmp_path_factory.mktemp("front"), call_seconds=CALL_SECONDS) as front:
        yield front


@pytest.fixture
def http(front: Front) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=front.url, headers=HEADERS, timeout=30, trust_env=False) as client:
        yield client


def test_a_file_and_its_answer_pass(http: httpx.Client) -> None:
    response = http.post(PATH, data={"response_format": "verbose_json", "temperature": "0"}, files={"file": b"RIFF"})
    assert response.status_code == 200, response.text
    assert response.json()["text"] == "Hello there. Good bye!"
    assert response.headers["dalston-ignored"] == "temperature"
    assert response.headers["cache-control"] == "no-store"


def test_a_large_file_passes_whole(front: Front, http: httpx.Client) -> None:
    file = bytes(range(256)) * 80_000
    assert http.post(PATH, files={"file": file}).status_code == 200
    assert bytes(front.files.calls[-1].data) == file
    assert front.files.calls[-1].metadata["x-forwarded-for"] == "127.0.0.1"


def test_a_file_may_take_longer_to_arrive_than_other_requests(front: Front, http: httpx.Client) -> None:
    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nRIFF'
        for _ in range(5):
            time.sleep(CALL_SECONDS / 2)
            yield bytes(1000)
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert http.post(PATH, headers=headers, content=body()).status_code == 200
    assert len(front.files.calls[-1].data) == 5004


def test_an_answer_may_take_longer_than_other_calls(front: Front, http: httpx.Client) -> None:
    timer = threading.Timer(2 * CALL_SECONDS, front.let_go)
    timer.start()
    assert http.post(PATH, files={"file": b"slow"}).json()["text"] == "Hello there. Good bye!"
    timer.join()


def test_events_arrive_one_by_one(front: Front, http: httpx.Client) -> None:
    front.hold()
    with http.stream("POST", PATH, data={"stream": "true"}, files={"file": b"slow"}) as response:
        assert response.headers["content-type"] == "text/event-stream"
        front.let_go()
        events = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
    assert [event["type"] for event in events] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]


def test_a_large_file_with_a_wrong_key_is_answered_and_not_cut(front: Front) -> None:
    with httpx.Client(base_url=front.url, headers={"Authorization": "Bearer wrong"}, trust_env=False) as client:
        for size in (10, 30_000_000):
            response = client.post(PATH, files={"file": bytes(size)})
            assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")


def test_models_pass(http: httpx.Client) -> None:
    assert http.get("/v1/models").json()["data"][0]["id"] == "accurate"
    assert http.get("/v1/models/whisper-1").json()["id"] == "whisper-1"
    assert http.post("/v1/audio/translations", files={"file": b"RIFF"}).status_code == 400
    response = http.post("/v1/models", content=bytes(100_000))
    assert (response.status_code, response.json()["error"]["code"]) == (413, "invalid_value")


def test_the_websocket_path_beside_it_is_the_bridge(http: httpx.Client) -> None:
    assert http.get(f"{PATH}/stream").status_code == 503  # there is no bridge here


def test_pages_may_send_the_headers_of_the_client_library(front: Front) -> None:
    asked = "authorization,content-type,x-stainless-os,x-stainless-retry-count,openai-organization"
    headers = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": asked,
    }
    response = httpx.options(f"{front.url}{PATH}", headers=headers)
    assert response.status_code == 200
    allowed = {each.strip() for each in response.headers["access-control-allow-headers"].split(",")}
    assert set(asked.split(",")) <= allowed


def test_a_file_passes_by_grpc_with_its_job_first(front: Front) -> None:
    sent: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with grpc.insecure_channel(front.url.removeprefix("http://")) as channel:
        metadata = (("authorization", f"Bearer {KEY}"),)
        call = file_pb2_grpc.FileServiceStub(channel).TranscribeFile(
            iter(sent.get, None), metadata=metadata, timeout=60
        )
        for _ in range(5):
            sent.put(file_pb2.TranscribeFileRequest(data=bytes(512 * 1024)))
            time.sleep(CALL_SECONDS / 2)
        sent.put(file_pb2.TranscribeFileRequest(config=file_pb2.FileConfig(model="fast")))
        sent.put(None)
        answers = list(call)
    assert answers[0].job.status == "queued"
    assert answers[-1].job.status == "completed"
    assert len(front.files.calls[-1].data) == 5 * 512 * 1024


def test_a_client_that_vanishes_while_it_waits_is_noticed_by_tcp(front: Front) -> None:
    """The kernel has a keepalive timer (2) for the connection that Envoy has accepted."""
    host, port = front.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        own = client.getsockname()[1]
        deadline = time.monotonic() + 20
        while True:
            rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            pairs = {(int(row[1][9:], 16), int(row[2][9:], 16)): row[5][:2] for row in rows}
            if pairs.get((int(port), own)) == "02":
                return
            assert time.monotonic() < deadline, pairs.get((int(port), own))
            time.sleep(0.1)


def test_errors_of_envoy_have_the_shape_of_openai(tmp_path: Path) -> None:
    """No process is behind this one, and it takes few requests."""
    endpoints = Endpoints(["127.0.0.1"], free_port(), free_port(), free_port(), free_port(), requests_each=5)
    with envoy(tmp_path, endpoints):
        url = f"http://127.0.0.1:{endpoints.port}"
        answers: dict[int, httpx.Response] = {}
        with ThreadPoolExecutor(20) as pool:
            # On a busy machine twenty requests may take so long that the limit allows them all.
            while not answers.keys() >= {503, 429}:
                found = pool.map(lambda _: httpx.get(f"{url}/v1/models", timeout=60), range(20))
                answers |= {answer.status_code: answer for answer in found}
    unavailable, limited = answers[503], answers[429]
    assert unavailable.json()["error"]["code"] == "server_overloaded"
    assert limited.json() == {
        "error": {
            "message": "too many requests; try again shortly",
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limit_exceeded",
        }
    }
    assert limited.headers["retry-after"] == "1"
