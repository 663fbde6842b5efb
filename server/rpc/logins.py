"""The methods of KeyService about logins of browsers."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from dalston.v1 import key_pb2 as pb
from dalston.v1 import key_pb2_grpc

from domain.credentials import SCOPES
from domain.tenancy import current_caller
from persistence.postgres.logins import Identity, Login, LoginStore
from server.access.errors import KeyNeeded
from server.rpc.interceptor import Context
from server.rpc.key_messages import key_holder, key_message
from server.rpc.times import timestamp
from telemetry.logs import get_logger

log = get_logger(__name__)

COOKIE: Final = "__Host-dalston"
"""Browsers keep a cookie of this prefix only for the host that set it, for all of its paths and over TLS."""
_ATTRIBUTES: Final = "Path=/; Secure; HttpOnly; SameSite=Strict"
_DEFAULT_TENANT: Final = "default"

Forget = Callable[[bytes], None]


class LoginMethods(key_pb2_grpc.KeyServiceServicer):
    """Errors are raised, not answered."""

    def __init__(self, logins: LoginStore, forget: Forget) -> None:
        """`forget` is called with the hash of a secret that has ended, which must not be answered from a cache."""
        self._logins = logins
        self._forget = forget

    async def CreateLogin(self, _request: pb.CreateLoginRequest, context: Context) -> pb.Login:
        holder = key_holder()
        if holder.login_id is not None:
            raise KeyNeeded
        identity, secret = await self._logins.create(holder.key_id, _user_agent(context))
        message = _identity_message(identity)
        assert identity.login is not None  # noqa: S101 - it was made just now
        log.info("login created", created=identity.login.login_id)
        await context.send_initial_metadata((("set-cookie", _cookie(secret, _seconds_left(identity.login))),))
        return message

    async def GetLogin(self, _request: pb.GetLoginRequest, _context: Context) -> pb.Login:
        caller = current_caller.get()
        if caller.key_id is None:
            return pb.Login(tenant=_DEFAULT_TENANT, scopes=SCOPES, authentication=False)
        return _identity_message(await self._logins.identity(caller.key_id, caller.login_id))

    async def DeleteLogin(self, _request: pb.DeleteLoginRequest, context: Context) -> pb.DeleteLoginResponse:
        holder = key_holder()
        if holder.login_id is not None:
            self._note_ended(await self._logins.end(holder.login_id))
            log.info("login ended")
        await context.send_initial_metadata((("set-cookie", _cookie("", 0)),))
        return pb.DeleteLoginResponse()

    async def ListLogins(self, request: pb.ListLoginsRequest, _context: Context) -> pb.ListLoginsResponse:
        holder = key_holder()
        identities = await self._logins.list(holder.tenant_id, request.key_id)
        return pb.ListLoginsResponse(logins=map(_identity_message, identities))

    async def RevokeLogin(self, request: pb.RevokeLoginRequest, _context: Context) -> pb.RevokeLoginResponse:
        holder = key_holder()
        revoked = await self._logins.revoke(
            holder.tenant_id, request.key_id, request.login_id, revoked_by=holder.key_id, through=holder.login_id
        )
        self._note_ended(revoked)
        log.info("login revoked", revoked=request.login_id)
        return pb.RevokeLoginResponse()

    def _note_ended(self, secret_hash: bytes | None) -> None:
        if secret_hash is not None:
            self._forget(secret_hash)


def _identity_message(identity: Identity) -> pb.Login:
    login = identity.login
    message = pb.Login(
        tenant=identity.tenant,
        key=key_message(identity.key),
        scopes=identity.key.scopes,
        expires_at=timestamp(identity.key.expires_at if login is None else login.expires_at),
        authentication=True,
    )
    if login is not None:
        message.id = login.login_id
        message.user_agent = login.user_agent
        message.created_at.FromDatetime(login.created_at)
        if login.last_used_at is not None:
            message.last_used_at.FromDatetime(login.last_used_at)
    return message


def _user_agent(context: Context) -> str:
    # Bytes for a name that ends in -bin only.
    values = [str(value) for name, value in context.invocation_metadata() or () if name == "user-agent"]
    return values[0] if values else ""


def _seconds_left(login: Login) -> int:
    return max(1, int((login.expires_at - datetime.now(UTC)).total_seconds()))


def _cookie(secret: str, seconds: int) -> str:
    return f"{COOKIE}={secret}; {_ATTRIBUTES}; Max-Age={seconds}"
