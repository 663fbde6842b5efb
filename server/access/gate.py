"""The gate that every call passes: authentication, scope and rate limits."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final, Protocol

from prometheus_client import Counter

from domain.credentials import Authorization, Secret, parse_secret
from domain.errors import StorageUnavailable
from domain.tenancy import DEFAULT_TENANT_ID, REFUSALS, Caller, TenantLimits
from persistence.postgres.api_keys import Grant, format_key_id
from persistence.postgres.key_upkeep import KeyUses
from persistence.postgres.logins import format_login_id
from server.access.errors import PermissionDenied, RateLimited, Unauthenticated
from server.access.grants import Grants
from server.access.rates import Rates
from server.access.scopes import SCOPES, TOKEN_METHOD
from telemetry.logs import note_caller

_BURST_SECONDS: Final = 2.0
"""An idle tenant may burst: it may make the calls of this many seconds at once."""
_WRONG_KEYS_PER_SECOND: Final = 1.0
_WRONG_KEYS_BURST: Final = 30.0
_TOKEN_USES_PER_SECOND: Final = 1.0
_TOKEN_USES_BURST: Final = 10.0
_LOOKUPS: Final = 2
"""Concurrent lookups for all addresses that have sent many wrong keys. Other calls use the other connections."""
_LOOKUP_SECONDS: Final = 1.0

_failures = Counter("dalston_authentication_failures_total", "Calls whose key was not accepted", ["reason"])


class Gate(Protocol):
    """Authenticates callers."""

    async def admit(self, method: str, authorization: Authorization, address: str | None) -> Caller:
        """The caller of a method.

        Args:
            method: its short name.
            authorization: how the call authenticates its caller.
            address: the client's address; None if it has none.

        Raises:
            Unauthenticated, PermissionDenied, RateLimited: the call is refused.
            StorageUnavailable: the key cannot be looked up.
        """

    async def readmit(self, method: str, authorization: Authorization) -> None:
        """Checks whether a long call that was admitted may continue. Counts against no limit.

        Raises:
            Unauthenticated, PermissionDenied: it may not any more.
            StorageUnavailable: the key cannot be looked up.
        """

    def forget(self, secret_hash: bytes) -> None:
        """Drops what is cached of a secret that was ended, so that the next call with it is refused."""


class OpenGate:
    """Admits every caller as the default tenant."""

    async def admit(self, method: str, authorization: Authorization, address: str | None) -> Caller:
        return Caller(DEFAULT_TENANT_ID)

    async def readmit(self, method: str, authorization: Authorization) -> None:
        return

    def forget(self, secret_hash: bytes) -> None:
        return


class KeyGate:
    """Admits callers with a key, with a login from the cookie of a browser, or with a token for one live session."""

    def __init__(self, grants: Grants, uses: KeyUses, defaults: TenantLimits) -> None:
        self._grants = grants
        self._uses = uses
        self._defaults = defaults
        self._calls = Rates()
        self._tokens = Rates()
        self._wrong_keys = Rates()
        self._lookups = asyncio.Semaphore(_LOOKUPS)

    async def admit(self, method: str, authorization: Authorization, address: str | None) -> Caller:
        secret = _secret_in(authorization)
        if secret is None:
            raise _refused("malformed" if authorization.values else "missing")
        if secret.kind == "token" and method != TOKEN_METHOD:
            raise _refused("misplaced token")
        if secret.kind == "token":
            self._refuse_repetition(secret)
        if secret.kind == "login" and not authorization.is_from_cookie:
            raise _refused("misplaced login")
        grant = await self._grant(secret, _origin(address))
        note_caller(tenant_id=str(grant.tenant_id), key_id=format_key_id(grant.key_id))
        if grant.login_id is not None:
            note_caller(login_id=format_login_id(grant.login_id))
        limits = grant.limits.over(self._defaults)
        if secret.kind != "token":
            self._refuse_excess(grant, limits)
        _refuse_without_scope(grant, method)
        self._uses.note(grant.key_id)
        if grant.login_id is not None:
            self._uses.note(grant.login_id)
        spent_by = secret.hash if secret.kind == "token" else None
        return Caller(grant.tenant_id, limits, grant.key_id, spent_by, grant.login_id)

    async def readmit(self, method: str, authorization: Authorization) -> None:
        secret = _secret_in(authorization)
        grant = None if secret is None else await self._grants.of(secret)
        _refuse_without_scope(_valid(grant), method)

    def forget(self, secret_hash: bytes) -> None:
        self._grants.forget(secret_hash)

    async def _grant(self, secret: Secret, origin: str) -> Grant:
        is_new = not self._grants.is_cached(secret)
        is_held_back = is_new and self._wrong_keys.wait(origin, _WRONG_KEYS_PER_SECOND, _WRONG_KEYS_BURST) > 0
        try:
            if is_held_back and not self._grants.was_valid(secret):
                async with self._lookup():
                    grant = await self._grants.of(secret)
            else:
                grant = await self._grants.of(secret)
        except StorageUnavailable:
            _failures.labels("unavailable").inc()
            raise
        if is_new and (grant is None or grant.has_ended(datetime.now(UTC))):
            # Counted once while it is cached: a client that repeats a wrong key must not slow down its neighbours.
            self._wrong_keys.take(origin, _WRONG_KEYS_PER_SECOND, _WRONG_KEYS_BURST)
        return _valid(grant)

    @asynccontextmanager
    async def _lookup(self) -> AsyncIterator[None]:
        """One of the few concurrent lookups for addresses that have sent many wrong keys.

        Such an address is slowed down instead of being blocked: 256 bits cannot be guessed, and many clients may share
        the address of a proxy.
        """
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                await self._lookups.acquire()
        except TimeoutError:
            _failures.labels("too many").inc()
            raise RateLimited("too many wrong keys came from this address", _LOOKUP_SECONDS) from None
        try:
            yield
        finally:
            self._lookups.release()

    def _refuse_repetition(self, secret: Secret) -> None:
        # Every use of a token is a lookup. The holder of one must not use up the rate limit of its tenant.
        if seconds := self._tokens.take(secret.hash, _TOKEN_USES_PER_SECOND, _TOKEN_USES_BURST):
            _failures.labels("too many").inc()
            raise RateLimited("the token was used too often", seconds)

    def _refuse_excess(self, grant: Grant, limits: TenantLimits) -> None:
        rate = limits.requests_per_second
        if rate is None:
            return
        if seconds := self._calls.take(grant.tenant_id, rate, max(1.0, rate * _BURST_SECONDS)):
            REFUSALS.labels("requests").inc()
            raise RateLimited(f"more than {rate:g} requests a second, which is the limit", seconds)


def _valid(grant: Grant | None) -> Grant:
    if grant is None:
        raise _refused("unknown")
    if grant.revoked_at is not None:
        raise _refused("revoked")
    if grant.is_expired(datetime.now(UTC)):
        raise _refused("expired")
    return grant


def _refuse_without_scope(grant: Grant, method: str) -> None:
    scope = SCOPES[method]
    if scope is not None and scope not in grant.scopes:
        _failures.labels("scope").inc()
        raise PermissionDenied(scope)


def _refused(reason: str) -> Unauthenticated:
    _failures.labels(reason).inc()
    return Unauthenticated()


def _secret_in(authorization: Authorization) -> Secret | None:
    if len(authorization.values) != 1:
        return None
    scheme, _, text = authorization.values[0].strip().partition(" ")
    return parse_secret(text.strip()) if scheme.lower() == "bearer" else None


def _origin(address: str | None) -> str:
    """The origin by which wrong keys are counted: an IPv4 address, or an IPv6 network of 2^64 addresses."""
    if address is None or ":" not in address:
        return address or ""
    return str(ipaddress.ip_network((address, 64), strict=False))
