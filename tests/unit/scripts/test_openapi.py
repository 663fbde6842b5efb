"""The OpenAPI document agrees with the contract."""

import json
from typing import Any

import pytest
import schemathesis
from dalston.v1 import job_pb2, key_pb2, session_pb2, status_pb2, transcription_pb2
from dalston.v1.error_reason_pb2 import ErrorReason
from google.api import annotations_pb2

from stack.settings import ROOT


@pytest.fixture(scope="module")
def document() -> Any:
    return json.loads((ROOT / "envoy/openapi.json").read_text())


def test_every_method_with_a_route_is_an_operation(document: Any) -> None:
    methods = {
        method.name
        for file in (session_pb2, job_pb2, key_pb2, status_pb2, transcription_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if method.GetOptions().HasExtension(annotations_pb2.http)
    }
    operations = {each["operationId"] for item in document["paths"].values() for each in item.values()}
    assert operations == methods | {"CreateTranscription", "ListOpenAIModels", "GetOpenAIModel"}


def test_bounds_and_defaults_are_those_of_the_comments(document: Any) -> None:
    parameters = document["paths"]["/v1/realtime/sessions"]["get"]["parameters"]
    limit = next(each["schema"] for each in parameters if each["name"] == "limit")
    assert limit == {"type": "integer", "format": "int32", "minimum": 1, "maximum": 100, "default": 50}


def test_only_fields_that_are_always_sent_are_required(document: Any) -> None:
    required = document["components"]["schemas"]["Session"]["required"]
    assert {"id", "status", "word_count"} <= set(required)
    assert not {"audio_url", "ended_at", "error"} & set(required)


def test_every_reference_resolves(document: Any) -> None:
    schemas = document["components"]["schemas"]

    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if "$ref" in node else set()
            return own.union(*map(references, node.values()))
        return set().union(*map(references, node)) if isinstance(node, list) else set()

    assert references(document) == {f"#/components/schemas/{name}" for name in schemas}


def operations(document: Any) -> list[Any]:
    return [each for item in document["paths"].values() for each in item.values()]


def test_every_operation_has_a_tag_a_summary_and_a_description(document: Any) -> None:
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}
    assert all(tags.values())
    for operation in operations(document):
        assert set(operation["tags"]) <= set(tags)
        assert operation["summary"]
        assert operation["description"].startswith(operation["summary"])
        assert [each["name"] for each in operation["parameters"] if not each["description"]] == []


def test_examples_of_errors_have_existing_reasons(document: Any) -> None:
    reasons = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118 - it is no dict
    examples = [
        content["example"]
        for operation in operations(document)
        for code, response in operation["responses"].items()
        if code >= "400" and (content := response["content"]["application/json"]) and "example" in content
    ]
    assert {detail["reason"] for example in examples for detail in example["details"]} <= reasons
    assert {"400", "401", "403", "404", "409", "429", "500", "503"} <= {
        code
        for operation in operations(document)
        for code, response in operation["responses"].items()
        if "example" in response.get("content", {}).get("application/json", {})
    }


def test_the_document_is_valid_openapi(document: Any) -> None:
    schemathesis.openapi.from_dict(document).validate()
