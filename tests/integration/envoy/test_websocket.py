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


@pytest.mark.parametrize("path", ["/v1/realtime/sessions", "/nothing", "/v1/realtime/stream"])
def test_a_websocket_at_another_path_is_a_404(http: httpx.Client, path: str) -> None:
    upgrade = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    answer = http.get(path, headers=upgrade)
    assert answer.status_code == 404
    assert answer.json()["message"].startswith("there is nothing at this path")
    assert PATH in answer.json()["message"]
    assert answer.json()["details"][0]["reason"] == "PATH_NOT_FOUND"


def test_envoy_logs_no_warning_for_a_websocket(front: Front) -> None:
    with connect(f"ws://127.0.0.1:{front.port}{PATH}", proxy=None) as socket:
        socket.recv()
    assert "deprecated" not in front.access_log.with_name("envoy.log").read_text()


def test_the_longest_query_of_the_contract_passes(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vocabulary of 100 terms of 50 three-byte characters."""
    monkeypatch.setattr(http11, "MAX_LINE_LENGTH", 65536)  # of the substitute
    path = f"{PATH}?vocabulary={'%E6%96%87' * 5000}"
    with connect(f"ws://127.0.0.1:{front.port}{path}", proxy=None) as socket:
        assert socket.recv() == path
