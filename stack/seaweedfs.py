"""An S3 server (SeaweedFS) from its wheel, for the local stack and the tests."""

import http.client
import json
import os
import secrets
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stack.credentials import make_mutual_tls
from stack.errors import CannotStart
from stack.files import write_private
from stack.identity import Identity, change_owner, make_private, unprivileged
from stack.ports import free_port
from stack.probe import answers
from stack.process import Pause, Process, running
from stack.wheels import script

READY_SECONDS = 60.0
_SERVERS = ("master", "volume", "filer", "s3")
# SIGTERM makes the filer wait 15 s for its own subscriptions to end before it does anything. Acknowledged writes have
# left the process by then, so a kill loses none of them: docs/adr/0031.
_STOP = ((signal.SIGKILL, 10.0),)


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server with one bucket."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    bucket: str
    region: str


class SeaweedFS:
    """A server's folder and its ports, which stay the same across restarts."""

    def __init__(
        self, folder: Path, identity: Identity | None, *, bucket: str = "dalston", log: Path | None = None
    ) -> None:
        """
        Args:
            folder: created if it does not exist.
            identity: the user that it runs as and that will own the folder.
            bucket: created if it does not exist.
            log: the server's own messages. Default: `seaweedfs.log` in `folder`.

        Raises:
            StackError: it cannot be started, with the reason.
        """
        self._folder = folder.resolve()
        self._log = log or self._folder / "seaweedfs.log"
        try:
            make_private(self._folder, identity)
            make_private(self._folder / "data", identity)
            access_key, secret_key = _credentials(self._folder / "identities.json")
            change_owner(self._folder / "identities.json", identity)
            tls = make_mutual_tls(self._folder, identity)
            write_private(self._folder / "security.toml", _security(tls.authority, tls.certificate, tls.private_key))
            change_owner(self._folder / "security.toml", identity)
        except OSError as error:
            raise CannotStart(f"SeaweedFS cannot keep its data in {self._folder}: {error.strerror}") from error
        self._tls = tls.context()
        self._program = script("weed")
        self._identity = identity and identity.reaching(self._program, self._folder)
        self._ports = {server: (free_port(), _grpc_port(server)) for server in _SERVERS}
        endpoint = f"http://127.0.0.1:{self._ports['s3'][0]}"
        self.server = S3Server(endpoint, access_key, secret_key, bucket, "us-east-1")

    @contextmanager
    def launch(self) -> Iterator[Process]:
        """Runs it while the block runs; it is ready after about two seconds."""
        try:
            _forget_masters(self._folder / "data")
            command = [str(self._program), "-logtostderr=true", "server", *_options(self._ports)]
            # The options have relative paths, because those of Unix sockets have at most 107 characters. The caller's
            # environment is left out, because WEED_* would override security.toml.
            with running(
                "seaweedfs",
                command,
                log=self._log,
                env={"PATH": os.defpath, "HOME": str(self._folder)},
                cwd=self._folder,
                identity=self._identity,
                stop=_STOP,
            ) as process:
                yield process
        finally:
            for server, (_, grpc_port) in self._ports.items():
                _socket_of(server, grpc_port).unlink(missing_ok=True)

    def is_ready(self) -> bool:
        """Whether it takes writes. The bucket exists then.

        Raises:
            CannotStart: the bucket cannot be created.
        """
        # S3 answers before a volume exists; a request for a place in one creates it.
        assign = f"/dir/assign?collection={self.server.bucket}"
        if not answers(self._ports["s3"][0], "/healthz") or not answers(
            self._ports["master"][0], assign, tls=self._tls
        ):
            return False
        self._make_bucket()
        return True

    def _make_bucket(self) -> None:
        """A bucket is a folder of the filer, which needs no signed request."""
        connection = http.client.HTTPSConnection("127.0.0.1", self._ports["filer"][0], timeout=10, context=self._tls)
        with closing(connection):
            try:
                connection.request("POST", f"/buckets/{self.server.bucket}/", headers={"Content-Length": "0"})
                answer = connection.getresponse()
                body = answer.read().decode(errors="replace")
            except (OSError, http.client.HTTPException) as error:
                raise CannotStart(f"SeaweedFS cannot create the bucket {self.server.bucket}: {error}") from error
        if answer.status not in (http.HTTPStatus.CREATED, http.HTTPStatus.CONFLICT):
            raise CannotStart(f"SeaweedFS cannot create the bucket {self.server.bucket}: {body}")


@contextmanager
def seaweedfs(folder: Path, *, pause: Pause = time.sleep) -> Iterator[S3Server]:
    """Runs a server on free loopback ports while the block runs; the data stays below `folder`.

    Raises:
        StackError: it cannot start, with the reason.
    """
    seaweed = SeaweedFS(folder, unprivileged(folder))
    with seaweed.launch() as process:
        process.wait_until(seaweed.is_ready, READY_SECONDS, pause)
        yield seaweed.server


def _security(authority: Path, certificate: Path, key: Path) -> str:
    """Makes its servers require a certificate of every client, over HTTP and over gRPC.

    The S3 gateway is the exception: it requires signed requests.
    """
    shown = f"cert = {json.dumps(str(certificate))}\nkey = {json.dumps(str(key))}\n"
    ca = f"ca = {json.dumps(str(authority))}\n"
    sections = [f"[grpc]\n{ca}"]
    sections += [f"[grpc.{name}]\n{shown}" for name in ("master", "volume", "filer", "s3", "client")]
    sections += [f"[https.{name}]\n{shown}{ca}" for name in ("master", "volume", "filer")]
    sections += [f"[https.client]\nenabled = true\n{shown}{ca}"]
    return "\n".join(sections)


def _options(ports: dict[str, tuple[int, int]]) -> list[str]:
    options: dict[str, object] = {
        "dir": "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        # One master that leads at once, instead of searching for others.
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
        # No web page may read its responses.
        "s3.allowedOrigins": "http://none.invalid",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
    }
    for server, (port, grpc_port) in ports.items():
        options |= {f"{server}.port": port, f"{server}.port.grpc": grpc_port}
    return [f"-{name}={value}" for name, value in options.items()]


def _socket_of(server: str, grpc_port: int) -> Path:
    """The Unix socket on which one of its servers listens for the others, beside the port."""
    return Path(f"/tmp/seaweedfs-{server}-grpc-{grpc_port}.sock")  # noqa: S108 - its choice


def _grpc_port(server: str) -> int:
    """A free port whose Unix socket does not exist.

    A killed server leaves its socket in a folder in which no other user can remove it. The servers of a later stack on
    that port would try to connect to it until they give up.

    Raises:
        OSError: none found.
    """
    while os.path.lexists(_socket_of(server, port := free_port())):
        pass
    return port


def _forget_masters(data: Path) -> None:
    """Removes the state of masters on earlier ports: the volumes report their content to the next one."""
    for stale in data.glob("m[0-9]*"):
        shutil.rmtree(stale)


def _credentials(path: Path) -> tuple[str, str]:
    """Reads the one identity of the server; creates it the first time."""
    if not path.exists():
        key = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        write_private(path, json.dumps({"identities": [{"name": "dalston", "credentials": [key], "actions": actions}]}))
    key = json.loads(path.read_text())["identities"][0]["credentials"][0]
    return key["accessKey"], key["secretKey"]
