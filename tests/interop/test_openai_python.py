"""openai-python as it is published."""

from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import Target, python_with, run_client

VERSIONS = ("3.57.0", "1.109.1")
SCRIPT = Path(__file__).with_name("openai_python.py")


@pytest.fixture(scope="module", params=VERSIONS)
def results(request: pytest.FixtureRequest, target: Target) -> dict[str, Any]:
    python = python_with(f"openai=={request.param}")
    found = run_client(
        f"openai-python {request.param}", [str(python), str(SCRIPT), target.url, target.key, str(target.file)]
    )
    assert found["version"] == request.param
    return found


def test_every_format(results: dict[str, Any], target: Target) -> None:
    text = results["json"]["text"]
    assert text
    assert target.text in (None, text)
    assert results["text"] == f"{text}\n"
    assert results["srt"].startswith("1\n00:00:0")
    assert results["vtt"].startswith("WEBVTT\n\n00:00:0")
    verbose = results["verbose_json"]
    assert verbose["text"] == text
    assert verbose["language"] == "english"
    assert verbose["duration"] > 0
    assert "".join(segment["text"] for segment in verbose["segments"]).strip() == text
    assert all(len(segment) >= 10 for segment in verbose["segments"])


def test_words_and_logprobs(results: dict[str, Any]) -> None:
    words = results["words"]["words"]
    assert [set(word) for word in words] == [{"word", "start", "end"}] * len(words)
    assert words
    assert results["words"]["segments"]
    assert "".join(entry["token"] for entry in results["logprobs"]["logprobs"]) == results["logprobs"]["text"]


def test_what_else_is_sent_is_taken(results: dict[str, Any]) -> None:
    for name in ("language and prompt", "bytes without a name", "chunking_strategy"):
        assert results[name]["text"] == results["json"]["text"]
    assert results["headers"]["dalston-ignored"] == "temperature"
    assert results["headers"]["location"].startswith("/v1/jobs/job_")


def test_a_stream(results: dict[str, Any]) -> None:
    *deltas, done = results["stream"]
    assert {event["type"] for event in deltas} == {"transcript.text.delta"}
    assert done["type"] == "transcript.text.done"
    assert "".join(event["delta"] for event in deltas) == done["text"] == results["json"]["text"]


def test_models(results: dict[str, Any]) -> None:
    assert {"accurate", "fast", "whisper-1"} <= set(results["models"])
    assert results["one model"]["id"] == "whisper-1"


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("wrong model", ("NotFoundError", 404, "model_not_found", "model")),
        ("unknown model", ("NotFoundError", 404, "model_not_found", "model")),
        ("wrong language", ("BadRequestError", 400, "invalid_value", "language")),
        ("diarized", ("BadRequestError", 400, "unsupported_value", "response_format")),
        ("not audio", ("BadRequestError", 400, "invalid_value", "file")),
        ("not audio, streamed", ("BadRequestError", 400, "invalid_value", "file")),
        ("empty", ("BadRequestError", 400, "invalid_value", "file")),
        ("translation", ("BadRequestError", 400, "unsupported_value", "task")),
    ],
)
def test_errors(results: dict[str, Any], step: str, expected: tuple[str, int, str, str]) -> None:
    found = results[step]
    assert (found["raised"], found["status"], found["code"], found["param"]) == expected


def test_a_wrong_key(results: dict[str, Any], target: Target) -> None:
    if target.key == "none":
        pytest.skip("the service runs without authentication")
    found = results["wrong key"]
    assert (found["raised"], found["code"]) == ("AuthenticationError", "invalid_api_key")
