"""KeyService: the keys of the caller's tenant, and tokens and logins created with them."""

from datetime import timedelta
from typing import cast

from dalston.v1 import key_pb2 as pb

from domain.credentials import SCOPES, Scope
from persistence.postgres.api_keys import KeyStore
from persistence.postgres.logins import LoginStore
from server.rpc.config_message import quoted
from server.rpc.interceptor import Context
from server.rpc.key_messages import key_holder, key_message
from server.rpc.logins import Forget, LoginMethods
from server.rpc.times import timestamp
from server.session.errors import InvalidParameter
from telemetry.logs import get_logger

log = get_logger(__name__)

_LONGEST_NAME = 100
_DEFAULT_LIMIT = 50
_KEY_SECONDS = (60, 315_360_000)
_TOKEN_SECONDS = (10, 600)
_DEFAULT_TOKEN_SECONDS = 60


class KeyServicer(LoginMethods):
    """Every method sees the caller's tenant only; errors are raised, not answered."""

    def __init__(self, keys: KeyStore, logins: LoginStore, forget: Forget) -> None:
        """`forget`: as in `LoginMethods`."""
        super().__init__(logins, forget)
        self._keys = keys

    async def CreateKey(self, request: pb.CreateKeyRequest, _context: Context) -> pb.CreateKeyResponse:
        holder = key_holder()
        if not 1 <= len(request.name) <= _LONGEST_NAME or not request.name.isprintable():
            raise InvalidParameter("name", f"must be 1 to {_LONGEST_NAME} printable characters")
        expires_in = None
        if request.HasField("expires_in_seconds"):
            expires_in = _duration(request.expires_in_seconds, *_KEY_SECONDS)
        scopes = _scopes(list(request.scopes))
        key, secret = await self._keys.create(
            holder.tenant_id, request.name, scopes, expires_in, created_by=holder.key_id, through=holder.login_id
        )
        log.info("key created", created=key.key_id, scopes=key.scopes)
        return pb.CreateKeyResponse(key=key_message(key), secret=secret)

    async def ListKeys(self, request: pb.ListKeysRequest, _context: Context) -> pb.ListKeysResponse:
        tenant_id = key_holder().tenant_id
        limit = request.limit if request.HasField("limit") else _DEFAULT_LIMIT
        page = await self._keys.list(tenant_id, limit, request.cursor or None)
        return pb.ListKeysResponse(keys=[key_message(key) for key in page.keys], next_cursor=page.next_cursor)

    async def RevokeKey(self, request: pb.RevokeKeyRequest, _context: Context) -> pb.Key:
        holder = key_holder()
        key = await self._keys.revoke(
            holder.tenant_id, request.key_id, revoked_by=holder.key_id, through=holder.login_id
        )
        log.info("key revoked", revoked=key.key_id)
        return key_message(key)

    async def CreateToken(self, request: pb.CreateTokenRequest, _context: Context) -> pb.CreateTokenResponse:
        holder = key_holder()
        seconds = request.expires_in_seconds if request.HasField("expires_in_seconds") else _DEFAULT_TOKEN_SECONDS
        token, expires_at = await self._keys.create_token(
            holder.key_id, _duration(seconds, *_TOKEN_SECONDS), through=holder.login_id
        )
        return pb.CreateTokenResponse(token=token, expires_at=timestamp(expires_at))


def _scopes(names: list[str]) -> list[Scope]:
    known = ", ".join(SCOPES)
    if not names:
        raise InvalidParameter("scopes", f"must name at least one of {known}")
    for name in names:
        if name not in SCOPES:
            raise InvalidParameter("scopes", f"{quoted(name)} is none of {known}")
    return cast(list[Scope], names)


def _duration(seconds: int, least: int, most: int) -> timedelta:
    if not least <= seconds <= most:
        raise InvalidParameter("expires_in_seconds", f"must be {least} to {most}")
    return timedelta(seconds=seconds)
