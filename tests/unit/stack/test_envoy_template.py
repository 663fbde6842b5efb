"""The rendered configuration. Its effects are tested on Envoy itself."""

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from dalston.v1 import file_pb2, job_pb2, key_pb2, session_pb2, transcription_pb2
from google.protobuf.descriptor import MethodDescriptor

from stack.envoy import Endpoints, render


def test_every_placeholder_is_filled() -> None:
    text = render(Endpoints(["127.0.0.1", "::1"], 8000, 50051, 8081, names=("localhost",)), Path("/logs/access.log"))
    assert "${" not in text
    assert 'socket_address: {address: "127.0.0.1", port_value: 8000}' in text
    assert '[{"address": {"socket_address": {"address": "::1", "port_value": 8000}}}]' in text
    assert 'domains: ["localhost"]' in text


def test_paths_with_odd_characters_stay_paths() -> None:
    text = render(Endpoints(["127.0.0.1"], 8000, 1, 2), Path('/a "quoted" \\ folder: #1/access.log'))
    assert r'path: "/a \"quoted\" \\ folder: #1/access.log"' in text


def route_of(method: MethodDescriptor) -> dict[str, Any]:
    """The gRPC route of a method, once its request has arrived: the first that matches."""
    whole = yaml.safe_load(render(Endpoints(["127.0.0.1"], 8000, 1, 2), Path("/logs/access.log")))
    chain = whole["static_resources"]["listeners"][0]["filter_chains"][0]
    manager = chain["filters"][1]["typed_config"]
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    path = f"/{method.containing_service.full_name}/{method.name}"
    for route in routes:
        match = route["match"]
        if any(header["name"] in (":method", "dalston-arrived") for header in match.get("headers", ())):
            continue  # the preflight of a browser, or a request that is arriving
        pattern = match.get("safe_regex", {}).get("regex")
        if match.get("path") == path or path.startswith(match.get("prefix", "no")):
            return dict(route)
        if pattern is not None and re.fullmatch(pattern, path):
            return dict(route)
    raise AssertionError


METHODS = [
    method
    for module in (transcription_pb2, file_pb2, session_pb2, job_pb2, key_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_only_audio_streams_may_wait_long_for_the_server(method: MethodDescriptor) -> None:
    route = route_of(method)
    filters, action = route.get("typed_per_filter_config", {}), route["route"]
    assert ("whole_request" in filters) is not method.client_streaming
    if method.client_streaming:
        # The server has limits for clients that stall.
        assert (action["timeout"], action["idle_timeout"]) == ("0s", "0s")
    elif method.server_streaming:
        assert (action["timeout"], action["idle_timeout"]) == ("0s", "120s")
    else:
        assert action["timeout"] == "25s"
        assert action["max_stream_duration"] == {"max_stream_duration": "30s", "grpc_timeout_header_max": "30s"}


CREATING = ("EnhanceSession", "RetryJob", "CreateKey", "CreateToken", "CreateLogin")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_what_creates_something_is_retried_only_before_it_has_reached_a_server(method: MethodDescriptor) -> None:
    policy = route_of(method)["route"].get("retry_policy")
    if method.name == "TranscribeFile":
        assert policy is None  # it would need the bytes of the file again
        return
    is_cautious = policy["retry_on"] == "connect-failure,refused-stream"
    assert is_cautious is (method.name in CREATING or method.containing_service.name == "KeyService")


def listener(endpoints: Endpoints) -> dict[str, Any]:
    whole = yaml.safe_load(render(endpoints, Path("/logs/access.log")))
    return dict(whole["static_resources"]["listeners"][0])


def test_every_address_bucket_has_its_filter_chain_and_all_are_alike() -> None:
    public = listener(Endpoints(["127.0.0.1"], 8000, 1, 2))
    matcher, chains = public["filter_chain_matcher"], public["filter_chains"]
    named = [each["on_match"]["action"] for each in matcher["matcher_list"]["matchers"]] + [
        matcher["on_no_match"]["action"]
    ]
    assert sorted(each["typed_config"]["value"] for each in named) == [chain["name"] for chain in chains]
    for each in matcher["matcher_list"]["matchers"]:
        hashing = each["predicate"]["single_predicate"]["custom_match"]["typed_config"]
        assert hashing["modulo"] == len(chains)
        assert each["on_match"]["action"]["typed_config"]["value"] == f"crowd_{hashing['threshold']}"
    for chain in chains:
        limit = chain["filters"][0]["typed_config"]
        assert (limit["stat_prefix"], limit["max_connections"]) == (chain["name"], 1000)
        own = {"name": chain["name"], "filters": [chain["filters"][0], chains[0]["filters"][1]]}
        assert chain == chains[0] | own


def test_a_proxy_may_have_all_connections_and_keep_them() -> None:
    chains = listener(Endpoints(["127.0.0.1"], 8000, 1, 2, proxies=(ip_network("10.0.0.0/24"),)))["filter_chains"]
    assert {chain["filters"][0]["typed_config"]["max_connections"] for chain in chains} == {5000}
    assert chains[0]["filters"][1]["typed_config"]["common_http_protocol_options"] == {"idle_timeout": "620s"}
