"""A stack behind a load balancer: limits per address, and the recorded address."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator

import asyncpg
import httpx
import pytest
from websockets.asyncio.client import connect

from domain.session_id import parse_session_id
from stack.ports import free_port
from stack.settings import StackSettings
from stack.supervisor import Stack, running_stack
from tests.conftest import SCRIPTED_PROGRAMS
from tests.e2e.harness import STORED, STREAM, Harness, bearer

BALANCER = "127.0.0.2"
ONE, OTHER = "203.0.113.11", "198.51.100.22"
SESSIONS = "/v1/realtime/sessions"


@pytest.fixture(scope="module")
def named_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that trusts its load balancer."""
    settings = StackSettings(
        home=tmp_path_factory.mktemp("behind"),
        port=free_port(),
        auth="keys",
        trusted_proxies=BALANCER,
        database_url=None,
        s3_endpoint_url=None,
        s3_bucket=None,
        enhance=False,
    )
    with running_stack(settings, programs=SCRIPTED_PROGRAMS) as stack:
        yield stack


@pytest.fixture(params=["named_stack", "keyed_stack"], ids=["named", "not named"])
def stack(request: pytest.FixtureRequest) -> Stack:
    """A stack behind a load balancer that it trusts, and one that does not trust it."""
    stack: Stack = request.getfixturevalue(request.param)
    return stack


@pytest.fixture
def is_named(request: pytest.FixtureRequest) -> bool:
    """Whether the stack trusts its load balancer."""
    return "not named" not in request.node.name


@pytest.fixture
async def balancer(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A client that connects from the address of the load balancer."""
    transport = httpx.AsyncHTTPTransport(local_address=BALANCER)
    async with httpx.AsyncClient(base_url=stack.base_url, transport=transport, timeout=20) as http:
        yield http


@pytest.fixture
async def database(stack: Stack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(stack.database_url)
    yield connection
    await connection.close()


async def guess(balancer: httpx.AsyncClient, client: str, count: int) -> list[int]:
    """The statuses of simultaneous requests with wrong keys."""

    async def show() -> int:
        headers = {"x-forwarded-for": client, **bearer("dk_" + secrets.token_urlsafe(32))}
        return (await balancer.get(SESSIONS, headers=headers)).status_code

    return await asyncio.gather(*(show() for _ in range(count)))


async def test_two_clients_behind_one_balancer_are_counted_apart(
    balancer: httpx.AsyncClient, database: asyncpg.Connection, is_named: bool
) -> None:
    """Failed authentications query Postgres two at a time per client, so a lock shows which client is limited."""
    for _ in range(5):
        await guess(balancer, ONE, 45)
        async with database.transaction():
            await database.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
            guessing = asyncio.create_task(guess(balancer, ONE, 6))
            other_client = asyncio.create_task(guess(balancer, OTHER, 6))
            await asyncio.sleep(2.5)
        refused = (await guessing).count(429), (await other_client).count(429)
        if any(refused):
            break
        # It took a second to get the lock, so the guessing client had attempts left.
    assert refused == (4, 0) if is_named else sum(refused) == 10


async def test_the_client_address_is_recorded_and_not_logged(
    stack: Stack, database: asyncpg.Connection, is_named: bool
) -> None:
    harness = Harness(stack, None, None, database)  # type: ignore[arg-type]  # it needs the database only
    key = await harness.make_tenant("behind", "realtime")
    for source, forwarded, recorded in (
        (BALANCER, f"192.0.2.99, {ONE}", ONE if is_named else BALANCER),
        ("127.0.0.1", f"192.0.2.99, {ONE}", "127.0.0.1"),
    ):
        headers = {"x-forwarded-for": forwarded, **bearer(key)}
        url = f"{stack.ws_url}{STREAM}?{STORED}"
        async with connect(url, proxy=None, additional_headers=headers, local_addr=(source, 0)) as socket:
            session_id = json.loads(await socket.recv())["session_id"]
            await socket.send('{"type":"end"}')
            await socket.wait_closed()
        found = await database.fetchval(
            "SELECT host(client_ip) FROM realtime_sessions WHERE id = $1", parse_session_id(session_id)
        )
        assert found == recorded
    for log in stack.home.path.glob("logs/*"):
        text = log.read_text(errors="replace")
        assert not [each for each in (ONE, OTHER, "192.0.2.99") if each in text], log.name
