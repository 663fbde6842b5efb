"""The REST API conforms to its OpenAPI document for any request."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from stack.settings import ROOT
from stack.supervisor import Stack
from tests.conftest import THOROUGH
from tests.e2e.conftest import Client, Sample, chunks

DOCUMENT = json.loads((ROOT / "envoy/openapi.json").read_text())
UNIMPLEMENTED = ("ListTranscripts", "SetCurrentTranscript", "DeleteTranscript")
"""They answer 501, as documented."""
ENDLESS = ("WatchSessions", "WatchJob")
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

EXAMPLES = 40 if settings.get_current_profile_name() == THOROUGH else 12
SETTINGS = settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

schema = schemathesis.openapi.from_dict(DOCUMENT).exclude(operation_id=list(UNIMPLEMENTED + ENDLESS))


def test_the_document_is_served(stack: Stack) -> None:
    response = httpx.get(f"{stack.base_url}/v1/openapi.json")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == DOCUMENT


@pytest.fixture(scope="session")
async def stored(client: Client, sample: Sample) -> str:
    """A session with audio, transcript and words."""
    frames = chunks(sample.pcm[: 4 * sample.rate].tobytes())
    outcome = await client.transcribe(*frames, store_audio="true", store_transcript="true")
    return str(outcome.one("session.end")["session_id"])


@schema.parametrize()
@SETTINGS
def test_any_request_gets_a_documented_response(case: Any, stack: Stack) -> None:
    case.call_and_validate(base_url=stack.base_url, checks=CHECKS, timeout=30)


@schema.include(path_regex="{session_id}").exclude(method="DELETE").parametrize()
@SETTINGS
def test_any_request_about_a_session_gets_a_documented_response(case: Any, stack: Stack, stored: str) -> None:
    case.path_parameters["session_id"] = stored
    case.call_and_validate(base_url=stack.base_url, checks=CHECKS, timeout=30)
