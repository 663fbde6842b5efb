"""The gate that every call passes: who is calling, whether they may, and whether not too often."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final, Protocol

from prometheus_client import Counter

from domain.credentials import Secret, parse_secret
from domain.errors import StorageUnavailable
from domain.tenancy import DEFAULT_TENANT_ID, REFUSALS, Caller, TenantLimits
from persistence.postgres.api_keys import Grant, KeyUses, format_key_id
from server.access.errors import PermissionDenied, RateLimited, Unauthenticated
from server.access.grants import Grants
from server.access.rates import Rates
from server.access.scopes import SCOPES, TOKEN_METHOD
from telemetry.logs import note_caller

_BURST_SECONDS: Final = 2.0
"""A tenant that was quiet may make the calls of so many seconds at once."""
_GUESSES_PER_SECOND: Final = 1.0
_GUESSES_AT_ONCE: Final = 30.0
_TOKEN_SHOWS_PER_SECOND: Final = 1.0
_TOKEN_SHOWS_AT_ONCE: Final = 10.0
_TURNS: Final = 2
"""Lookups at a time for all addresses that showed many wrong keys: Postgres has the rest of its connections left."""
_TURN_SECONDS: Final = 1.0

_failures = Counter("dalston_authentication_failures_total", "Calls whose key was not accepted", ["reason"])


class Gate(Protocol):
    """Knows who is calling."""

    async def admit(self, method: str, authorization: Sequence[str], address: str | None) -> Caller:
        """The caller of a method.

        Args:
            method: its short name.
            authorization: the values of the call's `authorization` metadata.
            address: where the client connected from, None where there is no telling.

        Raises:
            Unauthenticated, PermissionDenied, RateLimited: the call is refused.
            StorageUnavailable: nobody can tell now.
        """

    async def readmit(self, method: str, authorization: Sequence[str]) -> None:
        """Whether who was admitted may go on: for calls that last. Counts against no limit.

        Raises:
            Unauthenticated, PermissionDenied: not any more.
            StorageUnavailable: nobody can tell now.
        """


class OpenGate:
    """Everyone is the default tenant, whatever they show."""

    async def admit(self, method: str, authorization: Sequence[str], address: str | None) -> Caller:
        return Caller(DEFAULT_TENANT_ID)

    async def readmit(self, method: str, authorization: Sequence[str]) -> None:
        return


class KeyGate:
    """Callers show keys, or tokens for one live session."""

    def __init__(self, grants: Grants, uses: KeyUses, defaults: TenantLimits) -> None:
        self._grants = grants
        self._uses = uses
        self._defaults = defaults
        self._calls = Rates()
        self._tokens = Rates()
        self._guesses = Rates()
        self._turns = asyncio.Semaphore(_TURNS)

    async def admit(self, method: str, authorization: Sequence[str], address: str | None) -> Caller:
        secret = _secret_in(authorization)
        if secret is None:
            raise _refused("malformed" if authorization else "missing")
        if secret.kind == "token" and method != TOKEN_METHOD:
            raise _refused("misplaced token")
        if secret.kind == "token":
            self._refuse_repetition(secret)
        grant = await self._grant(secret, _origin(address))
        note_caller(tenant_id=str(grant.tenant_id), key_id=format_key_id(grant.key_id))
        limits = grant.limits.over(self._defaults)
        if secret.kind == "key":
            self._refuse_haste(grant, limits)
        _refuse_without_scope(grant, method)
        self._uses.note(grant.key_id)
        return Caller(grant.tenant_id, limits, grant.key_id, secret.hash if secret.kind == "token" else None)

    async def readmit(self, method: str, authorization: Sequence[str]) -> None:
        secret = _secret_in(authorization)
        grant = None if secret is None else await self._grants.of(secret)
        _refuse_without_scope(_valid(grant), method)

    async def _grant(self, secret: Secret, origin: str) -> Grant:
        is_new = not self._grants.remembers(secret)
        is_held_back = is_new and self._guesses.wait(origin, _GUESSES_PER_SECOND, _GUESSES_AT_ONCE) > 0
        try:
            if is_held_back and not self._grants.was_good(secret):
                async with self._turn():
                    grant = await self._grants.of(secret)
            else:
                grant = await self._grants.of(secret)
        except StorageUnavailable:
            _failures.labels("unavailable").inc()
            raise
        if is_new and (grant is None or grant.has_ended(datetime.now(UTC))):
            # Once while it is remembered: a client that goes on with one wrong key must not slow down its neighbours.
            self._guesses.take(origin, _GUESSES_PER_SECOND, _GUESSES_AT_ONCE)
        return _valid(grant)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """A turn to ask Postgres about a secret from an address that showed many wrong ones.

        Nobody guesses 256 bits, so none of them is refused for the others: behind a proxy, an address is everybody.
        """
        try:
            async with asyncio.timeout(_TURN_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            _failures.labels("too many").inc()
            raise RateLimited("too many wrong keys came from this address", _TURN_SECONDS) from None
        try:
            yield
        finally:
            self._turns.release()

    def _refuse_repetition(self, secret: Secret) -> None:
        # A token is asked for every time. Whoever was given one must not use up the calls of its tenant with it.
        if seconds := self._tokens.take(secret.hash, _TOKEN_SHOWS_PER_SECOND, _TOKEN_SHOWS_AT_ONCE):
            _failures.labels("too many").inc()
            raise RateLimited("the token was shown too often", seconds)

    def _refuse_haste(self, grant: Grant, limits: TenantLimits) -> None:
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
    if scope not in grant.scopes:
        _failures.labels("scope").inc()
        raise PermissionDenied(scope)


def _refused(reason: str) -> Unauthenticated:
    _failures.labels(reason).inc()
    return Unauthenticated()


def _secret_in(authorization: Sequence[str]) -> Secret | None:
    if len(authorization) != 1:
        return None
    scheme, _, text = authorization[0].strip().partition(" ")
    return parse_secret(text.strip()) if scheme.lower() == "bearer" else None


def _origin(address: str | None) -> str:
    """What guesses are counted by: an address, or the network of one who has 2^64 of them."""
    if address is None or ":" not in address:
        return address or ""
    return str(ipaddress.ip_network((address, 64), strict=False))
