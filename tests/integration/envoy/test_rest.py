"""REST is a translation of the gRPC service: parameters are passed on, and errors are JSON."""

import json
import re
import socket
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from dalston.v1 import job_pb2, key_pb2, session_pb2
from dalston.v1.error_reason_pb2 import ErrorReason
from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor

from tests.integration.envoy.backend import AUDIO_CHUNKS, AUDIO_TAG, WAVEFORM
from tests.integration.envoy.conftest import Front

SESSIONS = "/v1/realtime/sessions"
JOBS = "/v1/jobs"


def rest_of(method: MethodDescriptor) -> tuple[str, str]:
    """The verb and the path by which REST has a method."""
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern")
    return verb.upper(), getattr(rule, verb)


def filled(path: str) -> str:
    """A path of the contract with a value for each of its names."""
    return re.sub(r"{(\w+)}", lambda name: "2" if name[1] == "version" else f"{name[1]}_1", path)


def test_a_list_has_zeros_and_snake_case_and_numbers(http: httpx.Client) -> None:
    body = http.get(SESSIONS).json()
    session = body["sessions"][0]
    assert session["id"] == "sess_1"
    assert session["utterance_count"] == 0
    assert session["store_audio"] is False
    assert session["audio_duration_seconds"] == 1.5
    assert "ended_at" not in session or session["ended_at"] is None
    assert body["pagination"] == {"limit": 50, "offset": 0, "total": 1, "total_is_exact": False}


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-02T03:04:05Z",
        "2026-01-02T03:04:05.000Z",
        "2026-01-02T04:04:05%2B01:00",
        "2026-01-02T04:04:05+01:00",
        "2026-01-02T04:04:05.000+01:00",
    ],
)
def test_since_and_until_are_times(http: httpx.Client, front: Front, text: str) -> None:
    answer = http.get(f"{SESSIONS}?since={text}&until={text}")
    assert answer.status_code == 200, answer.text
    request = front.sessions.requests[-1]
    expected = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert request.since.ToDatetime(tzinfo=UTC) == expected
    assert request.until.ToDatetime(tzinfo=UTC) == expected


@pytest.mark.parametrize("text", ["yesterday", "2026-01-02", "1767323045", ""])
def test_a_since_that_is_no_time_is_refused_with_a_message(http: httpx.Client, text: str) -> None:
    answer = http.get(SESSIONS, params={"since": text})
    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] == 3
    assert answer.json()["message"]


def test_a_limit_of_zero_is_set_and_a_missing_one_is_not(http: httpx.Client, front: Front) -> None:
    http.get(f"{SESSIONS}?limit=0")
    assert front.sessions.requests[-1].HasField("limit")
    assert front.sessions.requests[-1].limit == 0
    http.get(SESSIONS)
    assert not front.sessions.requests[-1].HasField("limit")


@pytest.mark.parametrize("query", ["limit=many", "limit=1.5", "limit=99999999999"])
def test_a_limit_that_is_no_number_is_refused_with_a_message(http: httpx.Client, query: str) -> None:
    answer = http.get(f"{SESSIONS}?{query}")
    assert answer.status_code == 400
    assert answer.json()["code"] == 3
    assert answer.json()["message"]


@pytest.mark.parametrize("name", ["y'g", "%b%", "2`w", "a!b", "X~Y", "a|b"])
def test_a_header_that_only_http_allows_does_no_harm(http: httpx.Client, name: str) -> None:
    answer = http.get(SESSIONS, headers={name: "[s"})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("value", ["[s", "a\tb", "caf\u00e9".encode("latin-1"), b"\xff\xfe", ";>"])
def test_a_header_of_any_value_does_no_harm(http: httpx.Client, value: str | bytes) -> None:
    answer = http.get(SESSIONS, headers={b"x-any": value if isinstance(value, bytes) else value.encode()})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-foo-bin", "@@@"),
        ("grpc-encoding", "bogus"),
        ("grpc-accept-encoding", "?"),
        ("grpc-timeout", "xyz"),
        ("grpc-timeout", "1u"),
        ("grpc-timeout", "1n"),
    ],
)
@pytest.mark.parametrize("path", [SESSIONS, f"{SESSIONS}/sess_1/audio"])
def test_a_header_that_only_grpc_reads_does_no_harm(http: httpx.Client, path: str, name: str, value: str) -> None:
    answer = http.get(path, headers={name: value})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("size", [7_000, 10_000, 14_000, 30_000, 55_000])
