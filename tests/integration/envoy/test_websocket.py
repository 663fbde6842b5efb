import httpx
import pytest
from websockets import http11
from websockets.sync.client import connect

from tests.integration.envoy.conftest import Front

PATH = "/v1/audio/transcriptions/stream"


def test_a_websocket_reaches_the_bridge_with_its_query(front: Front) -> None:
    url = f"ws://127.0.0.1:{front.port}{PATH}?store_audio=true&language=en"
    with connect(url, proxy=None) as socket:
        assert socket.recv() == f"{PATH}?store_audio=true&language=en"
        socket.send(b"\x00" * 65536)
        assert socket.recv() == b"\x00" * 65536


def test_a_websocket_anywhere_else_is_refused_in_json(http: httpx.Client) -> None:
    upgrade = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    answer = http.get("/v1/realtime/sessions", headers=upgrade)
    assert answer.status_code in (403, 404)
    assert answer.json()["message"]


def test_the_longest_query_of_the_contract_passes(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vocabulary of 100 terms of 50 three-byte characters."""
    monkeypatch.setattr(http11, "MAX_LINE_LENGTH", 65536)  # of the stand-in
    path = f"{PATH}?vocabulary={'%E6%96%87' * 5000}"
    with connect(f"ws://127.0.0.1:{front.port}{path}", proxy=None) as socket:
        assert socket.recv() == path
