"""`dalston status`: whether the service is there, door by door."""

from __future__ import annotations

import asyncio
import json as json_module
import ssl
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dalston.cli import connection, output
from dalston.cli.exits import ExitCode

if TYPE_CHECKING:
    from dalston.calls import Calls
    from dalston.endpoint import Endpoint

_SERVING = b"\x08\x01"
_UPGRADE_REQUIRED = 426
_LARGEST_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class InterfaceStatus:
    """One of the ways in."""

    name: str
    is_open: bool
    detail: str = ""


def status(
    ctx: typer.Context, json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False
) -> None:
    """Says whether the service is there, door by door.

    The exit code is 0 if all doors are open and 1 if not. No key is needed; if there is one, it is tried.
    """
    from dalston import background

    calls = connection.calls(ctx)
    try:
        interfaces, key, version = background.run(_look(calls))
    finally:
        background.run(calls.close())
    scheme = "https" if calls.endpoint.is_secure else "http"
    url = f"{scheme}://{calls.endpoint.address}"
    is_healthy = all(interface.is_open for interface in interfaces)
    if json:
        shown = [
            {"name": interface.name, "open": interface.is_open, "detail": interface.detail} for interface in interfaces
        ]
        output.say_json({"url": url, "healthy": is_healthy, "version": version, "key": key, "doors": shown})
    else:
        rows = [("url", url), ("healthy", "yes" if is_healthy else "no"), ("version", version or "unknown")]
        rows += [
            (interface.name, "open" if interface.is_open else f"closed: {interface.detail}") for interface in interfaces
        ]
        output.say_fields([*rows, ("key", key)])
    if not is_healthy:
        raise typer.Exit(ExitCode.FAILED)


async def _look(calls: Calls) -> tuple[list[InterfaceStatus], str, str | None]:
    grpc_interface, (rest, version), websocket, key = await asyncio.gather(
        _grpc(calls),
        asyncio.to_thread(_rest, calls.endpoint, calls.timeout),
        asyncio.to_thread(_websocket, calls.endpoint, calls.timeout),
        _key(calls),
    )
    return [grpc_interface, rest, websocket], key, version


async def _grpc(calls: Calls) -> InterfaceStatus:
    """The standard health service, whose messages are too small to need its package."""
    import grpc

    from dalston.failures import plain

    check: Any = calls.channel.unary_unary("/grpc.health.v1.Health/Check", None, None)
    try:
        answer: bytes = await check(b"", timeout=calls.timeout)
    except grpc.aio.AioRpcError as error:
        return InterfaceStatus("grpc", is_open=False, detail=plain(error.details() or error.code().name.lower()))
    return InterfaceStatus("grpc", answer == _SERVING, "" if answer == _SERVING else "the server takes no calls")


def _rest(endpoint: Endpoint, timeout: float) -> tuple[InterfaceStatus, str | None]:
    try:
        with _get(endpoint, "/v1/openapi.json", timeout) as answer:
            if answer.status != 200:
                return InterfaceStatus("rest", is_open=False, detail=f"it answers {answer.status}"), None
            version = json_module.loads(answer.read(_LARGEST_BYTES))["info"]["version"]
        return InterfaceStatus("rest", is_open=True), str(version)
    except (OSError, HTTPException) as error:
        return InterfaceStatus("rest", is_open=False, detail=_why(error)), None
    except (ValueError, KeyError, TypeError):
        return InterfaceStatus("rest", is_open=False, detail="something else answers there"), None


def _websocket(endpoint: Endpoint, timeout: float) -> InterfaceStatus:
    """Asked without an upgrade, the bridge says that it wants one, and begins no session."""
    try:
        with _get(endpoint, "/v1/audio/transcriptions/stream", timeout) as answer:
            is_open = answer.status == _UPGRADE_REQUIRED
            return InterfaceStatus("websocket", is_open, "" if is_open else f"it answers {answer.status}")
    except (OSError, HTTPException) as error:
        return InterfaceStatus("websocket", is_open=False, detail=_why(error))


def _why(error: OSError | HTTPException) -> str:
    told = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None
    return told or str(error) or type(error).__name__


def _get(endpoint: Endpoint, path: str, timeout: float) -> HTTPResponse:
    if endpoint.is_secure:
        trusted = ssl.create_default_context(cafile=endpoint.ca_file and str(endpoint.ca_file))
        connection_: HTTPConnection = HTTPSConnection(endpoint.host, endpoint.port, timeout=timeout, context=trusted)
    else:
        connection_ = HTTPConnection(endpoint.host, endpoint.port, timeout=timeout)
    connection_.request("GET", path, headers={"Connection": "close", "User-Agent": "dalston-cli"})
    return connection_.getresponse()


async def _key(calls: Calls) -> str:
    """Whether the key is taken: a session that cannot be is asked for."""
    import grpc

    from dalston.errors import AuthenticationError, DalstonError, PermissionDenied
    from dalston.failures import error_of
    from dalston.v1 import session_pb2 as pb

    request = pb.GetSessionRequest(session_id=f"sess_{0:032x}")
    try:
        get: Any = calls.sessions.GetSession
        await get(request, timeout=calls.timeout, metadata=calls.metadata())
    except grpc.aio.AioRpcError as failure:
        error: DalstonError = error_of(failure)
        if isinstance(error, AuthenticationError):
            return "refused" if calls.endpoint.api_key else "none, and one is needed"
        if isinstance(error, PermissionDenied) or error.reason in ("SESSION_NOT_FOUND", "INVALID_PARAMETERS"):
            return "accepted" if calls.endpoint.api_key else "none, and none is needed"
        return "unknown"
    return "accepted"
