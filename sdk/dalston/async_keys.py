"""API keys and tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from dalston import messages
from dalston.calls import Calls
from dalston.records import Key, NewKey, Scope, Token
from dalston.v1 import key_pb2 as pb


class AsyncKeys:
    """The tenant's API keys. Every method requires a key with the scope `admin`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def create(
        self, name: str, scopes: Iterable[Scope | str], *, expires_in_seconds: int | None = None
    ) -> NewKey:
        """Creates a key. Only the response contains its secret.

        The call is not retried: if the response is lost, a key whose secret is unknown may have been created.
        """
        request = pb.CreateKeyRequest(
            name=name, scopes=[str(scope) for scope in scopes], expires_in_seconds=expires_in_seconds
        )
        answer: pb.CreateKeyResponse = await self._calls.call_once(self._calls.keys.CreateKey, request)
        return NewKey(messages.key(answer.key), answer.secret)

    async def list(self) -> AsyncIterator[Key]:
        """All keys, newest first, revoked and expired ones included."""
        cursor = ""
        while True:
            request = pb.ListKeysRequest(limit=100, cursor=cursor)
            page: pb.ListKeysResponse = await self._calls.call_with_retries(self._calls.keys.ListKeys, request)
            for key in page.keys:
                yield messages.key(key)
            cursor = page.next_cursor
            if not cursor:
                return

    async def revoke(self, key_id: str) -> Key:
        """Revokes a key. Within seconds every server rejects it."""
        request = pb.RevokeKeyRequest(key_id=key_id)
        return messages.key(await self._calls.call_with_retries(self._calls.keys.RevokeKey, request))


class AsyncTokens:
    """Short-lived tokens, for clients that must not hold a key."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def create(self, *, expires_in_seconds: int | None = None) -> Token:
        """Creates a token that opens one live session, once. Requires the scope `realtime`."""
        request = pb.CreateTokenRequest(expires_in_seconds=expires_in_seconds)
        answer: pb.CreateTokenResponse = await self._calls.call_with_retries(self._calls.keys.CreateToken, request)
        return Token(answer.token, messages.when(answer, "expires_at"))
