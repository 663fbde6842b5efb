"""A Postgres with a standby that is promoted when the primary is killed, behind one port of a proxy."""

from __future__ import annotations

import asyncio
import shutil
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # published without types

from stack import postgres_roles as roles
from stack.files import write_private
from stack.identity import Identity, make_private, unprivileged
from stack.postgres import _BIN, PostgresServer, _environment, postgres
from stack.process import running
from tests.faults.proxy import Proxy


class Pair:
    """A primary and its standby. Clients reach the one that serves by `clients`, the standby its primary by `link`."""

    def __init__(self, folder: Path, clients: Proxy, link: Proxy) -> None:
        self._folder = folder
        self._clients = clients
        self._link = link
        self._stack = ExitStack()

    @property
    def port(self) -> int:
        """The port at which clients find the primary."""
        return self._clients.port

    def start(self) -> PostgresServer:
        """Starts the primary alone."""
        self.primary = self._stack.enter_context(postgres(self._folder / "primary", durable=True))
        self._clients.target = self._link.target = ("127.0.0.1", self.primary.port)
        return self.primary

    async def add_standby(self, *, synchronous: bool) -> None:
        """Starts a standby that has all data and follows from here on."""
        self._home = self._folder / "standby"
        self._home.mkdir()
        write_private(self._home / "password", self.primary.password)
        write_private(self._home / roles.ADMIN_PASSWORD, self.primary.admin_password)
        identity = self._own_data()
        conninfo = f"host=127.0.0.1 port={self._link.port} user={roles.ADMIN} password={self.primary.admin_password}"
        options = ["-R", "-X", "stream", "-c", "fast", "-D", str(self._home / "data")]
        await self._run(identity, "pg_basebackup", "-d", conninfo, *options)
        self._identity = identity
        self.standby = self._stack.enter_context(postgres(self._home, durable=True))
        await self._until("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
        if synchronous:
            await self._primary("ALTER SYSTEM SET synchronous_standby_names = '*'")
            await self._primary("SELECT pg_reload_conf()")
            await self._until("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'")

    def stall(self) -> None:
        """Cuts the standby off."""
        self._link.stall()

    async def fail_over(self) -> None:
        """Kills the primary, drops every connection to it, and promotes the standby with what it has."""
        self.primary.process.popen.send_signal(signal.SIGKILL)
        self._clients.refuse()
        self._link.cut()
        async with asyncio.timeout(30):
            while self.primary.process.exit_code() is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await self._run(self._identity, "pg_ctl", "promote", "-w", "-D", str(self._home / "data"))
        self._clients.target = ("127.0.0.1", self.standby.port)
        self._clients.restore()

    def close(self) -> None:
        self._stack.close()

    async def _until(self, statement: str) -> None:
        async with asyncio.timeout(30):
            while not await self._primary(statement):  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def _primary(self, statement: str) -> Any:
        connection = await asyncpg.connect(self.primary.admin_url, timeout=5)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    def _own_data(self) -> Identity | None:
        data = self._home / "data"
        shutil.rmtree(data, ignore_errors=True)
        identity = unprivileged(self._home)
        make_private(data, identity)
        make_private(self._home, identity)
        return identity and identity.reaching(data, _BIN / "pg_basebackup")

    async def _run(self, identity: Identity | None, name: str, *arguments: str) -> None:
        log = self._home / f"{name}.log"

        # Not waited for by `finish`: what it needs comes through a proxy of this loop.
        command = [str(_BIN / name), *arguments]
        with running(name, command, log=log, env=_environment(), cwd=self._home, identity=identity) as process:
            async with asyncio.timeout(60):
                while (code := process.exit_code()) is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        assert code == 0, log.read_text()
