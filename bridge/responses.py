"""Responses to HTTP requests that are no WebSocket handshake: liveness, and errors in the shape of the REST API."""

import json
from collections.abc import Collection
from http import HTTPStatus
from typing import Any

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from bridge.pages import Pages
from edge.closing import ERROR_DOMAIN

LIVENESS_PATH = "/healthz"
"""Answered by the bridge itself: the process runs."""

# google.rpc.Code and the reason for the HTTP statuses that occur here.
_CODES = {
    HTTPStatus.BAD_REQUEST: (3, "INVALID_MESSAGE"),
    HTTPStatus.UNAUTHORIZED: (16, "UNAUTHENTICATED"),
    HTTPStatus.FORBIDDEN: (7, "PERMISSION_DENIED"),
    HTTPStatus.NOT_FOUND: (5, "PATH_NOT_FOUND"),
    HTTPStatus.UPGRADE_REQUIRED: (9, "INVALID_MESSAGE"),
    HTTPStatus.METHOD_NOT_ALLOWED: (12, "INVALID_MESSAGE"),
    HTTPStatus.INTERNAL_SERVER_ERROR: (13, "INTERNAL"),
    HTTPStatus.SERVICE_UNAVAILABLE: (14, "UNAVAILABLE"),
}
_OTHER = (2, "INTERNAL")
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"


def answer(request: Request, pages: Pages, paths: Collection[str]) -> Response | None:
    """The response to a request, or None for a handshake at one of the paths where WebSockets are served."""
    path = request.path.partition("?")[0]
    if path == LIVENESS_PATH and request.method in ("GET", "HEAD"):
        return json_response(HTTPStatus.OK, {"status": "ok"}, {}, with_body=request.method == "GET")
    if path not in (*paths, LIVENESS_PATH):
        return error_response(
            HTTPStatus.NOT_FOUND, f"there is nothing at this path; WebSockets are served at {', '.join(paths)}"
        )
    if request.method != "GET":
        return error_response(HTTPStatus.METHOD_NOT_ALLOWED, "the method must be GET", Allow="GET")
    if not any("websocket" in value.lower() for value in request.headers.get_all("Upgrade")):
        return error_response(HTTPStatus.UPGRADE_REQUIRED, "this address speaks WebSocket only", Upgrade="websocket")
    if not pages.allows(request):
        return error_response(HTTPStatus.FORBIDDEN, "pages of this origin are not admitted")
    return None


def in_json(response: Response) -> Response:
    """A refusal by the library, which is plain text, in the shape of the REST API; any other response unchanged."""
    if not response.headers.get("Content-Type", "").startswith("text/plain"):
        return response
    return error_response(HTTPStatus(response.status_code), bytes(response.body).decode().strip())


def error_response(status: HTTPStatus, message: str, **headers: str) -> Response:
    """An error in the shape of the REST API."""
    code, reason = _CODES.get(status, _OTHER)
    info = {"@type": _ERROR_INFO, "reason": reason, "domain": ERROR_DOMAIN, "metadata": {}}
    return json_response(status, {"code": code, "message": message, "details": [info]}, headers)


def json_response(
    status: HTTPStatus, content: dict[str, Any], extra: dict[str, str] | None = None, *, with_body: bool = True
) -> Response:
    """A response that ends its connection; `extra` are further headers."""
    body = json.dumps(content).encode()
    headers = Headers(
        {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"} | (extra or {})
    )
    return Response(status, status.phrase, headers, body if with_body else b"")
