"""Who may, on every door of a stack with DALSTON_AUTH=keys, through Envoy.

The walk takes its methods and routes from the descriptors: one that is added is walked without a word here.
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
from server.rpc import unimplemented
from tests.e2e.house import (
    DOORS,
    EVERYTHING,
    NOBODYS,
    STREAM,
    Door,
    House,
    bearer,
    methods,
    until,
)

each_door = pytest.mark.parametrize("door", DOORS, ids=str)


@pytest.fixture(scope="module")
async def revoked(house: House) -> str:
    made = await house.make_key(*EVERYTHING)
    answer = await house.http.delete(f"/v1/keys/{made['key']['id']}", headers=bearer(house.admin))
    assert answer.status_code == 200
    return str(made["secret"])


@pytest.fixture(scope="module")
async def expired(house: House) -> str:
    made = await house.make_key(*EVERYTHING, expires_in_seconds=60)
    key_id = UUID(hex=made["key"]["id"].removeprefix("key_"))
    await house.database.execute("UPDATE api_keys SET expires_at = now() WHERE id = $1", key_id)
    return str(made["secret"])


@pytest.fixture(scope="module")
async def others(house: House) -> str:
    """A key of another tenant that may do everything."""
    return await house.make_tenant("rival", *EVERYTHING, requests_per_second=1000)


WRONG = "dk_" + "w" * 43


def test_every_method_of_every_service_has_a_scope_and_a_name_of_its_own() -> None:
    names = [method.name for method in methods()]
    assert sorted(names) == sorted(NEEDED)
    assert len(SERVICES) == len({method.containing_service.full_name for method in methods()})


@each_door
async def test_no_key_and_a_wrong_and_a_revoked_and_an_expired_one_are_refused_alike(
    house: House, door: Door, revoked: str, expired: str
) -> None:
    secrets = None, WRONG, "nonsense", revoked, expired, house.admin[:-1] + ("A" if house.admin[-1] != "A" else "Q")
    answers = [await house.try_door(door, secret) for secret in secrets]
    assert {answer.code for answer in answers} == {"UNAUTHENTICATED"}
    assert {answer.reason for answer in answers} == {"UNAUTHENTICATED"}
    assert len({answer.message for answer in answers}) == 1
    if door.verb:
        assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}


@each_door
async def test_a_key_without_the_scope_is_told_which_it_lacks(house: House, door: Door) -> None:
    needed = NEEDED[door.method.name]
    lacking = await house.make_key(*(scope for scope in EVERYTHING if scope != needed))
    answer = await house.try_door(door, lacking["secret"])
    assert (answer.code, answer.reason, answer.metadata) == (
        "PERMISSION_DENIED",
        "PERMISSION_DENIED",
        {"scope": needed},
    )
    assert needed in answer.message


@each_door
async def test_what_is_another_tenant_s_is_not_there(house: House, door: Door, others: str) -> None:
    fields = door.method.input_type.fields_by_name
    if not {"session_id", "key_id"} & set(fields):
        answer = await house.try_door(door, others)
        assert answer.code == ("OK" if door.is_built else "UNIMPLEMENTED")
        seen = answer.body if isinstance(answer.body, bytes) else str(answer.body).encode()
        for mine in (*house.sessions.values(), house.key):
            assert mine.encode() not in (seen or b"")
        return
    for session_id in house.sessions.values():
        answer = await house.try_door(door, others, session_id)
        if not door.is_built:
            assert answer.code == "UNIMPLEMENTED"
            continue
        assert (answer.code, answer.reason) in {("NOT_FOUND", "SESSION_NOT_FOUND"), ("NOT_FOUND", "KEY_NOT_FOUND")}
    nobodys = await house.try_door(door, others, "sess_" + "0" * 32)
    assert nobodys.code == ("NOT_FOUND" if door.is_built else "UNIMPLEMENTED")


async def test_the_owner_sees_what_the_others_do_not(house: House) -> None:
    for state, session_id in house.sessions.items():
        answer = await house.http.get(f"/v1/realtime/sessions/{session_id}", headers=bearer(house.admin))
        assert answer.status_code == (404 if state == "deleted" else 200)
        assert answer.json().get("status", "deleted") == state
    path = f"/v1/realtime/sessions/{house.sessions['completed']}/audio"
    assert (await house.http.get(path, headers=bearer(house.admin))).status_code == 200


async def test_health_and_reflection_are_open(house: House) -> None:
    answer = await health_pb2_grpc.HealthStub(house.channel).Check(
        health_pb2.HealthCheckRequest(service="dalston.v1.KeyService")
    )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_grpc_web_asks_for_a_key_too(house: House) -> None:
    headers = {"content-type": "application/grpc-web+proto", "accept": "application/grpc-web+proto"}
    path = "/dalston.v1.SessionService/ListSessions"
    refused = await house.http.post(path, content=bytes(5), headers=headers)
    assert refused.headers["grpc-status"] == "16"
    served = await house.http.post(path, content=bytes(5), headers=headers | bearer(house.admin))
    assert b"grpc-status:0" in served.content or served.headers.get("grpc-status") == "0"


# --- the WebSocket


async def test_the_websocket_takes_a_key_in_the_header_and_in_the_query(house: House) -> None:
    for query, headers in ((f"api_key={house.admin}", {}), ("", bearer(house.admin)), (f"token={house.admin}", {})):
        code, messages = await house.socket(query, **headers)
        assert (code, messages[0]["type"]) == (1000, "session.begin")


async def test_the_websocket_refuses_who_has_no_right_to_it(house: House, revoked: str, expired: str) -> None:
    for query in ("", f"api_key={WRONG}", f"api_key={revoked}", f"token={expired}", "token=nonsense"):
        code, messages = await house.socket(query)
        assert (code, messages[-1]["code"]) == (4001, "unauthenticated"), query
    reader = await house.make_key("sessions:read")
    code, messages = await house.socket(f"api_key={reader['secret']}")
    assert (code, messages[-1]["code"]) == (4003, "permission_denied")
    assert "realtime" in messages[-1]["message"]


async def test_the_websocket_does_not_go_on_with_another_tenant_s_session(house: House, others: str) -> None:
    for session_id in house.sessions.values():
        _, messages = await house.socket(f"resume_session_id={session_id}&api_key={others}")
        if "resume_session_id" in unimplemented.CONFIG_FIELDS:
            assert messages[-1]["code"] == "unimplemented"
        else:
            assert messages[-1]["code"] == "session_not_found"


async def test_what_is_logged_of_a_call_names_its_tenant_and_key(house: House) -> None:
    made = await house.make_key("sessions:read")
    await house.http.get("/v1/realtime/sessions", headers=bearer(made["secret"]))

    async def is_logged() -> bool:
        lines = house.stack.home.log("server").read_text().splitlines()
        return any(made["key"]["id"] in line and "call ended" in line and "tenant_id" in line for line in lines)

    await until(is_logged)
    ended = [line for line in house.stack.home.log("server").read_text().splitlines() if "call ended" in line]
    # Who a call that lasts belongs to was known when its key was revoked.
    at_once = [line for line in ended if '"ListSessions"' in line or '"ListKeys"' in line]
    assert not [line for line in at_once if "UNAUTHENTICATED" in line and "tenant_id" in line]


async def test_the_log_names_keys_that_are_made_and_revoked_and_by_which(house: House) -> None:
    made = (await house.make_key("sessions:read"))["key"]["id"]
    await house.http.delete(f"/v1/keys/{made}", headers=bearer(house.admin))

    async def is_logged() -> bool:
        lines = house.stack.home.log("server").read_text().splitlines()
        named = [line for line in lines if made in line and "key_id" in line]
        return any("key made" in line for line in named) and any("key revoked" in line for line in named)

    await until(is_logged)


async def test_a_token_opens_one_live_session_once_and_nothing_else(house: House) -> None:
    key = (await house.make_key("realtime", "sessions:read"))["secret"]
    token = await house.make_token(key)
    assert (await house.http.get("/v1/realtime/sessions", headers=bearer(token))).status_code == 401
    assert (await house.http.post("/v1/realtime/tokens", json={}, headers=bearer(token))).status_code == 401
    code, messages = await house.socket(f"token={token}&sample_rate=1")
    assert (code, messages[-1]["code"]) == (4400, "invalid_parameters"), "it is not spent by a session that never began"
    code, _ = await house.socket(f"token={token}")
    assert code == 1000
    code, messages = await house.socket(f"token={token}")
    assert (code, messages[-1]["code"]) == (4001, "unauthenticated")


async def test_a_token_of_a_revoked_key_opens_nothing(house: House) -> None:
    made = await house.make_key("realtime")
    token = await house.make_token(made["secret"])
    await house.http.delete(f"/v1/keys/{made['key']['id']}", headers=bearer(house.admin))
    assert (await house.socket(f"token={token}"))[0] == 4001


async def test_a_page_of_another_host_cannot_use_a_token(house: House) -> None:
    token = await house.make_token(house.admin)
    for name in ("token", "api_key"):
        with pytest.raises(InvalidStatus) as refused:
            await house.socket(f"{name}={token}", Origin="https://evil.example")
        assert refused.value.response.status_code == 403
    with pytest.raises(InvalidStatus):
        await house.socket(f"token={token}", Origin=house.stack.base_url.replace("http://", "https://"))
    code, _ = await house.socket(f"token={token}", Origin="https://app.example")
    assert code == 1000
    token = await house.make_token(house.admin)
    code, _ = await house.socket(f"token={token}", Origin=house.stack.base_url)
    assert code == 1000


# --- keys


async def test_a_revoked_key_is_refused_within_seconds(house: House) -> None:
    made = await house.make_key("sessions:read")
    path = "/v1/realtime/sessions"
    assert (await house.http.get(path, headers=bearer(made["secret"]))).status_code == 200
    await house.http.delete(f"/v1/keys/{made['key']['id']}", headers=bearer(house.admin))

    async def is_refused() -> bool:
        return (await house.http.get(path, headers=bearer(made["secret"]))).status_code == 401

    await until(is_refused, 10)


async def test_keys_over_rest(house: House) -> None:
    made = await house.make_key("sessions:read", "realtime", expires_in_seconds=3600)
    key = made["key"]
    assert set(key) == {"id", "name", "prefix", "scopes", "created_at", "expires_at", "created_by"}
    assert made["secret"].startswith(key["prefix"])
    listed = (await house.http.get("/v1/keys?limit=1", headers=bearer(house.admin))).json()
    assert [each["id"] for each in listed["keys"]] == [key["id"]]
    assert "secret" not in json.dumps(listed)
    # As `curl -d` sends it.
    headers = {"content-type": "application/x-www-form-urlencoded", **bearer(house.admin)}
    curled = await house.http.post("/v1/realtime/tokens", content='{"expires_in_seconds": 10}', headers=headers)
    assert curled.status_code == 200
    older = await house.http.get(f"/v1/keys?cursor={listed['next_cursor']}", headers=bearer(house.admin))
    assert key["id"] not in older.text
    gone = await house.http.delete(f"/v1/keys/{key['id']}", headers=bearer(house.admin))
    assert gone.json()["revoked_at"]
    assert (await house.http.delete(f"/v1/keys/{NOBODYS}", headers=bearer(house.admin))).status_code == 404


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
async def test_what_is_wrong_with_a_key_is_named(house: House, path: str, body: dict[str, Any], parameter: str) -> None:
    answer = await house.http.post(path, json=body, headers=bearer(house.admin))
    assert answer.status_code == 400
    assert answer.json()["details"][0]["metadata"] == {"parameter": parameter}
    assert parameter in answer.json()["message"]


async def test_a_body_too_large_is_refused(house: House) -> None:
    answer = await house.http.post("/v1/keys", json={"name": "x" * 70_000}, headers=bearer(house.admin))
    assert answer.status_code == 413


# --- what is not said


async def test_no_key_and_no_token_is_in_any_log_or_in_the_database(house: House, revoked: str, expired: str) -> None:
    fresh = (await house.make_key(*EVERYTHING))["secret"]
    token = await house.make_token(fresh)
    await house.http.get("/v1/realtime/sessions", headers=bearer(fresh))
    await house.http.get(f"/v1/realtime/sessions?api_key={fresh}")
    await house.http.get(f"/v1/nothing?token={token}&api_key={fresh}")
    await house.http.get(f"{STREAM}?api_key={fresh}")
    await house.socket(f"api_key={fresh}&colour=red")
    await house.socket(f"api_key={fresh}")
    await house.socket(f"token={token}")
    await house.socket(f"token={token}")
    await house.try_door(DOORS[0], fresh)
    marker = "/v1/realtime/sessions/last-of-all"
    await house.http.get(marker, headers=bearer(fresh))

    async def is_logged() -> bool:
        return marker in house.stack.home.log("access").read_text()

    await until(is_logged)
    secrets = [each[11:] for each in (fresh, token, house.admin, revoked, expired)]
    logs = list(house.stack.home.path.glob("logs/*")) + list((house.stack.home.path / "envoy").glob("*.json"))
    assert {"access.log", "server.log", "bridge.log", "envoy.log", "postgres.log"} <= {log.name for log in logs}
    for log in logs:
        text = log.read_text(errors="replace")
        assert not [each for each in secrets if each in text], log.name
    tables = await house.database.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for (table,) in tables:
        rows = "\n".join(row[0] for row in await house.database.fetch(f"SELECT t::text FROM {table} AS t"))  # noqa: S608
        assert not [each for each in secrets if each in rows], table


# --- pages of other hosts


async def test_pages_of_named_hosts_may_ask_and_no_others(house: House) -> None:
    ask = {"access-control-request-method": "GET", "access-control-request-headers": "authorization"}
    path = "/v1/realtime/sessions"
    allowed = await house.http.request("OPTIONS", path, headers={"origin": "https://app.example", **ask})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert "authorization" in allowed.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in allowed.headers
    refused = await house.http.request("OPTIONS", path, headers={"origin": "https://evil.example", **ask})
    assert "access-control-allow-origin" not in refused.headers
    for origin, may_read in (("https://app.example", True), ("https://evil.example", False)):
        answer = await house.http.get(path, headers={"origin": origin, **bearer(house.admin)})
        assert answer.status_code == 200
        assert ("access-control-allow-origin" in answer.headers) is may_read
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_walk_covers_all_three_services() -> None:
    assert {door.method.containing_service.name for door in DOORS} == {
        "TranscriptionService",
        "SessionService",
        "KeyService",
    }
