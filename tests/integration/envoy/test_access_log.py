import json
import time
from contextlib import suppress

import httpx

from tests.integration.envoy.conftest import Front


def test_the_access_log_has_neither_query_nor_addresses(http: httpx.Client, front: Front) -> None:
    marker = "/v1/realtime/sessions/sess_logged"
    http.get(f"{marker}?api_key=SECRET&token=SECRET")
    http.get(f"/nothing?api_key=SECRET{marker}")
    deadline = time.monotonic() + 15
    while marker not in (text := front.logged()) and time.monotonic() < deadline:
        time.sleep(0.1)
    entries = [json.loads(line) for line in text.splitlines()]
    logged = [entry for entry in entries if entry["path"] == marker]
    assert logged
    assert logged[0]["method"] == "GET"
    assert logged[0]["status"] == 400
    assert "SECRET" not in text
    assert "127.0.0.1" not in text


def test_texts_of_a_client_are_truncated(http: httpx.Client, front: Front) -> None:
    marker = "/v1/realtime/sessions/sess_long"
    long = "x" * 60_000
    assert http.get(marker + long, headers={"user-agent": "curl"}).status_code == 404
    http.get(marker, headers=dict.fromkeys(("user-agent", "referer", "x-request-id", "x-forwarded-for"), long[:10000]))
    with suppress(httpx.HTTPError):
        http.request("X" * 60_000, marker)
    deadline = time.monotonic() + 15
    while front.logged().count(marker) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    lines = front.logged().splitlines()
    assert [line for line in lines if marker in line]
    assert max(len(line) for line in lines) < 1024


def test_what_reaches_the_service_has_its_line_and_of_what_does_not_few_are_written(
    http: httpx.Client, front: Front
) -> None:
    served, refused = "/v1/realtime/sessions/sess_served", "/nothing/here"
    began = time.monotonic()
    for _ in range(40):
        for _ in range(20):
            assert http.get(refused).status_code in (404, 429)
        http.get(served)
    last = "/v1/realtime/sessions/sess_last"
    http.get(last)
    # 200 lines and then 10 a second, of all that is refused.
    most = 200 + 10 * (time.monotonic() - began + 1)
    deadline = time.monotonic() + 15
    while last not in (text := front.logged()) and time.monotonic() < deadline:
        time.sleep(0.1)
    paths = [json.loads(line)["path"] for line in text.splitlines()]
    assert paths.count(served) == 40
    assert paths.count(refused) <= most
