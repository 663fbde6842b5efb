"""Which web pages may open a WebSocket. A browser sends the page's origin; a program sends none, and is let in."""

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from websockets.http11 import Request

from bridge.parameters import carries_token
from telemetry.exposure import is_loopback


@dataclass(frozen=True, slots=True)
class Pages:
    """The rule for one bridge."""

    allowed: Collection[str] = frozenset()
    """Origins that are let in whatever else holds."""
    local_only: bool = False
    """Without authentication: of other pages only those on loopback. Any page in the world can open a WebSocket to
    localhost from its visitor's browser."""
    by_token: bool = False
    """With authentication: whether pages of other hosts are refused when they come by what a page is given, a token or
    a cookie. One that holds a key needs no page."""

    def allows(self, request: Request) -> bool:
        """Whether the request's origin, if it has one, may open a WebSocket."""
        origins = request.headers.get_all("Origin")
        if all(origin in self.allowed for origin in origins):
            return True
        if self.local_only:
            return all(_is_local(origin) for origin in origins)
        if self.by_token and _comes_by_token(request):
            return all(_is_same(origin, request) for origin in origins)
        return True


def _comes_by_token(request: Request) -> bool:
    return carries_token(urlsplit(request.path).query) or "Cookie" in request.headers


def _is_local(origin: str) -> bool:
    try:
        return is_loopback(urlsplit(origin).hostname or "")
    except ValueError:
        return False


def _is_same(origin: str, request: Request) -> bool:
    """Whether a page was served by the host that it connects to, by the same scheme where the proxy tells it."""
    scheme, _, host = origin.partition("://")
    hosts = [value.lower() for value in request.headers.get_all("Host")]
    schemes = request.headers.get_all("X-Forwarded-Proto")
    return hosts == [host] and all(each == scheme for each in schemes)
