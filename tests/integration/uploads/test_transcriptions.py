"""Requests of clients against the process and a scripted server."""

import asyncio
import base64
import json
import time
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from tests.integration.uploads.conftest import WAV, Service, Start
from tests.integration.uploads.scripted_server import KEY
from uploads.transcription import MESSAGE_BYTES

TEXT = "Hello there. Good bye!"
PATH = "/v1/audio/transcriptions"
FILE_PART = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nRIFF'


async def until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def send_part(service: Service, content: bytes, length: int, key: str = KEY) -> tuple[Any, Any]:
    """Sends the head of a request and a part of its body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        + f"Authorization: Bearer {key}\r\nContent-Length: {length}\r\n\r\n".encode()
        + content
    )
    await writer.drain()
    return reader, writer


async def status_of(reader: Any) -> bytes:
    async with asyncio.timeout(20):
        line: bytes = await reader.readline()
    return line.split()[1]


async def test_a_file_is_relayed_and_its_text_returned(service: Service) -> None:
    response = await service.post(language="en", prompt="Dalston", temperature="0")
    assert response.status_code == 200, response.text
    assert response.json()["text"] == TEXT
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert response.headers["dalston-ignored"] == "temperature"
    assert response.headers["location"].startswith("/v1/jobs/job_")
    (call,) = service.files.calls
    assert bytes(call.data) == WAV
    assert call.metadata["authorization"] == f"Bearer {KEY}"
    assert call.metadata["x-forwarded-for"] == "127.0.0.1"
    assert call.config is not None
    assert (call.config.model, call.config.language, list(call.config.vocabulary)) == ("accurate", "en", ["Dalston"])
    assert (call.config.file_name, call.config.store) == ("a.wav", False)


@pytest.mark.parametrize(
    ("response_format", "content_type"),
    [
        ("text", "text/plain"),
        ("srt", "application/x-subrip"),
        ("vtt", "text/vtt"),
        ("verbose_json", "application/json"),
    ],
)
async def test_every_format(service: Service, response_format: str, content_type: str) -> None:
    response = await service.post(response_format=response_format)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(content_type)
    assert "Hello there." in response.text
    if response_format == "verbose_json":
        assert len(response.json()["segments"]) == 2
        assert response.json()["duration"] == 3.5


async def test_a_large_file_is_relayed_in_messages_of_the_contract(service: Service) -> None:
    file = bytes(range(251)) * 40_000
    assert (await service.post(file)).status_code == 200
    (call,) = service.files.calls
    assert bytes(call.data) == file
    assert set(call.messages[:-1]) == {MESSAGE_BYTES}
    assert call.messages[-1] <= MESSAGE_BYTES


async def test_a_slow_sender_does_not_make_the_call_idle(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has arrived is sent after a while, however little it is."""
    monkeypatch.setattr("uploads.transcription.HELD_SECONDS", 0.0)
    _, writer = await send_part(service, FILE_PART, 9_000_000)
    await until(lambda: service.files.calls and service.files.calls[0].data.startswith(b"RI"))
    writer.close()


async def test_the_file_may_be_base64_in_json(service: Service) -> None:
    body = {"model": "gpt-4o-transcribe", "input_audio": {"data": base64.b64encode(WAV).decode(), "format": "wav"}}
    response = await service.http.post(PATH, json=body)
    assert response.json()["text"] == TEXT
    assert bytes(service.files.calls[0].data) == WAV


@pytest.mark.parametrize(
    ("fields", "file", "expected"),
    [
        ({"model": "gpt-5"}, WAV, (404, "model_not_found", "model")),
        ({"language": "klingon"}, WAV, (400, "invalid_value", "language")),
        ({"response_format": "diarized_json"}, WAV, (400, "unsupported_value", "response_format")),
        ({"diarize": "true"}, WAV, (400, "unsupported_value", "diarize")),
        ({"stream": "true", "response_format": "srt"}, WAV, (400, "unsupported_value", "stream")),
        ({}, b"not audio", (400, "invalid_value", "file")),
        ({}, b"broken", (400, "invalid_value", "file")),
        ({}, b"", (400, "invalid_value", "file")),
        ({}, b"many", (429, "rate_limit_exceeded", None)),
        ({}, b"lost", (503, "server_overloaded", None)),
        ({}, bytes(40_000_000), (413, "file_too_large", "file")),
    ],
)
async def test_errors_have_the_shape_of_openai(
    service: Service, fields: dict[str, str], file: bytes, expected: tuple[int, str, str | None]
) -> None:
    response = await service.post(file, **fields)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == expected
    assert error["message"]
    assert (response.headers["x-should-retry"] == "true") is (expected[0] in (429, 503))
    assert ("retry-after" in response.headers) is (expected[0] in (429, 503))


