import pytest
from pydantic import ValidationError
from websockets.datastructures import Headers
from websockets.http11 import Request

from bridge.config import BridgeSettings
from bridge.pages import Pages
from bridge.protocols.native.protocol import PATH
from bridge.responses import answer

LOCAL = BridgeSettings().pages
KEYS = BridgeSettings(auth="keys", allowed_origins="https://app.example, http://localhost:3000").pages


def handshake(*origins: str, query: str = "", host: str = "api.example", **more: str) -> Request:
    headers = [("Upgrade", "websocket"), ("Host", host), *(("Origin", origin) for origin in origins), *more.items()]
    return Request(PATH + query, Headers(headers))


@pytest.mark.parametrize("origin", ["http://localhost:8324", "https://127.0.0.1", "http://[::1]:3000"])
def test_without_authentication_local_pages_are_admitted(origin: str) -> None:
    assert LOCAL.allows(handshake(origin))


def test_programs_send_no_origin_and_are_admitted() -> None:
    assert LOCAL.allows(handshake())
    assert KEYS.allows(handshake(query="?token=x"))


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "", "http://localhost.evil.example", "http://[", "https://evil@x:1"]
)
def test_without_authentication_pages_of_other_origins_are_refused_unless_allowed(origin: str) -> None:
    refusal = answer(handshake(origin), LOCAL, [PATH])
    assert refusal is not None
    assert refusal.status_code == 403
    assert BridgeSettings(allow_unauthenticated=True).pages.allows(handshake(origin))
    assert Pages(frozenset({origin}), local_only=True).allows(handshake(origin))


@pytest.mark.parametrize(
    "given",
    [
        {"query": "?language=en&token=x"},
        {"query": "?%74oken=x"},
        {"query": "?api_key=dt_x"},
        {"query": "?api_key=%64t_x"},
        {"query": "?api_key=+%0Adt_x"},
        {"Cookie": "a=b"},
    ],
)
def test_a_page_of_another_host_is_refused_by_token_and_by_cookie(given: dict[str, str]) -> None:
    assert not KEYS.allows(handshake("https://evil.example", **given))
    assert not KEYS.allows(handshake("null", **given))
    assert not KEYS.allows(handshake("https://app.example", "https://evil.example", **given))
    assert KEYS.allows(handshake("https://app.example", **given))
    assert KEYS.allows(handshake("https://api.example", **given))


def test_the_same_host_is_host_and_port_and_scheme() -> None:
    token = {"query": "?token=x"}
    assert KEYS.allows(handshake("http://api.example:8000", host="api.example:8000", **token))
    assert not KEYS.allows(handshake("http://api.example:8001", host="api.example:8000", **token))
    assert KEYS.allows(handshake("https://api.example", **token, **{"X-Forwarded-Proto": "https"}))
    assert not KEYS.allows(handshake("http://api.example", **token, **{"X-Forwarded-Proto": "https"}))


def test_a_client_with_a_key_may_use_any_page() -> None:
    assert KEYS.allows(handshake("https://evil.example", query="?api_key=x"))
    assert KEYS.allows(handshake("https://evil.example", Authorization="Bearer x"))


@pytest.mark.parametrize("text", ["*", "app.example", "https://app.example/", "https://App.example", "ftp://a", "null"])
def test_an_allowed_origin_that_no_browser_sends_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        BridgeSettings(allowed_origins=text)