def test_headers_up_to_the_limit_are_accepted(http: httpx.Client, size: int) -> None:
    headers = {"x-any": "x" * size}
    assert {http.get(SESSIONS, headers=headers).status_code for _ in range(10)} == {200}


def test_headers_beyond_the_limit_are_refused_with_a_message(http: httpx.Client) -> None:
    answer = http.get(SESSIONS, headers={"x-any": "x" * 70_000})
    assert answer.status_code == 431
    assert "64 KiB" in answer.json()["message"]


def test_cookies_are_not_passed_to_the_server(http: httpx.Client, front: Front) -> None:
    assert http.get(SESSIONS, headers={"cookie": "a=b"}).status_code == 200
    assert "cookie" not in front.sessions.metadata[-1]


def test_an_unknown_query_parameter_is_refused_by_name(http: httpx.Client) -> None:
    answer = http.get(f"{SESSIONS}?colour=red")
    assert answer.status_code == 400
    assert "colour" in answer.json()["message"]


def test_an_error_of_the_service_keeps_message_and_reason(http: httpx.Client) -> None:
    answer = http.get(f"{SESSIONS}/sess_2")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert (body["code"], body["message"]) == (5, "no such session")
    assert body["details"][0]["reason"] == "SESSION_NOT_FOUND"
    assert not [name for name in answer.headers if name.startswith("grpc-")]


def test_aborted_is_a_conflict(http: httpx.Client) -> None:
    answer = http.delete(f"{SESSIONS}/sess_2")
    assert answer.status_code == 409
    assert answer.json()["details"][0]["reason"] == "SESSION_ACTIVE"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{SESSIONS}/sess_1/enhancement"),
        ("GET", f"{SESSIONS}/sess_1/export/srt"),
        ("GET", f"{SESSIONS}/sess_1/transcript"),
        ("GET", f"{SESSIONS}:watch"),
    ],
)
def test_an_unimplemented_method_is_a_501(http: httpx.Client, method: str, path: str) -> None:
    answer = http.request(method, path)
    assert answer.status_code == 501
    assert answer.json()["code"] == 12


def test_a_download_is_complete_and_has_its_type(http: httpx.Client) -> None:
    answer = http.get(f"{SESSIONS}/sess_1/audio")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.content == b"".join(AUDIO_CHUNKS)


def test_a_download_that_fails_at_once_is_an_error_in_json(http: httpx.Client) -> None:
    answer = http.get(f"{SESSIONS}/sess_none/audio")
    assert answer.status_code == 404
    assert answer.json()["message"] == "no such session"


REFUSALS = [
    ("GET", "/", {}, 404, "PATH_NOT_FOUND"),
    ("GET", "/nothing/here", {}, 404, "PATH_NOT_FOUND"),
    ("GET", "/v1/realtime/nothing", {}, 404, "PATH_NOT_FOUND"),
    ("POST", SESSIONS, {}, 404, "PATH_NOT_FOUND"),
    ("PUT", f"{SESSIONS}/sess_1", {}, 404, "PATH_NOT_FOUND"),
    ("POST", "/dalston.v1.SessionService/ListSessions", {}, 404, "PATH_NOT_FOUND"),
    ("GET", SESSIONS, {"host": "rebound.example.com"}, 404, "PATH_NOT_FOUND"),
    ("POST", JOBS, {}, 404, "PATH_NOT_FOUND"),
    ("PUT", f"{JOBS}/job_1", {}, 404, "PATH_NOT_FOUND"),
    ("GET", "/v1/jobsites", {}, 404, "PATH_NOT_FOUND"),
    ("GET", f"{JOBS}?colour=red", {}, 400, "INVALID_PARAMETERS"),
    ("GET", "/a%2Fb", {}, 400, "INVALID_MESSAGE"),
    ("GET", f"{SESSIONS}?colour=red", {}, 400, "INVALID_PARAMETERS"),
    ("GET", f"{SESSIONS}?limit=many", {}, 400, "INVALID_PARAMETERS"),
    ("POST", f"{SESSIONS}/sess_1/enhance", {"x-large": "x" * 70_000}, 431, "MESSAGE_TOO_BIG"),
]