@pytest.mark.parametrize("path", [PATH, "/v1/models", "/v1/models/fast"])
@pytest.mark.parametrize("key", [None, "Bearer wrong", "Bearer schl\xfcssel"])
async def test_a_wrong_key_is_a_401(service: Service, path: str, key: str | None) -> None:
    async with httpx.AsyncClient(base_url=service.http.base_url, trust_env=False) as client:
        headers = {"Authorization": key.encode("latin-1")} if key else {}
        more: dict[str, Any] = {"files": {"file": bytes(3_000_000)}} if path == PATH else {}
        response = await client.request("POST" if path == PATH else "GET", path, headers=headers, **more)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert response.headers["www-authenticate"] == "Bearer"


async def test_a_key_is_refused_before_the_file_has_arrived(service: Service) -> None:
    """A sender without a key keeps no place."""
    reader, writer = await send_part(service, b"--b\r\n", 100_000_000, "wrong")
    assert await status_of(reader) == b"401"
    writer.close()


async def test_a_request_without_a_file_is_refused(service: Service) -> None:
    response = await service.http.post(PATH, files={"model": (None, "whisper-1")})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "file")
    assert all(call.job is None for call in service.files.calls)


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"Content-Type": "text/plain"}, b"x", 400),
        ({"Content-Type": "multipart/form-data"}, b"x", 400),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, b"x", 400),
        ({}, b"", 400),
        ({"Content-Type": "application/json"}, b"{", 400),
    ],
)
async def test_other_bodies_are_refused(service: Service, headers: dict[str, str], content: bytes, status: int) -> None:
    response = await service.http.post(PATH, headers=headers, content=content)
    assert response.status_code == status
    assert response.json()["error"]["message"]


async def test_a_file_over_the_limit_is_a_413_by_its_length_or_its_bytes(start: Start) -> None:
    service = await start(max_upload_bytes=1000)
    assert (await service.post(bytes(1000))).status_code == 200
    assert (await service.post(bytes(1001))).status_code == 413
    assert (await service.post(bytes(3_000_000))).status_code == 413


async def test_a_streamed_answer_has_an_event_for_each_utterance(service: Service) -> None:
    response = await service.post(stream="true")
    assert response.headers["content-type"] == "text/event-stream"
    data = [json.loads(line.removeprefix("data: ")) for line in response.text.split("\n\n") if line.startswith("data")]
    assert [each["type"] for each in data] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]
    assert "".join(each["delta"] for each in data[:2]) == data[2]["text"] == TEXT


