"""Authentication and authorization on every interface of a stack with DALSTON_AUTH=keys, through Envoy.

The tests take methods and routes from the descriptors, so that they cover a new one without a change here.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from websockets.exceptions import InvalidStatus

from server.access.scopes import SCOPES as NEEDED
from server.app import SERVICES
from tests.e2e.harness import (
    EVERYTHING,
    ROUTES,
    STREAM,
    UNKNOWN_KEY_ID,
    Harness,
    Route,
    all_methods,
    bearer,
    until,
)

each_route = pytest.mark.parametrize("route", ROUTES, ids=str)


@pytest.fixture(scope="module")
async def revoked(harness: Harness) -> str:
    made = await harness.make_key(*EVERYTHING)
    answer = await harness.http.delete(f"/v1/keys/{made['key']['id']}", headers=bearer(harness.admin))
    assert answer.status_code == 200
    return str(made["secret"])


@pytest.fixture(scope="module")
async def expired(harness: Harness) -> str:
    made = await harness.make_key(*EVERYTHING, expires_in_seconds=60)
    key_id = UUID(hex=made["key"]["id"].removeprefix("key_"))
    await harness.database.execute("UPDATE api_keys SET expires_at = now() WHERE id = $1", key_id)
    return str(made["secret"])


@pytest.fixture(scope="module")
async def others(harness: Harness) -> str:
    """A key of another tenant with all scopes."""
    return await harness.make_tenant("rival", *EVERYTHING, requests_per_second=1000)


WRONG = "dk_" + "w" * 43


def test_every_method_has_a_scope_and_a_unique_name() -> None:
    names = [method.name for method in all_methods()]
    assert sorted(names) == sorted(NEEDED)
    assert len(SERVICES) == len({method.containing_service.full_name for method in all_methods()})


@each_route
async def test_missing_wrong_revoked_and_expired_keys_are_refused_alike(
    harness: Harness, route: Route, revoked: str, expired: str
) -> None:
    secrets = None, WRONG, "nonsense", revoked, expired, harness.admin[:-1] + ("A" if harness.admin[-1] != "A" else "Q")
    answers = [await harness.call_route(route, secret) for secret in secrets]
    assert {answer.code for answer in answers} == {"UNAUTHENTICATED"}
    assert {answer.reason for answer in answers} == {"UNAUTHENTICATED"}
    assert len({answer.message for answer in answers}) == 1
    if route.verb:
        assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}


@each_route
async def test_a_key_without_the_scope_gets_its_name(harness: Harness, route: Route) -> None:
    needed = NEEDED[route.method.name]
    if needed is None:
        key = (await harness.make_key("realtime"))["secret"]
        assert (await harness.call_route(route, key)).code == "OK", "any key is enough"
        return
    lacking = await harness.make_key(*(scope for scope in EVERYTHING if scope != needed))
    answer = await harness.call_route(route, lacking["secret"])
    assert (answer.code, answer.reason, answer.metadata) == (
        "PERMISSION_DENIED",
        "PERMISSION_DENIED",
        {"scope": needed},
    )
    assert needed in answer.message


@each_route
async def test_sessions_and_keys_of_another_tenant_are_not_found(harness: Harness, route: Route, others: str) -> None:
    fields = route.method.input_type.fields_by_name
    if route.method.name == "ListJobs" or not {"session_id", "job_id", "key_id"} & set(fields):
        answer = await harness.call_route(route, others)
        assert answer.code == "OK"
        seen = answer.body if isinstance(answer.body, bytes) else str(answer.body).encode()
        for mine in (*harness.sessions.values(), harness.job, harness.key):
            assert mine.encode() not in (seen or b"")
        return
    for session_id in harness.sessions.values():
        answer = await harness.call_route(route, others, session_id)
        assert answer.code == "NOT_FOUND"
        assert answer.reason in {"SESSION_NOT_FOUND", "JOB_NOT_FOUND", "KEY_NOT_FOUND"}
    unknown = await harness.call_route(route, others, "sess_" + "0" * 32)
    assert unknown.code == "NOT_FOUND"


async def test_a_tenant_finds_its_own_sessions(harness: Harness) -> None:
    for state, session_id in harness.sessions.items():
        answer = await harness.http.get(f"/v1/realtime/sessions/{session_id}", headers=bearer(harness.admin))
        assert answer.status_code == (404 if state == "deleted" else 200)
        assert answer.json().get("status", "deleted") == state
    path = f"/v1/realtime/sessions/{harness.sessions['completed']}/audio"
    assert (await harness.http.get(path, headers=bearer(harness.admin))).status_code == 200


async def test_health_and_reflection_are_open(harness: Harness) -> None:
    answer = await health_pb2_grpc.HealthStub(harness.channel).Check(
        health_pb2.HealthCheckRequest(service="dalston.v1.KeyService")
    )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_grpc_web_needs_a_key(harness: Harness) -> None:
    headers = {"content-type": "application/grpc-web+proto", "accept": "application/grpc-web+proto"}
    path = "/dalston.v1.SessionService/ListSessions"
    refused = await harness.http.post(path, content=bytes(5), headers=headers)
    assert refused.headers["grpc-status"] == "16"
    served = await harness.http.post(path, content=bytes(5), headers=headers | bearer(harness.admin))
    assert b"grpc-status:0" in served.content or served.headers.get("grpc-status") == "0"


# --- the WebSocket


async def test_the_websocket_accepts_a_key_in_header_and_query(harness: Harness) -> None:
    for query, headers in (
        (f"api_key={harness.admin}", {}),
        ("", bearer(harness.admin)),
        (f"token={harness.admin}", {}),
    ):
        code, messages = await harness.socket(query, **headers)
        assert (code, messages[0]["type"]) == (1000, "session.begin")


async def test_the_websocket_refuses_invalid_keys_and_missing_scopes(
    harness: Harness, revoked: str, expired: str
) -> None:
    for query in ("", f"api_key={WRONG}", f"api_key={revoked}", f"token={expired}", "token=nonsense"):
        code, messages = await harness.socket(query)
        assert (code, messages[-1]["code"]) == (4001, "unauthenticated"), query
    reader = await harness.make_key("sessions:read")
    code, messages = await harness.socket(f"api_key={reader['secret']}")
    assert (code, messages[-1]["code"]) == (4003, "permission_denied")
    assert "realtime" in messages[-1]["message"]


async def test_the_websocket_does_not_resume_a_session_of_another_tenant(harness: Harness, others: str) -> None:
    for session_id in harness.sessions.values():
        _, messages = await harness.socket(f"resume_session_id={session_id}&api_key={others}")
        assert messages[-1]["code"] == "session_not_found"


async def test_the_log_of_a_call_names_its_tenant_and_key(harness: Harness) -> None:
    made = await harness.make_key("sessions:read")
    await harness.http.get("/v1/realtime/sessions", headers=bearer(made["secret"]))

    async def is_logged() -> bool:
        lines = harness.stack.home.log("server").read_text().splitlines()
        return any(made["key"]["id"] in line and "call ended" in line and "tenant_id" in line for line in lines)

    await until(is_logged)
    ended = [line for line in harness.stack.home.log("server").read_text().splitlines() if "call ended" in line]
    # The key of a long call may have been revoked after its tenant was known.
    at_once = [line for line in ended if '"ListSessions"' in line or '"ListKeys"' in line]
    assert not [line for line in at_once if "UNAUTHENTICATED" in line and "tenant_id" in line]


async def test_the_log_names_created_and_revoked_keys(harness: Harness) -> None:
    made = (await harness.make_key("sessions:read"))["key"]["id"]
    await harness.http.delete(f"/v1/keys/{made}", headers=bearer(harness.admin))

    async def is_logged() -> bool:
        lines = harness.stack.home.log("server").read_text().splitlines()
        named = [line for line in lines if made in line and "key_id" in line]
        return any("key created" in line for line in named) and any("key revoked" in line for line in named)

    await until(is_logged)


async def test_a_token_opens_one_live_session_once_and_nothing_else(harness: Harness) -> None:
    key = (await harness.make_key("realtime", "sessions:read"))["secret"]
    token = await harness.make_token(key)
    assert (await harness.http.get("/v1/realtime/sessions", headers=bearer(token))).status_code == 401
    assert (await harness.http.post("/v1/realtime/tokens", json={}, headers=bearer(token))).status_code == 401
    code, messages = await harness.socket(f"token={token}&sample_rate=1")
    assert (code, messages[-1]["code"]) == (4400, "invalid_parameters"), "a session that never began does not spend it"
    code, _ = await harness.socket(f"token={token}")
    assert code == 1000
    code, messages = await harness.socket(f"token={token}")
    assert (code, messages[-1]["code"]) == (4001, "unauthenticated")


async def test_a_token_of_a_revoked_key_opens_nothing(harness: Harness) -> None:
    made = await harness.make_key("realtime")
    token = await harness.make_token(made["secret"])
    await harness.http.delete(f"/v1/keys/{made['key']['id']}", headers=bearer(harness.admin))
    assert (await harness.socket(f"token={token}"))[0] == 4001


async def test_a_page_of_another_host_cannot_use_a_token(harness: Harness) -> None:
    token = await harness.make_token(harness.admin)
    for name in ("token", "api_key"):
        with pytest.raises(InvalidStatus) as refused:
            await harness.socket(f"{name}={token}", Origin="https://evil.example")
        assert refused.value.response.status_code == 403
    with pytest.raises(InvalidStatus):
        await harness.socket(f"token={token}", Origin=harness.stack.base_url.replace("http://", "https://"))
    code, _ = await harness.socket(f"token={token}", Origin="https://app.example")
    assert code == 1000
    token = await harness.make_token(harness.admin)
    code, _ = await harness.socket(f"token={token}", Origin=harness.stack.base_url)
    assert code == 1000


# --- keys


async def test_a_revoked_key_is_refused_within_seconds(harness: Harness) -> None:
    made = await harness.make_key("sessions:read")
    path = "/v1/realtime/sessions"
    assert (await harness.http.get(path, headers=bearer(made["secret"]))).status_code == 200
    await harness.http.delete(f"/v1/keys/{made['key']['id']}", headers=bearer(harness.admin))

    async def is_refused() -> bool:
        return (await harness.http.get(path, headers=bearer(made["secret"]))).status_code == 401

    await until(is_refused, 10)


async def test_keys_over_rest(harness: Harness) -> None:
    made = await harness.make_key("sessions:read", "realtime", expires_in_seconds=3600)
    key = made["key"]
    assert set(key) == {"id", "name", "prefix", "scopes", "created_at", "expires_at", "created_by"}
    assert made["secret"].startswith(key["prefix"])
    listed = (await harness.http.get("/v1/keys?limit=1", headers=bearer(harness.admin))).json()
    assert [each["id"] for each in listed["keys"]] == [key["id"]]
    assert "secret" not in json.dumps(listed)
    # As `curl -d` sends it.
    headers = {"content-type": "application/x-www-form-urlencoded", **bearer(harness.admin)}
    curled = await harness.http.post("/v1/realtime/tokens", content='{"expires_in_seconds": 10}', headers=headers)
    assert curled.status_code == 200
    older = await harness.http.get(f"/v1/keys?cursor={listed['next_cursor']}", headers=bearer(harness.admin))
    assert key["id"] not in older.text
    gone = await harness.http.delete(f"/v1/keys/{key['id']}", headers=bearer(harness.admin))
    assert gone.json()["revoked_at"]
    assert (await harness.http.delete(f"/v1/keys/{UNKNOWN_KEY_ID}", headers=bearer(harness.admin))).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "parameter"),
    [
        ("/v1/keys", {"scopes": ["realtime"]}, "name"),
        ("/v1/keys", {"name": "x" * 101, "scopes": ["realtime"]}, "name"),
        ("/v1/keys", {"name": "a\nb", "scopes": ["realtime"]}, "name"),
        ("/v1/keys", {"name": "x"}, "scopes"),
        ("/v1/keys", {"name": "x", "scopes": ["root"]}, "scopes"),
        ("/v1/keys", {"name": "x", "scopes": ["admin"], "expires_in_seconds": 59}, "expires_in_seconds"),
        ("/v1/realtime/tokens", {"expires_in_seconds": 601}, "expires_in_seconds"),
        ("/v1/realtime/tokens", {"expires_in_seconds": 0}, "expires_in_seconds"),
    ],
)
async def test_the_error_names_the_invalid_parameter_of_a_key(
    harness: Harness, path: str, body: dict[str, Any], parameter: str
) -> None:
    answer = await harness.http.post(path, json=body, headers=bearer(harness.admin))
    assert answer.status_code == 400
    assert answer.json()["details"][0]["metadata"] == {"parameter": parameter}
    assert parameter in answer.json()["message"]


async def test_a_body_too_large_is_refused(harness: Harness) -> None:
    answer = await harness.http.post("/v1/keys", json={"name": "x" * 70_000}, headers=bearer(harness.admin))
    assert answer.status_code == 413


# --- secrets


async def test_no_secret_is_in_a_log_or_in_the_database(harness: Harness, revoked: str, expired: str) -> None:
    fresh = (await harness.make_key(*EVERYTHING))["secret"]
    token = await harness.make_token(fresh)
    await harness.http.get("/v1/realtime/sessions", headers=bearer(fresh))
    await harness.http.get(f"/v1/realtime/sessions?api_key={fresh}")
    await harness.http.get(f"/v1/nothing?token={token}&api_key={fresh}")
    await harness.http.get(f"{STREAM}?api_key={fresh}")
    await harness.socket(f"api_key={fresh}&colour=red")
    await harness.socket(f"api_key={fresh}")
    await harness.socket(f"token={token}")
    await harness.socket(f"token={token}")
    await harness.call_route(ROUTES[0], fresh)
    marker = "/v1/realtime/sessions/last-of-all"
    await harness.http.get(marker, headers=bearer(fresh))

    async def is_logged() -> bool:
        return marker in harness.stack.home.log("access").read_text()

    await until(is_logged)
    secrets = [each[11:] for each in (fresh, token, harness.admin, revoked, expired)]
    logs = list(harness.stack.home.path.glob("logs/*")) + list((harness.stack.home.path / "envoy").glob("*.json"))
    assert {"access.log", "server.log", "bridge.log", "envoy.log", "postgres.log"} <= {log.name for log in logs}
    for log in logs:
        text = log.read_text(errors="replace")
        assert not [each for each in secrets if each in text], log.name
    tables = await harness.database.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for (table,) in tables:
        rows = "\n".join(row[0] for row in await harness.database.fetch(f"SELECT t::text FROM {table} AS t"))  # noqa: S608
        assert not [each for each in secrets if each in rows], table


# --- pages of other hosts


async def test_only_pages_of_listed_hosts_may_send_requests(harness: Harness) -> None:
    ask = {"access-control-request-method": "GET", "access-control-request-headers": "authorization"}
    path = "/v1/realtime/sessions"
    allowed = await harness.http.request("OPTIONS", path, headers={"origin": "https://app.example", **ask})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert "authorization" in allowed.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in allowed.headers
    refused = await harness.http.request("OPTIONS", path, headers={"origin": "https://evil.example", **ask})
    assert "access-control-allow-origin" not in refused.headers
    for origin, may_read in (("https://app.example", True), ("https://evil.example", False)):
        answer = await harness.http.get(path, headers={"origin": origin, **bearer(harness.admin)})
        assert answer.status_code == 200
        assert ("access-control-allow-origin" in answer.headers) is may_read
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_routes_cover_all_services() -> None:
    assert {route.method.containing_service.name for route in ROUTES} == {
        "TranscriptionService",
        "SessionService",
        "JobService",
        "FileService",
        "KeyService",
        "StatusService",
    }