@pytest.mark.parametrize(("method", "path", "headers", "status", "reason"), REFUSALS)
def test_a_refusal_of_envoy_has_a_reason_in_json(
    http: httpx.Client, method: str, path: str, headers: dict[str, str], status: int, reason: str
) -> None:
    answer = http.request(method, path, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["message"]
    (detail,) = answer.json()["details"]
    assert detail == {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "dalston.v1",
        "metadata": {},
    }
    assert f"ERROR_REASON_{reason}" in ErrorReason.keys()  # noqa: SIM118 - an enum of protobuf


def test_http_1_0_is_answered_with_426(front: Front) -> None:
    with socket.create_connection(("127.0.0.1", front.port), 10) as client:
        client.sendall(f"GET {SESSIONS} HTTP/1.0\r\nhost: localhost\r\n\r\n".encode())
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert b" 426 " in answer.splitlines()[0]
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert "HTTP/1.1" in body["message"]
    assert body["details"][0]["reason"] == "INVALID_MESSAGE"


@pytest.mark.parametrize(
    "path",
    [
        SESSIONS,
        f"{SESSIONS}/sess_2",
        f"{SESSIONS}/sess_none/audio",
        f"{SESSIONS}/sess_1/transcript",
        f"{SESSIONS}:watch",
        f"{SESSIONS}?colour=red",
        JOBS,
        f"{JOBS}/job_1",
        "/v1/openapi.json",
        "/nothing",
    ],
)
def test_head_is_get_without_a_body(http: httpx.Client, path: str) -> None:
    got, asked = http.get(path), http.head(path)
    assert asked.status_code == got.status_code
    assert asked.content == b""
    for name in ("content-type", "cache-control", "x-content-type-options"):
        assert asked.headers[name] == got.headers[name]
    if "content-length" in asked.headers:
        assert int(asked.headers["content-length"]) in (len(got.content), 0)
    # The connection can still be used.
    assert http.get(path).content == got.content


def test_a_large_body_is_refused(http: httpx.Client) -> None:
    answer = http.post(f"{SESSIONS}/sess_1/enhance", json={"model": "x" * 100_000})
    assert answer.status_code == 413
    assert "16 KiB" in answer.json()["message"]
    assert answer.json()["details"][0]["reason"] == "MESSAGE_TOO_BIG"


def test_a_body_that_is_no_json_is_refused(http: httpx.Client) -> None:
    answer = http.post(f"{SESSIONS}/sess_1/enhance", content=b"{model")
    assert answer.status_code == 400
    assert answer.json()["message"]


METHODS = [
    method
    for module in (session_pb2, job_pb2, key_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.GetOptions().HasExtension(annotations_pb2.http)
]
NAMED = [method for method in METHODS if "{" in rest_of(method)[1]]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("text", ['{"expires_at": "2027-01-01T00:00:00Z"}', '{"expires_at": {"a": ["}", "\\""]}}'])
def test_a_field_that_no_body_has_is_refused_by_name(
    http: httpx.Client, front: Front, method: MethodDescriptor, text: str
) -> None:
    verb, path = rest_of(method)
    asked = len(front.sessions.requests)
    answer = http.request(verb, filled(path), content=text)
    assert answer.status_code == 400, answer.text
    assert answer.json()["details"][0]["reason"] == "INVALID_PARAMETERS"
    assert "expires_at" in answer.json()["message"]
    assert len(front.sessions.requests) == asked


@pytest.mark.parametrize("method", [each for each in METHODS if rest_of(each)[0] == "POST"], ids=lambda each: each.name)
@pytest.mark.parametrize("spelling", ["name", "json_name"])
def test_every_field_of_the_contract_may_be_in_its_body(
    http: httpx.Client, front: Front, method: MethodDescriptor, spelling: str
) -> None:
    verb, path = rest_of(method)
    values: dict[str, Any] = {
        "name": "ci",
        "scopes": ["admin", "realtime"],
        "expires_in_seconds": 60,
        "model": "fast",
        "language": "fr",
        "vocabulary": ["Dashwood", "Norland"],
        "linked": False,
    }
    fields = [field for field in method.input_type.fields if f"{{{field.name}}}" not in path]
    body = {getattr(field, spelling): values[field.name] for field in fields}
    for text in (json.dumps(body), json.dumps(body, indent=2)):
        answer = http.request(verb, filled(path), content=text)
        assert answer.status_code == 200, answer.text
        request = front.sessions.requests[-1]
        assert {field.name: value for field, value in request.ListFields() if field in fields} == {
            field.name: values[field.name] for field in fields
        }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": "a", "name": "b"}', "twice: name"),
        ('{"expires_in_seconds": 60, "expiresInSeconds": 0}', "twice"),
        ('{"scopes": ["a"], "scopes": ["b"]}', "twice: scopes"),
        ('{"na\\u006de": "a"}', "not known"),
        ('{"": 1}', "not known"),
        ('{"@type": "x"}', "not known here: @type"),
        ('{"' + "x" * 5000 + '": 1}', "x" * 64),
        ('{"\u00e9\u0000": 1}', "not known"),
        ("{name: 'a'}", "not JSON"),
        ("{'name': 'a'}", "not JSON"),
        ('{"name": "a",}', "not JSON"),
        ('{"name": "a"', "not JSON"),
        ('{"name" "a"}', "not JSON"),
        ('{"name": "a"} {"expires_at": 1}', "not JSON"),
        ('{"name": "a"}x', "not JSON"),
        ('{"name": "a\\"', "not JSON"),
        ("name=a", "not JSON"),
        ("[" * 10_000, "not JSON"),
        ("[]", ""),
        ("null", ""),
        ('{"scopes": [{"expires_at": 1}]}', ""),
        ('{"name": {"expires_at": 1}}', ""),
    ],
)
def test_a_body_that_may_mean_something_else_is_refused(
    http: httpx.Client, front: Front, text: str, expected: str
) -> None:
    asked = len(front.sessions.requests)
    answer = http.post("/v1/keys", content=text.encode())
    assert answer.status_code == 400, answer.text
    assert expected in answer.json()["message"]
    assert len(front.sessions.requests) == asked


