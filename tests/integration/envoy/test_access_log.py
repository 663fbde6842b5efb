import json
import time

import httpx

from tests.integration.envoy.conftest import Front


def test_the_access_log_has_neither_query_nor_addresses(http: httpx.Client, front: Front) -> None:
    marker = "/v1/realtime/sessions/sess_logged"
    http.get(f"{marker}?api_key=SECRET&token=SECRET")
    http.get(f"/nothing?api_key=SECRET{marker}")
    deadline = time.monotonic() + 15
    while marker not in (text := front.access_log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    entries = [json.loads(line) for line in text.splitlines()]
    logged = [entry for entry in entries if entry["path"] == marker]
    assert logged
    assert logged[0]["method"] == "GET"
    assert logged[0]["status"] == 400
    assert "SECRET" not in text
    assert "127.0.0.1" not in text