async def test_a_streamed_answer_has_comments_while_nothing_happens(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uploads.listener.COMMENT_SECONDS", 0.05)
    fields = {"data": {"stream": "true"}, "files": {"file": b"slow"}}
    async with service.http.stream("POST", PATH, **fields) as response:
        lines = response.aiter_lines()
        for _ in range(3):
            while await anext(lines) != ":":
                pass
        service.files.go_on.set()
        rest = [line async for line in lines]
    assert TEXT in rest[-2]


async def test_a_client_that_does_not_read_its_events_loses_its_place(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("uploads.listener.COMMENT_SECONDS", 0.001)
    monkeypatch.setattr("uploads.events.COMMENT", b":" + 100_000 * b" " + b"\n\n")
    service = await start(uploads_stuck_seconds=0.3)
    body = (
        b'--b\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nslow\r\n--b--\r\n'
    )
    _, writer = await send_part(service, body, len(body))
    await until(lambda: service.files.calls and service.files.calls[0].job)
    assert open_requests() == 1
    await until(lambda: open_requests() == 0)
    writer.close()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def open_requests() -> float | None:
    return REGISTRY.get_sample_value("dalston_uploads_open_requests")


async def test_a_failure_of_a_streamed_answer_is_an_event(service: Service) -> None:
    response = await service.post(b"broken", stream="true")
    assert response.status_code == 200
    last = json.loads(response.text.strip().rsplit("data: ", 1)[1])
    assert last["error"]["param"] == "file"


@pytest.mark.parametrize("how", ["prefer", "field", "query"])
async def test_a_client_that_does_not_wait_gets_the_job(service: Service, how: str) -> None:
    response = await service.http.post(
        PATH,
        headers={"Prefer": "respond-async"} if how == "prefer" else {},
        params={"async": "true"} if how == "query" else {},
        data={"stream": "false", "async": "true"} if how == "field" else {},
        files={"file": b"slow"},
    )
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{response.json()['id']}"
    assert response.json()["status"] == "queued"


async def test_a_client_that_leaves_after_its_file_leaves_the_job(service: Service) -> None:
    """It disconnects while it waits: the server sees a complete request and then the end of the call."""
    task = asyncio.create_task(service.post(b"slow"))
    await until(lambda: service.files.calls and service.files.calls[0].job)
    task.cancel()
    await until(lambda: service.files.calls[0].is_cancelled)
    assert service.files.calls[0].is_complete


async def test_a_client_that_leaves_right_after_its_last_byte_leaves_a_job(service: Service) -> None:
    body = FILE_PART + b"\r\n--b--\r\n"
    _, writer = await send_part(service, body, len(body))
    await until(lambda: service.files.calls)
    await until(lambda: service.files.calls[0].config is not None or service.files.calls[0].data)
    writer.close()
    await until(lambda: service.files.calls[0].job is not None)


async def test_a_client_that_leaves_before_the_end_of_its_file_leaves_no_job(service: Service) -> None:
    _, writer = await send_part(service, FILE_PART + bytes(1_000_000), 9_000_000)
    await until(lambda: service.files.calls and service.files.calls[0].data)
    writer.close()
    await until(lambda: service.files.calls[0].is_cancelled)
    assert not service.files.calls[0].is_complete
    assert service.files.calls[0].config is None


async def test_a_server_that_does_not_read_stops_the_sender(service: Service) -> None:
    """The rest of the file is in neither process."""
    sent = 0

    async def body() -> Any:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nstuck'
        for _ in range(1500):
            yield bytes(64 * 1024)
            sent += 64 * 1024
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    task = asyncio.create_task(service.http.post(PATH, headers=headers, content=body()))
    was = -1
    while was != sent:
        was = sent
        await asyncio.sleep(1)
    assert 0 < sent < 50_000_000  # in the buffers of the kernel, of which there are four
    service.files.go_on.set()
    assert (await task).status_code == 200
    assert len(service.files.calls[0].data) == 1500 * 64 * 1024 + len(b"stuck")


async def test_a_sender_that_stops_is_a_408(start: Start) -> None:
    service = await start(uploads_idle_seconds=0.2)

    reader, writer = await send_part(service, FILE_PART, 1000)
    assert await status_of(reader) == b"408"
    assert all(call.config is None for call in service.files.calls)
    writer.close()


async def test_a_job_that_takes_too_long_is_a_504_that_names_it(start: Start) -> None:
    service = await start(uploads_wait_seconds=0.2)
    response = await service.post(b"slow")
    assert response.status_code == 504
    assert "/v1/jobs/job_" in response.json()["error"]["message"]


async def test_more_requests_than_there_are_places_are_refused(start: Start) -> None:
    service = await start(uploads_max_requests=1)
    first = asyncio.create_task(service.post(b"slow"))
    await until(lambda: service.files.calls and service.files.calls[0].job)
    response = await service.post()
    assert (response.status_code, response.headers["x-should-retry"]) == (503, "true")
    service.files.go_on.set()
    assert (await first).status_code == 200
    assert (await service.post()).status_code == 200


async def test_models(service: Service) -> None:
    listed = (await service.http.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [entry["id"] for entry in listed["data"]][:3] == ["accurate", "fast", "whisper-1"]
    assert (await service.http.get("/v1/models/whisper-1")).json()["id"] == "whisper-1"
    response = await service.http.get("/v1/models/mistral/other")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
    assert (await service.http.head("/v1/models")).status_code == 200


async def test_translations_other_paths_and_methods_have_errors_of_the_same_shape(service: Service) -> None:
    response = await service.http.post("/v1/audio/translations", files={"file": WAV})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "unsupported_value")
    assert PATH in response.json()["error"]["message"]
    response = await service.http.get(PATH)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert (await service.http.get("/v1/other")).json()["error"]["code"] == "not_found"


async def test_liveness_and_readiness(service: Service) -> None:
    assert (await service.http.get("/healthz")).json() == {"status": "ok"}
    assert (await service.http.get("/health")).json() == {"status": "healthy"}


@pytest.mark.parametrize(
    ("origin", "status"), [("https://evil.example", 403), ("http://localhost:3000", 401), ("https://app.example", 401)]
)
async def test_without_authentication_pages_of_other_hosts_are_refused(start: Start, origin: str, status: int) -> None:
    service = await start(auth="none", allowed_origins="https://app.example")
    service.http.headers["Authorization"] = "Bearer none"
    response = await service.http.post(PATH, headers={"Origin": origin}, files={"file": WAV})
    assert response.status_code == status