@pytest.mark.parametrize("method", NAMED, ids=lambda method: method.name)
@pytest.mark.parametrize("spelling", ["{}=OTHER", "{}=", "{}", "a=b&{}=OTHER", "{}.x=OTHER"])
def test_no_query_names_what_the_path_does(
    http: httpx.Client, front: Front, method: MethodDescriptor, spelling: str
) -> None:
    verb, path = rest_of(method)
    asked = len(front.sessions.requests)
    for name in re.findall(r"{(\w+)}", path):
        camel = name.title().replace("_", "")
        for each in {name, camel[0].lower() + camel[1:], name.replace("_", "%5F"), name.replace("_", "%5f")}:
            answer = http.request(verb, f"{filled(path)}?{spelling.format(each)}")
            assert answer.status_code == 400, answer.text
            assert answer.json()["details"][0]["reason"] == "INVALID_PARAMETERS"
    assert len(front.sessions.requests) == asked


def test_a_list_of_jobs_has_its_session_in_the_query(http: httpx.Client, front: Front) -> None:
    answer = http.get(f"{JOBS}?session_id=sess_1&status=queued&kind=enhance&limit=5&cursor=c")
    assert answer.status_code == 200, answer.text
    assert front.sessions.requests[-1] == job_pb2.ListJobsRequest(
        session_id="sess_1", status="queued", kind="enhance", limit=5, cursor="c"
    )
    assert answer.json()["jobs"][0]["queue_position"] == 0


