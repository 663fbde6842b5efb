"""Admission of calls, lookups in Postgres, and its outages."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from domain.credentials import Authorization, Secret, new_key, new_login, new_token, parse_secret
from domain.errors import StorageUnavailable
from domain.tenancy import DEFAULT_TENANT_ID, TenantLimits
from persistence.errors import DatabaseUnavailable
from persistence.postgres.api_keys import Grant
from server.access.errors import PermissionDenied, RateLimited, Unauthenticated
from server.access.gate import KeyGate, OpenGate
from server.access.grants import Grants
from server.access.scopes import SCOPES

DEFAULTS = TenantLimits(max_sessions=9, requests_per_second=1000)


@dataclass
class Store:
    """A substitute for Postgres that counts lookups."""

    grants: dict[bytes, Grant] = field(default_factory=dict)
    lookups: Counter[bytes] = field(default_factory=Counter)
    is_unavailable: bool = False
    now: float = 1000.0
    uses: list[Any] = field(default_factory=list)
    answering: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.answering.set()

    async def find(self, secret: Secret) -> Grant | None:
        self.lookups[secret.hash] += 1
        await self.answering.wait()
        if self.is_unavailable:
            raise StorageUnavailable("the database does not answer")
        return self.grants.get(secret.hash)

    def note(self, key_id: Any) -> None:
        self.uses.append(key_id)

    def add(self, text: str, **changes: Any) -> Grant:
        grant = Grant(uuid4(), uuid4(), frozenset({"realtime", "sessions:read"}), None, None)
        self.grants[hash_of(text)] = replace(grant, **changes)
        return self.grants[hash_of(text)]


def hash_of(text: str) -> bytes:
    secret = parse_secret(text)
    assert secret is not None
    return secret.hash


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def gate(store: Store) -> KeyGate:
    return KeyGate(Grants(store.find, clock=lambda: store.now), store, DEFAULTS)  # type: ignore[arg-type]


def bearer(text: str, *, is_from_cookie: bool = False) -> Authorization:
    return Authorization((f"Bearer {text}",), is_from_cookie)


async def admit(gate: KeyGate, text: str, method: str = "ListSessions", address: str = "192.0.2.1") -> Any:
    return await gate.admit(method, bearer(text), address)


async def test_a_key_admits_its_tenant_with_its_limits(gate: KeyGate, store: Store) -> None:
    key = new_key()
    grant = store.add(key, limits=TenantLimits(max_sessions=1))
    caller = await admit(gate, key)
    assert (caller.tenant_id, caller.key_id, caller.token_hash) == (grant.tenant_id, grant.key_id, None)
    assert caller.limits == TenantLimits(1, 1000)
    assert store.uses == [grant.key_id]


async def test_concurrent_and_repeated_calls_with_a_key_need_one_lookup(gate: KeyGate, store: Store) -> None:
    key = new_key()
    store.add(key)
    store.answering.clear()
    calls = [asyncio.create_task(admit(gate, key)) for _ in range(50)]
    await asyncio.sleep(0)
    calls[0].cancel()
    store.answering.set()
    assert len({caller.key_id for caller in await asyncio.gather(*calls[1:])}) == 1
    assert store.lookups[hash_of(key)] == 1
    store.now += 4.9
    await admit(gate, key)
    assert store.lookups[hash_of(key)] == 1
    store.now += 0.2
    await admit(gate, key)
    assert store.lookups[hash_of(key)] == 2


async def test_a_revoked_key_is_refused_when_its_cached_grant_expires(gate: KeyGate, store: Store) -> None:
    key = new_key()
    grant = store.add(key)
    await admit(gate, key)
    store.grants[hash_of(key)] = replace(grant, revoked_at=datetime.now(UTC))
    await admit(gate, key)
    store.now += 5
    with pytest.raises(Unauthenticated):
        await admit(gate, key)


async def test_an_expired_key_is_refused_at_once_although_it_is_cached(gate: KeyGate, store: Store) -> None:
    key = new_key()
    store.add(key, expires_at=datetime.now(UTC) + timedelta(milliseconds=50))
    await admit(gate, key)
    await asyncio.sleep(0.1)
    with pytest.raises(Unauthenticated):
        await admit(gate, key)
    assert store.lookups[hash_of(key)] == 1


async def test_a_wrong_key_is_cached(gate: KeyGate, store: Store) -> None:
    key = new_key()
    for _ in range(100):
        with pytest.raises(Unauthenticated):
            await admit(gate, key)
    assert store.lookups[hash_of(key)] == 1


async def test_cached_keys_are_admitted_while_postgres_is_unavailable(gate: KeyGate, store: Store) -> None:
    known, unknown = new_key(), new_key()
    store.add(known)
    store.add(unknown)
    await admit(gate, known)
    store.is_unavailable = True
    await admit(gate, known)
    with pytest.raises(StorageUnavailable):
        await admit(gate, unknown)
    store.is_unavailable = False
    await admit(gate, unknown)


async def test_concurrent_lookups_are_bounded(gate: KeyGate, store: Store) -> None:
    store.answering.clear()
    calls = [asyncio.create_task(admit(gate, new_key(), address=f"192.0.2.{n}")) for n in range(1010)]
    async with asyncio.timeout(30):
        done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    assert {type(call.exception()) for call in done} == {DatabaseUnavailable}
    store.answering.set()
    ended = Counter(type(each) for each in await asyncio.gather(*calls, return_exceptions=True))
    assert ended == {Unauthenticated: 1000, DatabaseUnavailable: 10}


@pytest.mark.parametrize(
    "authorization",
    [[], [""], ["Bearer"], ["Bearer nonsense"], [new_key()], [f"Basic {new_key()}"], [f"Bearer {new_key()}"] * 2],
)
async def test_malformed_credentials_are_refused_without_a_lookup(
    gate: KeyGate, store: Store, authorization: list[str]
) -> None:
    with pytest.raises(Unauthenticated):
        await gate.admit("ListSessions", Authorization(tuple(authorization)), None)
    assert not store.lookups


async def test_the_scheme_is_read_in_any_case(gate: KeyGate, store: Store) -> None:
    key = new_key()
    store.add(key)
    await gate.admit("ListSessions", Authorization((f"bearer  {key} ",)), None)


async def test_a_missing_scope_is_named(gate: KeyGate, store: Store) -> None:
    key = new_key()
    store.add(key)
    with pytest.raises(PermissionDenied, match="sessions:write"):
        await admit(gate, key, "DeleteSession")
    assert store.uses == []


async def test_a_token_allows_live_sessions_only_and_is_looked_up_every_time(gate: KeyGate, store: Store) -> None:
    token = new_token()
    store.add(token)
    for method in SCOPES.keys() - {"Transcribe"}:
        with pytest.raises(Unauthenticated):
            await admit(gate, token, method)
    assert not store.lookups
    for _ in range(2):
        assert (await admit(gate, token, "Transcribe")).token_hash == hash_of(token)
    assert store.lookups[hash_of(token)] == 2


@pytest.mark.parametrize("ended", [{"revoked_at": datetime.now(UTC)}, {"expires_at": datetime.now(UTC)}])
async def test_revoked_and_expired_keys_and_tokens_are_cached_like_unknown_ones(
    gate: KeyGate, store: Store, ended: dict[str, Any]
) -> None:
    key, token = new_key(), new_token()
    for text in (key, token):
        store.add(text, **ended)
        for _ in range(9):
            with pytest.raises(Unauthenticated):
                await admit(gate, text, "Transcribe")
        assert store.lookups[hash_of(text)] == 1
    for _ in range(31):
        store.add(another := new_key(), **ended)
        with pytest.raises(Unauthenticated):
            await admit(gate, another)
    # They count as wrong keys: further keys from the address are looked up two at a time.
    store.answering.clear()
    lookups = store.lookups.total()
    attempts = [asyncio.create_task(admit(gate, new_key())) for _ in range(9)]
    await asyncio.sleep(0.1)
    assert store.lookups.total() == lookups + 2
    store.answering.set()
    await asyncio.gather(*attempts, return_exceptions=True)


async def test_a_revoked_key_does_not_count_as_valid_before(gate: KeyGate, store: Store) -> None:
    key = new_key()
    grant = store.add(key)
    grants = Grants(store.find, clock=lambda: store.now)
    secret = parse_secret(key)
    assert secret is not None
    await grants.of(secret)
    store.now += 60
    assert grants.was_valid(secret)
    store.grants[secret.hash] = replace(grant, revoked_at=datetime.now(UTC))
    await grants.of(secret)
    assert not grants.was_valid(secret)


async def test_tokens_have_a_rate_limit_apart_from_that_of_the_tenant(gate: KeyGate, store: Store) -> None:
    key, token = new_key(), new_token()
    grant = store.add(key, limits=TenantLimits(requests_per_second=1))
    store.add(token, tenant_id=grant.tenant_id, limits=grant.limits)
    for _ in range(10):
        await admit(gate, token, "Transcribe")
    with pytest.raises(RateLimited, match="the token"):
        await admit(gate, token, "Transcribe")
    assert store.lookups[hash_of(token)] == 10
    await admit(gate, key)


async def send_wrong_keys(gate: KeyGate, count: int, address: str = "192.0.2.1") -> None:
    for _ in range(count):
        with pytest.raises(Unauthenticated):
            await admit(gate, new_key(), address=address)


async def test_wrong_keys_do_not_block_valid_ones_from_the_same_address(gate: KeyGate, store: Store) -> None:
    key, token = new_key(), new_token()
    store.add(key)
    store.add(token)
    await send_wrong_keys(gate, 100)
    await admit(gate, key)
    await admit(gate, token, "Transcribe")


async def test_an_address_with_many_wrong_keys_has_two_concurrent_lookups(gate: KeyGate, store: Store) -> None:
    used, late, stranger = new_key(), new_key(), new_key()
    for key in (used, late, stranger):
        store.add(key)
    await admit(gate, used)
    await send_wrong_keys(gate, 31)
    store.now += 60
    lookups = store.lookups.total()
    store.answering.clear()
    attempts = [asyncio.create_task(admit(gate, new_key())) for _ in range(50)]
    await asyncio.sleep(0.1)
    assert store.lookups.total() == lookups + 2
    with pytest.raises(RateLimited, match="this address") as refused:
        await admit(gate, late)
    assert refused.value.retry_after_seconds == 1
    # A key that was valid before, and one from another address, are looked up beside them.
    others = [asyncio.create_task(admit(gate, used)), asyncio.create_task(admit(gate, stranger, address="192.0.2.2"))]
    await asyncio.sleep(0.1)
    assert store.lookups[hash_of(used)] == 2
    assert store.lookups[hash_of(stranger)] == 1
    store.answering.set()
    await asyncio.gather(*others)
    ended = Counter(type(each) for each in await asyncio.gather(*attempts, return_exceptions=True))
    assert ended == {Unauthenticated: 2, RateLimited: 48}
    await admit(gate, late)


async def test_repeating_a_revoked_key_does_not_block_other_clients_at_the_address(gate: KeyGate, store: Store) -> None:
    old, good = new_key(), new_key()
    store.add(good)
    store.add(old, revoked_at=datetime.now(UTC))
    wrong = new_key()
    for _ in range(200):
        store.now += 0.05
        for key in (old, wrong):
            with pytest.raises(Unauthenticated):
                await admit(gate, key)
    await admit(gate, good)


async def test_wrong_keys_from_one_ipv6_network_are_counted_together(gate: KeyGate, store: Store) -> None:
    for number in range(31):
        await send_wrong_keys(gate, 1, f"2001:db8::{number:x}")
    lookups = store.lookups.total()
    store.answering.clear()
    attempts = [asyncio.create_task(admit(gate, new_key(), address=f"2001:db8::{n:x}")) for n in range(9)]
    await asyncio.sleep(0.1)
    assert store.lookups.total() == lookups + 2
    store.answering.set()
    await asyncio.gather(*attempts, return_exceptions=True)


async def test_the_rate_limit_of_a_tenant_counts_all_its_keys(gate: KeyGate, store: Store) -> None:
    first, second = new_key(), new_key()
    grant = store.add(first, limits=TenantLimits(requests_per_second=1))
    store.add(second, tenant_id=grant.tenant_id, limits=grant.limits)
    other = new_key()
    store.add(other, limits=grant.limits)
    await admit(gate, first)
    await admit(gate, second)
    with pytest.raises(RateLimited, match="1 requests a second") as refused:
        await admit(gate, first)
    assert refused.value.retry_after_seconds == 1
    await admit(gate, other)


async def test_without_authentication_every_caller_is_the_default_tenant() -> None:
    caller = await OpenGate().admit("CreateKey", bearer("whatever"), None)
    assert (caller.tenant_id, caller.key_id, caller.limits) == (DEFAULT_TENANT_ID, None, TenantLimits())


async def test_a_long_call_may_continue_until_its_key_is_revoked(gate: KeyGate, store: Store) -> None:
    key = new_key()
    grant = store.add(key, limits=TenantLimits(requests_per_second=0.01))
    authorization = bearer(key)
    await admit(gate, key)
    for _ in range(5):
        await gate.readmit("WatchSessions", authorization)
    assert store.uses == [grant.key_id], "a readmission is not a call, and counts against no limit"
    with pytest.raises(PermissionDenied):
        await gate.readmit("CreateKey", authorization)
    store.grants[hash_of(key)] = replace(grant, revoked_at=datetime.now(UTC))
    store.now += 6
    with pytest.raises(Unauthenticated):
        await gate.readmit("WatchSessions", authorization)
    with pytest.raises(Unauthenticated):
        await gate.readmit("WatchSessions", Authorization())


async def test_a_login_is_a_login_only_from_the_cookie_of_a_browser(gate: KeyGate, store: Store) -> None:
    login = new_login()
    grant = store.add(login, login_id=uuid4())
    with pytest.raises(Unauthenticated):
        await admit(gate, login)
    assert not store.lookups
    caller = await gate.admit("ListSessions", bearer(login, is_from_cookie=True), None)
    assert (caller.key_id, caller.login_id, caller.token_hash) == (grant.key_id, grant.login_id, None)
    assert store.uses == [grant.key_id, grant.login_id]


async def test_a_login_has_the_scopes_of_its_key(gate: KeyGate, store: Store) -> None:
    login = new_login()
    store.add(login, login_id=uuid4())
    with pytest.raises(PermissionDenied):
        await gate.admit("DeleteSession", bearer(login, is_from_cookie=True), None)
    for method in ("CreateLogin", "GetLogin", "DeleteLogin"):
        await gate.admit(method, bearer(login, is_from_cookie=True), None)


async def test_a_login_is_cached_until_it_is_forgotten(gate: KeyGate, store: Store) -> None:
    login = new_login()
    store.add(login, login_id=uuid4())
    authorization = bearer(login, is_from_cookie=True)
    for _ in range(3):
        await gate.admit("GetLogin", authorization, None)
    assert store.lookups[hash_of(login)] == 1
    del store.grants[hash_of(login)]
    gate.forget(hash_of(login))
    with pytest.raises(Unauthenticated):
        await gate.admit("GetLogin", authorization, None)
    with pytest.raises(Unauthenticated):
        await gate.readmit("WatchSessions", authorization)


async def test_wrong_logins_count_as_wrong_keys(gate: KeyGate, store: Store) -> None:
    for _ in range(40):
        with pytest.raises(Unauthenticated):
            await gate.admit("GetLogin", bearer(new_login(), is_from_cookie=True), "192.0.2.1")
    store.answering.clear()
    held_back = [
        asyncio.create_task(gate.admit("GetLogin", bearer(new_login(), is_from_cookie=True), "192.0.2.1"))
        for _ in range(5)
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(store.lookups) == 42, "two at a time"
    for each in held_back:
        each.cancel()
    store.answering.set()
    await asyncio.gather(*held_back, return_exceptions=True)


def test_no_secret_is_in_what_is_logged_of_it() -> None:
    login = new_login()
    assert login not in f"{bearer(login)} {bearer(login)!r} {parse_secret(login)!r}"
