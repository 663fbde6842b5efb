"""Which web pages may open a WebSocket. A browser sends the page's origin; a program sends none, and is admitted."""

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import unquote_plus, urlsplit

from websockets.http11 import Request

from telemetry.exposure import is_loopback

_TOKEN_PREFIX = "dt_"  # noqa: S105 - it distinguishes a token from a key


@dataclass(frozen=True, slots=True)
class Pages:
    """The rule for one bridge."""

    allowed: Collection[str] = frozenset()
    """Origins that are admitted whatever else applies."""
    local_only: bool = False
    """Without authentication: of other pages, only those on loopback are admitted. Any page in the world can open a
    WebSocket to localhost from its visitor's browser."""
    by_token: bool = False
    """With authentication: whether pages of other hosts are refused when they authenticate with a token or a cookie,
    which a page is given. A client that holds a key may use any page."""

    def allows(self, request: Request) -> bool:
        """Whether the request's origin, if it has one, may open a WebSocket."""
        origins = request.headers.get_all("Origin")
        if all(origin in self.allowed for origin in origins):
            return True
        if self.local_only:
            return all(_is_local(origin) for origin in origins)
        if self.by_token and _uses_token(request):
            return all(_is_same(origin, request) for origin in origins)
        return True


def _uses_token(request: Request) -> bool:
    return _has_token(urlsplit(request.path).query) or "Cookie" in request.headers


def _has_token(query: str) -> bool:
    """Whether a query string holds a token, judged by its name and by its prefix."""
    return any(_is_token(*pair.partition("=")[::2]) for pair in query.split("&"))


def _is_token(raw_name: str, raw_value: str) -> bool:
    # The server ignores blanks around a secret.
    return unquote_plus(raw_name) == "token" or unquote_plus(raw_value).strip().startswith(_TOKEN_PREFIX)


def _is_local(origin: str) -> bool:
    try:
        return is_loopback(urlsplit(origin).hostname or "")
    except ValueError:
        return False


def _is_same(origin: str, request: Request) -> bool:
    """Whether a page was served by the host that it connects to, with the same scheme where the proxy sends it."""
    scheme, _, host = origin.partition("://")
    hosts = [value.lower() for value in request.headers.get_all("Host")]
    schemes = request.headers.get_all("X-Forwarded-Proto")
    return hosts == [host] and all(each == scheme for each in schemes)
