"""Another user of the machine can use the public port of a running stack, and nothing else."""

import asyncio
import io
import json
import os
import pwd
import ssl
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cryptography import x509
from dalston import AsyncClient, Ended

from stack.envoy import Endpoints, Envoy
from stack.identity import unprivileged
from stack.ports import free_port, is_free
from stack.settings import StackSettings
from stack.supervisor import Stack, running_stack
from tests.conftest import SCRIPTED_PROGRAMS
from tests.faults import pattern
from tests.integration.envoy.certificates import make_certificate
from tests.integration.stack import intruder

SECONDS = 3
SEARCH = 1 << 1 | 1 << 2
"""The right to pass through folders that are closed to the user of the parts."""
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    """A stack in a folder that others may enter: its own folders are private."""
    with tempfile.TemporaryDirectory(prefix="dalston-open-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        (home / "others").touch()
        settings = StackSettings(
            home=home, port=free_port(), database_url=None, s3_endpoint_url=None, s3_bucket=None, metrics_port=None
        )
        with running_stack(settings, programs=SCRIPTED_PROGRAMS) as stack:
            yield stack


async def record(stack: Stack) -> str:
    """Makes a recording and returns its session id."""
    audio = pattern.audio(1, 0, SECONDS * pattern.BYTES_PER_SECOND)
    async with AsyncClient(stack.base_url) as client:
        async with client.transcribe(
            audio, encoding="pcm_s16le", sample_rate=16_000, store_audio=True, store_transcript=True
        ) as stream:
            events = [event async for event in stream]
        assert isinstance(events[-1], Ended)
        session_id = events[-1].session_id
        async with asyncio.timeout(30):
            while not (await client.sessions.get(session_id)).audio_uri:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    return session_id


async def recording(stack: Stack, session_id: str) -> bytes:
    async with AsyncClient(stack.base_url) as client:
        wav = await client.sessions.audio(session_id).read()
    with wave.open(io.BytesIO(wav)) as file:
        return file.readframes(file.getnframes())


def listening(stack: Stack) -> tuple[list[int], list[str]]:
    """The ports and the Unix sockets that processes of the stack listen on."""
    ports, paths = set(), set()
    for each in stack.processes:
        process = psutil.Process(each.popen.pid)
        for one in (process, *process.children(recursive=True)):
            ports |= {c.laddr.port for c in one.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
            paths |= {str(Path(one.cwd(), c.laddr)) for c in one.net_connections("unix") if c.laddr}
    return sorted(ports), sorted(paths)


async def test_another_user_cannot_read_forge_or_delete_anything(own_stack: Stack) -> None:
    session_id = await record(own_stack)
    ports, paths = listening(own_stack)
    assert own_stack.port in ports
    ports.remove(own_stack.port)
    assert len(ports) >= 9, "SeaweedFS and Postgres"
    assert own_stack.s3 is not None
    there = {
        "tcp": ports,
        "unix": paths,
        "folders": [str(path) for path in own_stack.home.path.iterdir() if path.is_dir()],
        "bucket": own_stack.s3.bucket,
    }
    as_nobody = pwd.getpwnam("nobody")
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, intruder.__file__, str(as_nobody.pw_uid), str(as_nobody.pw_gid)],
        input=json.dumps(there),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
    assert {Path(path).name for path in paths} >= {
        "server.sock",
        "bridge.sock",
        "uploads.sock",
        "metrics.sock",
        "worker.sock",
        "admin.sock",
    }
    expected = pattern.audio(1, 0, SECONDS * pattern.BYTES_PER_SECOND)
    assert await recording(own_stack, session_id) == expected


def test_no_part_runs_as_root_or_keeps_a_right_of_root(own_stack: Stack) -> None:
    for process in own_stack.processes:
        status = Path(f"/proc/{process.popen.pid}/status").read_text().splitlines()
        fields = dict(line.split(":\t", 1) for line in status if ":\t" in line)
        assert "0" not in fields["Uid"].split(), process.name
        assert "0" not in fields["Gid"].split(), process.name
        may_search = 0 if is_open(Path(psutil.Process(process.popen.pid).exe())) else SEARCH
        assert int(fields["CapEff"], 16) & ~may_search == 0, process.name


def is_open(path: Path) -> bool:
    return all(each.stat().st_mode & 0o001 for each in path.parents)


def test_envoy_serves_a_certificate_of_root_and_its_renewal(tmp_path: Path) -> None:
    port = next(port for port in range(1023, 900, -1) if is_free("127.0.0.1", port))
    secret = tmp_path / "live"  # as certbot stores it
    secret.mkdir(mode=0o700)
    certificate = make_certificate(secret, 1)
    with tempfile.TemporaryDirectory(prefix="dalston-open-") as folder:
        Path(folder).chmod(0o755)
        own = Path(folder) / "envoy"
        endpoints = Endpoints(["127.0.0.1"], port, free_port(), free_port(), certificate=certificate)
        proxy = Envoy(own, endpoints, unprivileged(own))
        with proxy.launch() as process:
            process.wait_until(proxy.is_ready, 30)
            status = Path(f"/proc/{process.popen.pid}/status").read_text()
            assert "Uid:\t0" not in status
            assert serial(port) == 1
            make_certificate(secret, 2)
            deadline = time.monotonic() + 20
            while serial(port) != 2 and time.monotonic() < deadline:
                proxy.check_certificate()
                time.sleep(0.2)
            assert serial(port) == 2


def serial(port: int) -> int:
    """The serial number of the certificate."""
    pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=10)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number
