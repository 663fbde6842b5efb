"""Who is calling. Without authentication every caller is the default tenant."""

from typing import Any

from persistence.tenancy import DEFAULT_TENANT_ID, Caller, current_caller
from server.rpc.interceptor import Call, CallInterceptor, Context


class AuthInterceptor(CallInterceptor):
    """Puts the caller into `current_caller` for everything inside."""

    async def around(self, method: str, call: Call, context: Context) -> Any:
        token = current_caller.set(Caller(tenant_id=DEFAULT_TENANT_ID))
        try:
            return await call()
        finally:
            current_caller.reset(token)
