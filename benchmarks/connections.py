"""An attack that takes all connections of Envoy, and how soon another client is served.

    python benchmarks/connections.py                      every way to hold a connection, once and repeatedly
    python benchmarks/connections.py --hold nothing,header --seconds 30
    python benchmarks/connections.py --each 5000          with no effective limit per address

One address opens more connections than Envoy accepts, and sends an incomplete request on each. "once" leaves it at
that; "repeatedly" opens another for each that is closed. A client at another address requests a small page, each time
on a new connection, until it is answered. Only Envoy runs, with the configuration of production.
"""

import argparse
import asyncio
import ssl
import statistics
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from provenance import commit, machine

from stack.envoy import Certificate, Endpoints, envoy
from stack.ports import free_port

ATTACKER, CLIENT = "127.0.0.1", "127.0.0.9"
CONNECTIONS = 5500
OPEN_AT_ONCE = 200
ATTEMPT_SECONDS = 2.0
PAUSE_SECONDS = 0.25
GIVE_UP_SECONDS = 90.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
HELLO_HEAD = bytes([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3])

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def client_hello() -> bytes:
    """The first message of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


@dataclass(frozen=True)
class Hold:
    """A way to hold a connection: the bytes sent on it, and whether after a TLS handshake."""

    name: str
    payload: bytes
    is_tls: bool = False
    speaks_tls: bool = False


HOLDS = [
    Hold("nothing", b""),
    Hold("header", b"GET /v1/openapi.json HTTP/1.1\r\nhost: a\r\nx-a: "),
    Hold("request", b"HEAD /v1/openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    Hold("preface", PREFACE),
    Hold("tls-nothing", b"", is_tls=True),
    Hold("tls-half-hello", HELLO_HEAD, is_tls=True),
    Hold("tls-hello", client_hello(), is_tls=True),
    Hold("tls-idle", b"", is_tls=True, speaks_tls=True),
]


@dataclass
class Attack:
    """Connections held from one address."""

    port: int
    hold: Hold
    is_persistent: bool
    open: int = 0
    made: int = 0
    _gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(OPEN_AT_ONCE))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(self._hold())

    async def _hold(self) -> None:
        while True:
            with suppress(OSError, ssl.SSLError, TimeoutError):
                async with self._gate, asyncio.timeout(20):
                    reader, writer = await connected(self.port, ATTACKER, self.hold.speaks_tls)
                    writer.write(self.hold.payload)
                self.made += 1
                self.open += 1
                try:
                    while await reader.read(65_536):
                        pass
                finally:
                    self.open -= 1
                    writer.transport.abort()
            if not self.is_persistent:
                return
            await asyncio.sleep(PAUSE_SECONDS)


async def connected(port: int, source: str, tls: bool) -> Streams:
    context = None
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0), ssl=context)


async def is_answered(port: int, tls: bool) -> bool:
    """One attempt of a client."""
    try:
        async with asyncio.timeout(ATTEMPT_SECONDS):
            reader, writer = await connected(port, CLIENT, tls)
            try:
                writer.write(b"HEAD /v1/openapi.json HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                return (await reader.read(12)).endswith(b" 200")
            finally:
                writer.transport.abort()
    except (OSError, ssl.SSLError, TimeoutError):
        return False


async def until_answered(port: int, tls: bool) -> tuple[float, int]:
    """The seconds until a client was answered, and its attempts."""
    began, attempts = time.monotonic(), 0
    while time.monotonic() - began < GIVE_UP_SECONDS:
        attempts += 1
        if await is_answered(port, tls):
            break
        await asyncio.sleep(PAUSE_SECONDS)
    return time.monotonic() - began, attempts


async def measure(port: int, hold: Hold, is_persistent: bool, seconds: float) -> str:
    attack = Attack(port, hold, is_persistent)
    running = asyncio.create_task(attack.run())
    try:
        began = time.monotonic()
        # There is no event for it.
        while attack.made < CONNECTIONS and time.monotonic() - began < 30:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        filled = time.monotonic() - began
        waits = [await until_answered(port, hold.is_tls)]
        while is_persistent and time.monotonic() - began < filled + seconds:
            await asyncio.sleep(1)
            waits.append(await until_answered(port, hold.is_tls))
        took = [each for each, _ in waits]
        return (
            f"{hold.name:16}{'repeatedly' if is_persistent else 'once':12}{filled:8.1f}{attack.made:8}"
            f"{took[0]:8.1f}{statistics.median(took):8.1f}{max(took):8.1f}{len(took):5}"
        )
    finally:
        running.cancel()
        await asyncio.wait({running})


def make_certificate(folder: Path) -> Certificate:
    made = Certificate(folder / "chain.pem", folder / "key.pem")
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost "
        f"-keyout {made.private_key} -out {made.chain}".split(),
        check=True,
        capture_output=True,
    )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hold", default=",".join(each.name for each in HOLDS))
    parser.add_argument("--seconds", type=float, default=30, help="how long to observe a repeated attack")
    parser.add_argument("--each", type=int, default=1000, help="connections that an eighth of all addresses may have")
    arguments = parser.parse_args()
    wanted = arguments.hold.split(",")
    print(f"{machine()}, {commit()}")
    print(f"{'hold':16}{'':12}{'filled':>8}{'made':>8}{'first':>8}{'median':>8}{'worst':>8}{'n':>5}   (seconds)")
    for hold in HOLDS:
        if hold.name not in wanted:
            continue
        for is_persistent in (False, True):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                certificate = make_certificate(folder) if hold.is_tls else None
                ports = (free_port(), free_port(), free_port())
                endpoints = Endpoints(["127.0.0.1"], *ports, certificate=certificate, connections_each=arguments.each)
                with envoy(folder / "envoy", endpoints):
                    print(asyncio.run(measure(endpoints.port, hold, is_persistent, arguments.seconds)), flush=True)


if __name__ == "__main__":
    main()
