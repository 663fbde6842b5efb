"""The bodies of answers, errors and events."""

import json
import math

import pytest
from dalston.v1.error_reason_pb2 import ErrorReason
from dalston.v1.job_pb2 import Job
from dalston.v1.session_pb2 import Utterance
from dalston.v1.transcription_pb2 import Word

from edge.closing import close_reason_for
from uploads import events
from uploads.answers import answer, job_as_json, whole_text
from uploads.body import Field
from uploads.errors import error_of_job, error_of_reason
from uploads.languages import NAMES
from uploads.models import Models
from uploads.parameters import read_parameters

JOB = Job(id="job_1", status="completed", audio_duration_seconds=7.5, language="auto")
UTTERANCES = [
    Utterance(
        index=0,
        start=0.5,
        end=2.0,
        text="Hello there.",
        confidence=0.9,
        language="en",
        words=[
            Word(word="Hello", start=0.5, end=1.0, confidence=0.8),
            Word(word="there.", start=1.0, end=2.0, confidence=0.0),
        ],
    ),
    Utterance(index=1, start=3.0, end=7.0, text="Grüße & <Küsse>", confidence=0.5, language="de"),
]


def body(response_format: str, *fields: tuple[str, str], job: Job = JOB, utterances: list[Utterance] = UTTERANCES):
    wanted = [Field("response_format", response_format), *(Field(*each) for each in fields)]
    return answer(read_parameters(wanted, "", Models()), job, utterances)


def test_json() -> None:
    found = body("json")
    assert found.content_type == "application/json"
    assert json.loads(found.text) == {
        "text": "Hello there. Grüße & <Küsse>",
        "languages": [{"code": "en"}, {"code": "de"}],
        "usage": {"type": "duration", "seconds": 7.5},
    }


def test_the_tokens_of_logprobs_joined_are_the_text() -> None:
    entries = json.loads(body("json", ("include[]", "logprobs")).text)["logprobs"]
    assert "".join(entry["token"] for entry in entries) == "Hello there. Grüße & <Küsse>"
    assert bytes(entries[2]["bytes"]).decode() == " Grüße"
    assert [round(entry["logprob"], 3) for entry in entries[:2]] == [-0.223, -23.026]
    assert entries[2]["logprob"] == math.log(0.5)


def test_text_and_captions() -> None:
    assert body("text").text == "Hello there. Grüße & <Küsse>\n"
    assert body("srt").text == (
        "1\n00:00:00,500 --> 00:00:02,000\nHello there.\n\n2\n00:00:03,000 --> 00:00:07,000\nGrüße & <\u2060Küsse>\n\n"
    )
    assert body("vtt").text == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:02.000\nHello there.\n\n"
        "00:00:03.000 --> 00:00:07.000\nGrüße &amp; &lt;Küsse&gt;\n\n"
    )
    assert [body(each).content_type for each in ("srt", "vtt")] == ["application/x-subrip", "text/vtt"]


def test_verbose_json_has_the_ten_fields_of_a_segment() -> None:
    found = json.loads(body("verbose_json").text)
    assert (found["task"], found["language"], found["duration"]) == ("transcribe", "german", 7.5)
    assert "words" not in found
    first = found["segments"][0]
    assert list(first) == [
        *("id", "seek", "start", "end", "text", "tokens", "temperature"),
        *("avg_logprob", "compression_ratio", "no_speech_prob"),
    ]
    assert (first["id"], first["start"], first["end"], first["text"]) == (0, 0.5, 2.0, " Hello there.")
    assert first["avg_logprob"] == math.log(0.9)
    assert 0 < first["compression_ratio"] < 2


def test_words_without_segments() -> None:
    found = json.loads(body("verbose_json", ("timestamp_granularities[]", "word")).text)
    assert "segments" not in found
    assert found["words"][0] == {"word": "Hello", "start": 0.5, "end": 1.0}


def test_a_file_without_speech_has_an_empty_text() -> None:
    assert json.loads(body("json", utterances=[]).text)["text"] == ""
    empty = json.loads(body("verbose_json", utterances=[], job=Job(status="completed", language="fr")).text)
    assert (empty["text"], empty["segments"], empty["language"]) == ("", [], "french")
    assert body("srt", utterances=[]).text == ""
    assert body("vtt", utterances=[]).text == "WEBVTT\n\n"


