"""Readiness: whether the bridge and the server behind it take new sessions, and how many of its own a client runs.

Liveness, which involves no server, is `LIVENESS_PATH` in `bridge.responses`.
"""

from dataclasses import dataclass
from http import HTTPStatus

import grpc
from dalston.v1.session_pb2 import ListSessionsRequest
from dalston.v1.session_pb2_grpc import SessionServiceStub
from websockets.http11 import Request, Response

from bridge.responses import error_response, json_response
from edge.health import ANSWER_SECONDS, ServerHealth
from edge.metadata import authorization, call_metadata
from edge.refusal import Refused

HEALTH_PATH = "/health"
STATUS_PATH = "/v1/realtime/status"

_NOT_ACCEPTED = "the key was not accepted"


@dataclass(frozen=True, slots=True)
class Capacity:
    """The bridge's own WebSockets."""

    open: int
    most: int


class Readiness:
    """Answers `HEALTH_PATH` and `STATUS_PATH` from the health of the server."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._server = ServerHealth(channel)
        self._sessions = SessionServiceStub(channel)

    async def answer(self, request: Request, peer: str, capacity: Capacity) -> Response | None:
        """The response to a request, or None for any other path."""
        path = request.path.partition("?")[0]
        if path not in (HEALTH_PATH, STATUS_PATH) or request.method not in ("GET", "HEAD"):
            return None
        is_serving = await self._server.is_serving()
        status = HTTPStatus.OK if is_serving else HTTPStatus.SERVICE_UNAVAILABLE
        if path == HEALTH_PATH:
            content: dict[str, object] = {"status": "healthy" if is_serving else "unhealthy"}
        elif not is_serving:
            content = {"status": "unavailable"}
        else:
            content = {"status": "ready" if capacity.open < capacity.most else "at_capacity"}
            try:
                # Only the tenant's own sessions: those of others are not for everyone.
                content |= await self._own_sessions(request, peer)
            except Refused as refused:
                return error_response(HTTPStatus.UNAUTHORIZED, refused.message)
        return json_response(status, content, with_body=request.method == "GET")

    async def _own_sessions(self, request: Request, peer: str) -> dict[str, object]:
        """How many sessions of the caller's tenant run; empty if the key lacks the scope or the server does not answer.

        Raises:
            Refused: the key is not valid.
        """
        metadata = call_metadata(
            request.headers.get_all, peer, authorization(request.headers.get_all("Authorization"), None)
        )
        wanted = ListSessionsRequest(status="active", limit=1)
        try:
            page = await self._sessions.ListSessions(wanted, metadata=metadata, timeout=ANSWER_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED and "Authorization" in request.headers:
                raise Refused("UNAUTHENTICATED", _NOT_ACCEPTED) from None
            return {}
        return {"active_sessions": page.pagination.total}