@pytest.mark.parametrize("what", ["transcript", "utterances", "export/srt"])
def test_what_is_read_has_its_version_in_the_query(http: httpx.Client, what: str) -> None:
    assert http.get(f"{SESSIONS}/sess_1/{what}?version=2").status_code == 501


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
def test_a_job_is_watched_to_its_end(http: httpx.Client, accept: str) -> None:
    answer = http.get(f"{JOBS}/job_1:watch", headers={"accept": accept})
    assert answer.status_code == 200
    is_events = accept == "text/event-stream"
    assert answer.headers["content-type"] == (accept if is_events else "application/x-ndjson")
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert is_events is answer.text.startswith("data: ")
    jobs = [json.loads(line) for line in lines]
    assert [(job["id"], job["status"]) for job in jobs] == [
        ("job_1", "queued"),
        ("job_1", "running"),
        ("job_1", "completed"),
    ]


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
def test_the_utterances_of_a_session_are_watched_to_its_end(http: httpx.Client, front: Front, accept: str) -> None:
    answer = http.get(f"{SESSIONS}/sess_1/utterances:watch?offset=7", headers={"accept": accept})
    assert answer.status_code == 200
    is_events = accept == "text/event-stream"
    assert answer.headers["content-type"] == (accept if is_events else "application/x-ndjson")
    assert is_events is answer.text.startswith("data: ")
    messages = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]
    assert [message["type"] for message in messages] == ["utterance", "partial", "ended"]
    assert (messages[0]["utterance"]["index"], messages[0]["utterance"]["text"]) == (7, "spoken")
    assert messages[1] == {"type": "partial", "partial": {"text": "spo", "start": 1.0, "end": 1.5}}
    assert messages[2] == {"type": "ended"}
    assert front.sessions.requests[-1].session_id == "sess_1"


def test_the_watch_of_the_utterances_of_an_unknown_session_is_a_404(http: httpx.Client) -> None:
    answer = http.get(f"{SESSIONS}/sess_none/utterances:watch", headers={"accept": "text/event-stream"})
    assert answer.status_code == 404
    assert answer.json()["details"][0]["reason"] == "SESSION_NOT_FOUND"


def test_a_waveform_is_a_download(http: httpx.Client) -> None:
    path = f"{SESSIONS}/sess_1/waveform?linked=true"
    answer = http.get(path)
    assert (answer.status_code, answer.content) == (200, WAVEFORM)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-length"] == str(len(WAVEFORM))
    assert answer.headers["etag"] == AUDIO_TAG
    head = http.head(path)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(WAVEFORM)), b"")
    assert http.get(path, headers={"if-none-match": AUDIO_TAG}).status_code == 304
    assert http.get(f"{SESSIONS}/sess_none/waveform").status_code == 404


def test_the_watch_of_an_unknown_job_is_a_404(http: httpx.Client) -> None:
    answer = http.get(f"{JOBS}/job_none:watch", headers={"accept": "text/event-stream"})
    assert answer.status_code == 404
    assert answer.json()["details"][0]["reason"] == "JOB_NOT_FOUND"


def test_another_job_of_the_session_is_a_conflict(http: httpx.Client) -> None:
    answer = http.post(f"{JOBS}/job_waits/retry")
    assert answer.status_code == 409
    assert answer.json()["details"][0]["reason"] == "ENHANCEMENT_RUNNING"


def test_large_headers_are_refused_in_json(http: httpx.Client) -> None:
    answer = http.get(SESSIONS, headers={"x-large": "x" * 70_000})
    assert answer.status_code == 431
    assert "64 KiB" in answer.json()["message"]


def test_another_host_name_is_not_answered(http: httpx.Client) -> None:
    answer = http.get(SESSIONS, headers={"host": "rebound.example.com"})
    assert answer.status_code == 404
    assert "host name" in answer.json()["message"]
    assert http.get(SESSIONS, headers={"host": "localhost:8000"}).status_code == 200


def test_responses_are_neither_sniffed_nor_cached(http: httpx.Client) -> None:
    for path in (SESSIONS, "/", f"{SESSIONS}?colour=red"):
        headers = http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["server"] == "dalston"


def test_the_client_does_not_choose_its_address(http: httpx.Client, front: Front) -> None:
    http.get(SESSIONS, headers={"x-forwarded-for": "203.0.113.9"})
    assert front.sessions.metadata[-1]["x-forwarded-for"] == "127.0.0.1"
