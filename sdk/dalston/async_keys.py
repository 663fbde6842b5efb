"""API keys and tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

from dalston import messages
from dalston.calls import Calls
from dalston.records import Key, Login, NewKey, Scope, Token
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

    async def logins(self, key_id: str) -> Sequence[Login]:
        """The logins of a key that have not ended, newest first: at most 50.

        A login is a secret that a browser keeps in a cookie; a person makes one with a key on the page for it.
        """
        request = pb.ListLoginsRequest(key_id=key_id)
        answer: pb.ListLoginsResponse = await self._calls.call_with_retries(self._calls.keys.ListLogins, request)
        return [messages.login(login) for login in answer.logins]

    async def revoke_login(self, key_id: str, login_id: str) -> None:
        """Ends a login of a key. Within seconds every server rejects it."""
        request = pb.RevokeLoginRequest(key_id=key_id, login_id=login_id)
        await self._calls.call_with_retries(self._calls.keys.RevokeLogin, request, not_found_is_success=True)


class AsyncTokens:
    """Short-lived tokens, for clients that must not hold a key."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def create(self, *, expires_in_seconds: int | None = None) -> Token:
        """Creates a token that opens one live session, once. Requires the scope `realtime`."""
        request = pb.CreateTokenRequest(expires_in_seconds=expires_in_seconds)
        answer: pb.CreateTokenResponse = await self._calls.call_with_retries(self._calls.keys.CreateToken, request)
        return Token(answer.token, messages.when(answer, "expires_at"))
