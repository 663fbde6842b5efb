"""`dalston status`: checks the interfaces of the service, and shows its servers and workers."""

from __future__ import annotations

import asyncio
import json as json_module
import ssl
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dalston.cli import connection, deployment_view, output
from dalston.cli.exits import ExitCode

if TYPE_CHECKING:
    from dalston.calls import Calls
    from dalston.endpoint import Endpoint
    from dalston.service_status import ServiceStatus

_SERVING = b"\x08\x01"
_UPGRADE_REQUIRED = 426
_LARGEST_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class InterfaceStatus:
    """The state of one interface."""

    name: str
    is_open: bool
    detail: str = ""


def status(
    ctx: typer.Context, json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False
) -> None:
    """Check the service, and show its servers.

    The exit code is 0 if gRPC, REST and WebSocket are available, and 1 otherwise. No key is required; a configured key
    is verified. With authentication, servers and workers are shown to keys of the tenant default with the scope admin,
    and the totals of their tenant to other keys with that scope.
    """
    from dalston import background

    calls = connection.calls(ctx)
    try:
        interfaces, key, version, found = background.run(_check(calls))
    finally:
        background.run(calls.close())
    scheme = "https" if calls.endpoint.is_secure else "http"
    url = f"{scheme}://{calls.endpoint.address}"
    is_healthy = all(interface.is_open for interface in interfaces)
    if json:
        shown = [
            {"name": interface.name, "open": interface.is_open, "detail": interface.detail} for interface in interfaces
        ]
        content = {"url": url, "healthy": is_healthy, "version": version, "key": key, "interfaces": shown}
        output.print_json(content if found is None else {**content, "status": found})
    else:
        rows = [("url", url), ("healthy", "yes" if is_healthy else "no"), ("version", version or "unknown")]
        rows += [
            (interface.name, "open" if interface.is_open else f"unavailable: {interface.detail}")
            for interface in interfaces
        ]
        output.print_fields([*rows, ("key", key), *(deployment_view.fields(found) if found is not None else ())])
        if found is not None and found.processes:
            output.print_line()
            output.print_table(deployment_view.COLUMNS, deployment_view.rows(found))
    if not is_healthy:
        raise typer.Exit(ExitCode.FAILED)


async def _check(calls: Calls) -> tuple[list[InterfaceStatus], str, str | None, ServiceStatus | None]:
    grpc_interface, (rest, version), websocket, key, found = await asyncio.gather(
        _grpc(calls),
        asyncio.to_thread(_rest, calls.endpoint, calls.timeout),
        asyncio.to_thread(_websocket, calls.endpoint, calls.timeout),
        _key(calls),
        _status(calls),
    )
    return [grpc_interface, rest, websocket], key, version, found


async def _grpc(calls: Calls) -> InterfaceStatus:
    """Calls the standard health service. Its messages are simple enough to decode without its package."""
    import grpc

    from dalston.failures import plain

    check: Any = calls.channel.unary_unary("/grpc.health.v1.Health/Check", None, None)
    try:
        answer: bytes = await check(b"", timeout=calls.timeout)
    except grpc.aio.AioRpcError as error:
        return InterfaceStatus("grpc", is_open=False, detail=plain(error.details() or error.code().name.lower()))
    return InterfaceStatus("grpc", answer == _SERVING, "" if answer == _SERVING else "the server is not serving")


def _rest(endpoint: Endpoint, timeout: float) -> tuple[InterfaceStatus, str | None]:
    try:
        with _get(endpoint, "/v1/openapi.json", timeout) as answer:
            if answer.status != 200:
                return InterfaceStatus("rest", is_open=False, detail=f"HTTP status {answer.status}"), None
            version = json_module.loads(answer.read(_LARGEST_BYTES))["info"]["version"]
        return InterfaceStatus("rest", is_open=True), str(version)
    except (OSError, HTTPException) as error:
        return InterfaceStatus("rest", is_open=False, detail=_reason(error)), None
    except (ValueError, KeyError, TypeError):
        return InterfaceStatus("rest", is_open=False, detail="another service responds at this address"), None


def _websocket(endpoint: Endpoint, timeout: float) -> InterfaceStatus:
    """Sends a request without an upgrade, which the bridge rejects without beginning a session."""
    try:
        with _get(endpoint, "/v1/audio/transcriptions/stream", timeout) as answer:
            is_open = answer.status == _UPGRADE_REQUIRED
            return InterfaceStatus("websocket", is_open, "" if is_open else f"HTTP status {answer.status}")
    except (OSError, HTTPException) as error:
        return InterfaceStatus("websocket", is_open=False, detail=_reason(error))


def _reason(error: OSError | HTTPException) -> str:
    reason = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None
    return reason or str(error) or type(error).__name__


def _get(endpoint: Endpoint, path: str, timeout: float) -> HTTPResponse:
    if endpoint.is_secure:
        trusted = ssl.create_default_context(cafile=endpoint.ca_file and str(endpoint.ca_file))
        connection_: HTTPConnection = HTTPSConnection(endpoint.host, endpoint.port, timeout=timeout, context=trusted)
    else:
        connection_ = HTTPConnection(endpoint.host, endpoint.port, timeout=timeout)
    connection_.request("GET", path, headers={"Connection": "close", "User-Agent": "dalston-cli"})
    return connection_.getresponse()


async def _status(calls: Calls) -> ServiceStatus | None:
    """The status of the service; None if this key may not read it, or the service does not answer."""
    from dalston.errors import DalstonError
    from dalston.status_messages import service_status
    from dalston.v1 import status_pb2

    try:
        return service_status(await calls.call_once(calls.status.GetStatus, status_pb2.GetStatusRequest()))
    except DalstonError:
        return None


async def _key(calls: Calls) -> str:
    """Verifies the key by requesting a session that cannot exist."""
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
            return "rejected" if calls.endpoint.api_key else "none, but required"
        if isinstance(error, PermissionDenied) or error.reason in ("SESSION_NOT_FOUND", "INVALID_PARAMETERS"):
            return "accepted" if calls.endpoint.api_key else "none, and not required"
        return "unknown"
    return "accepted"