def test_every_language_of_the_model_has_a_name() -> None:
    assert len(NAMES) == 100
    assert all(2 <= len(code) <= 3 and name == name.lower() for code, name in NAMES.items())


def test_a_job_has_all_its_fields() -> None:
    found = json.loads(job_as_json(JOB))
    assert (found["id"], found["progress"], found["cancel_requested"]) == ("job_1", 0.0, False)


@pytest.mark.parametrize(
    "reason", [name.removeprefix("ERROR_REASON_") for name in ErrorReason.DESCRIPTOR.values_by_name]
)
def test_every_reason_of_the_contract_is_an_error(reason: str) -> None:
    error = error_of_reason(close_reason_for(reason, "why"))
    assert 400 <= error.status <= 503
    assert set(error.body()["error"]) == {"message", "type", "param", "code"}
    assert error.should_retry == (error.status in (408, 429, 503) and error.code != "insufficient_quota")


INVALID = "invalid_request_error"


@pytest.mark.parametrize(
    ("reason", "metadata", "expected"),
    [
        ("UNAUTHENTICATED", {}, (401, INVALID, "invalid_api_key", None, None)),
        ("PERMISSION_DENIED", {}, (403, INVALID, "insufficient_permissions", None, None)),
        ("INVALID_PARAMETERS", {"parameter": "language"}, (400, INVALID, "invalid_value", "language", None)),
        ("INVALID_PARAMETERS", {"parameter": "vocabulary"}, (400, INVALID, "invalid_value", "keywords", None)),
        ("UNSUPPORTED_MEDIA", {}, (400, INVALID, "invalid_value", "file", None)),
        ("FILE_TOO_BIG", {}, (413, INVALID, "file_too_large", "file", None)),
        ("INVALID_MODEL", {}, (404, INVALID, "model_not_found", "model", None)),
        ("RATE_LIMITED", {"retry_after_seconds": "2.5"}, (429, "rate_limit_error", "rate_limit_exceeded", None, 3)),
        ("TOO_MANY_JOBS", {"retry_after_seconds": "x"}, (429, "rate_limit_error", "rate_limit_exceeded", None, 10)),
        ("UNAVAILABLE", {}, (503, "server_error", "server_overloaded", None, 2)),
        ("INTERNAL", {}, (500, "server_error", "internal_error", None, None)),
    ],
)
def test_errors_have_status_type_code_and_parameter(reason: str, metadata: dict[str, str], expected: tuple) -> None:
    error = error_of_reason(close_reason_for(reason, "why", metadata))
    assert (error.status, error.type, error.code, error.param, error.retry_after) == expected


@pytest.mark.parametrize(
    ("job", "status"),
    [
        (Job(status="completed"), None),
        (Job(status="failed", error_code="no_speech"), None),
        (Job(status="failed", error_code="undecodable", error="not audio"), 400),
        (Job(status="failed", error_code="audio_damaged"), 400),
        (Job(status="failed", error_code="invalid_model"), 404),
        (Job(status="failed", error_code="worker_ended"), 500),
        (Job(status="canceled"), 409),
    ],
)
def test_a_job_that_failed_is_an_error(job: Job, status: int | None) -> None:
    error = error_of_job(job)
    assert (error and error.status) == status


def content(event: bytes) -> dict[str, object]:
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 2
    return json.loads(event.removeprefix(b"data: "))


def test_the_deltas_joined_are_the_text() -> None:
    deltas = [
        content(events.delta(each, is_first=number == 0, with_logprobs=True)) for number, each in enumerate(UTTERANCES)
    ]
    last = content(events.done(UTTERANCES, with_logprobs=True))
    assert "".join(str(each["delta"]) for each in deltas) == last["text"] == whole_text(UTTERANCES)
    assert [entry for each in deltas for entry in each["logprobs"]] == last["logprobs"]  # type: ignore[attr-defined]
    assert last["type"] == "transcript.text.done"


def test_a_failure_is_an_event_with_the_error() -> None:
    error = error_of_reason(close_reason_for("UNAVAILABLE", "later"))
    assert content(events.failed(error)) == error.body()
