import pytest

from telemetry.exposure import refusal_to_expose


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_loopback_is_served_without_authentication(host: str) -> None:
    assert refusal_to_expose(host, "none", allowed=False) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])  # noqa: S104
def test_anything_else_is_refused_unless_allowed(host: str) -> None:
    assert "DALSTON_ALLOW_UNAUTHENTICATED" in (refusal_to_expose(host, "none", allowed=False) or "")
    assert refusal_to_expose(host, "none", allowed=True) is None
    assert refusal_to_expose(host, "keys", allowed=False) is None
