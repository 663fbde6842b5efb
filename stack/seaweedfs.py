"""An S3 server (SeaweedFS) from its wheel, for the local stack and the tests."""

import json
import secrets
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from stack.errors import CannotStart
from stack.files import write_private
from stack.ports import free_port
from stack.probe import answers
from stack.process import Pause, Process, running
from stack.wheels import script

_READY_SECONDS = 60.0
_SERVERS = ("master", "volume", "filer", "s3")
# SIGTERM makes the filer wait 15 s for its own subscriptions to end before it does anything. What was acknowledged has
# left the process by then, so a kill loses none of it: docs/adr/0031.
_STOP = ((signal.SIGKILL, 10.0),)


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server with one bucket."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    bucket: str
    region: str
    process: Process


@dataclass(frozen=True, slots=True)
class StartingS3:
    """A server that has been started and is not ready yet, which takes it two seconds, mostly of waiting."""

    _server: S3Server
    _ports: dict[str, tuple[int, int]]

    @property
    def process(self) -> Process:
        return self._server.process

    def ready(self, pause: Pause = time.sleep) -> S3Server:
        """Waits until it can be written to, and makes the bucket if it is not there.

        Raises:
            StackError: it cannot start; the message says why.
        """
        self.process.wait_until(lambda: answers(self._ports["s3"][0], "/healthz"), _READY_SECONDS, pause)
        # S3 answers before there is a volume to write to; asking for a place in one creates it.
        assign = f"/dir/assign?collection={self._server.bucket}"
        self.process.wait_until(lambda: answers(self._ports["master"][0], assign), _READY_SECONDS, pause)
        _make_bucket(self._ports["filer"][0], self._server.bucket)
        return self._server


@contextmanager
def seaweedfs(folder: Path) -> Iterator[S3Server]:
    """Runs a server on free loopback ports while the block runs; the data stays below `folder` for the next time.

    Raises:
        StackError: it cannot start; the message says why.
    """
    with starting_seaweedfs(folder) as starting:
        yield starting.ready()


@contextmanager
def starting_seaweedfs(folder: Path, *, bucket: str = "dalston", log: Path | None = None) -> Iterator[StartingS3]:
    """The same, for who has something else to do until it is ready.

    Args:
        folder: made if it is not there.
        bucket: made if it is not there.
        log: the server's own messages. Default: `seaweedfs.log` in `folder`.

    Raises:
        StackError: it cannot start; the message says why.
    """
    folder = folder.resolve()
    log = log or folder / "seaweedfs.log"
    try:
        (folder / "data").mkdir(parents=True, exist_ok=True)
        _forget_masters(folder / "data")
        access_key, secret_key = _credentials(folder / "identities.json")
    except OSError as error:
        raise CannotStart(f"SeaweedFS cannot keep its data in {folder}: {error.strerror}") from error
    ports = {server: (free_port(), free_port()) for server in _SERVERS}
    command = [str(script("weed")), "-logtostderr=true", "server", *_options(ports)]
    endpoint = f"http://127.0.0.1:{ports['s3'][0]}"
    try:
        # Relative paths in the options: those of Unix sockets may have no more than 107 characters.
        with running("seaweedfs", command, log=log, cwd=folder, stop=_STOP) as process:
            yield StartingS3(S3Server(endpoint, access_key, secret_key, bucket, "us-east-1", process), ports)
    finally:
        for server, (_, grpc_port) in ports.items():
            Path(f"/tmp/seaweedfs-{server}-grpc-{grpc_port}.sock").unlink(missing_ok=True)  # noqa: S108 - its choice


def _options(ports: dict[str, tuple[int, int]]) -> list[str]:
    options: dict[str, object] = {
        "dir": "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        # One master that leads at once, instead of looking for others.
        "master.peers": "none",
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 1024,
        "volume.max": 0,
        "volume.preStopSeconds": 0,
        "filer": "true",
        "filer.localSocket": "filer.sock",
        "s3": "true",
        "s3.localSocket": "s3.sock",
        "s3.config": "identities.json",
        "s3.iam": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
    }
    for server, (port, grpc_port) in ports.items():
        options |= {f"{server}.port": port, f"{server}.port.grpc": grpc_port}
    return [f"-{name}={value}" for name, value in options.items()]


def _forget_masters(data: Path) -> None:
    """Removes what masters on earlier ports knew: the volumes tell the next one what there is."""
    for stale in data.glob("m[0-9]*"):
        shutil.rmtree(stale)


def _credentials(path: Path) -> tuple[str, str]:
    """Reads the one identity the server knows; makes it the first time."""
    if not path.exists():
        key = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        write_private(path, json.dumps({"identities": [{"name": "dalston", "credentials": [key], "actions": actions}]}))
    key = json.loads(path.read_text())["identities"][0]["credentials"][0]
    return key["accessKey"], key["secretKey"]


def _make_bucket(filer_port: int, bucket: str) -> None:
    """A bucket is a folder of the filer; asking there needs no signed request."""
    response = httpx.post(f"http://127.0.0.1:{filer_port}/buckets/{bucket}/", timeout=10, trust_env=False)
    if response.status_code not in (httpx.codes.CREATED, httpx.codes.CONFLICT):
        raise CannotStart(f"SeaweedFS cannot make the bucket {bucket}: {response.text}")
