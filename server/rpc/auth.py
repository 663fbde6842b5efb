"""Authentication of every call."""

from typing import Any

from domain.client_address import client_ip
from domain.credentials import LOGIN_HEADER, Authorization
from domain.tenancy import current_caller
from server.access.gate import Gate, OpenGate
from server.rpc.interceptor import Call, CallInterceptor, Context


class AuthInterceptor(CallInterceptor):
    """Sets `current_caller` to the caller that the gate admits; without a gate, to the default tenant."""

    def __init__(self, gate: Gate | None = None) -> None:
        self._gate = gate or OpenGate()

    async def around(self, method: str, call: Call, context: Context) -> Any:
        caller = await self._gate.admit(method, authorization_of(context), client_ip(context))
        token = current_caller.set(caller)
        try:
            return await call()
        finally:
            current_caller.reset(token)


def authorization_of(context: Context) -> Authorization:
    """How the metadata of a call authenticates its caller."""
    metadata = context.invocation_metadata() or ()
    return Authorization(
        tuple(str(value) for name, value in metadata if name == "authorization"),
        is_from_cookie=any(name == LOGIN_HEADER and value == "1" for name, value in metadata),
    )
