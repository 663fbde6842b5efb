"""Who is calling. Without authentication every caller is the default tenant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from persistence.tenancy import DEFAULT_TENANT_ID, Caller, current_caller
from server.rpc.handlers import wrap_behaviors


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Puts the caller into `current_caller` for everything inside."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        handler = await continuation(details)
        return wrap_behaviors(handler, self._run)

    async def _run(self, call: Callable[[], Awaitable[Any]], _context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        token = current_caller.set(Caller(tenant_id=DEFAULT_TENANT_ID))
        try:
            return await call()
        finally:
            current_caller.reset(token)
