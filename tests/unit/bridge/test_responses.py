import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request

from bridge.responses import STREAM_PATH, answer


def handshake(*origins: str) -> Request:
    return Request(STREAM_PATH, Headers([("Upgrade", "websocket"), *(("Origin", origin) for origin in origins)]))


@pytest.mark.parametrize("origin", ["http://localhost:8324", "https://127.0.0.1", "http://[::1]:3000"])
def test_pages_of_this_machine_are_let_in(origin: str) -> None:
    assert answer(handshake(origin), any_origin=False) is None


def test_programs_send_no_origin_and_are_let_in() -> None:
    assert answer(handshake(), any_origin=False) is None


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "", "http://localhost.evil.example", "http://[", "https://evil@x:1"]
)
def test_pages_of_other_origins_are_not_unless_all_are(origin: str) -> None:
    refusal = answer(handshake(origin), any_origin=False)
    assert refusal is not None
    assert refusal.status_code == 403
    assert answer(handshake(origin), any_origin=True) is None
