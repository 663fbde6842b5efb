"""The Vercel AI SDK as it is published."""

from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import Target, node_with, run_client

FOLDER = Path(__file__).with_name("node")


@pytest.fixture(scope="module")
def results(target: Target) -> dict[str, Any]:
    folder = node_with(FOLDER)
    return run_client("AI SDK", ["node", str(folder / "client.mjs"), target.url, target.key, str(target.file)])


def test_text_segments_language_and_duration(results: dict[str, Any], target: Target) -> None:
    found = results["whisper-1"]
    assert found["text"]
    assert target.text in (None, found["text"])
    assert results["words"]["segments"]
    assert set(results["words"]["segments"][0]) == {"text", "startSecond", "endSecond"}
    found = results["segments and language"]
    assert (found["language"], bool(found["segments"])) == ("en", True)
    assert found["durationInSeconds"] > 0
    assert results["gpt-4o-transcribe"]["text"] == results["whisper-1"]["text"]


@pytest.mark.parametrize(("step", "status"), [("wrong model", 404), ("not audio", 400), ("wrong key", 401)])
def test_errors(results: dict[str, Any], target: Target, step: str, status: int) -> None:
    if step == "wrong key" and target.key == "none":
        pytest.skip("the service runs without authentication")
    assert (results[step]["raised"], results[step]["status"]) == ("AI_APICallError", status)
