"""The parts that are Python processes of this project: how each is started and when it is ready."""

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stack.errors import CannotStart
from stack.home import Home
from stack.identity import Identity
from stack.keeper import Service
from stack.probe import answers_on_socket
from stack.process import PRIVATE, PUBLIC, Pause, Process, running
from stack.progress import Report
from stack.settings import ROOT

_SERVER_READY_SECONDS = 180.0
_BRIDGE_READY_SECONDS = 30.0
_WORKER_READY_SECONDS = 120.0
_UPLOADS_READY_SECONDS = 30.0
# Envoy has stopped before these, so their clients are disconnected. The audio that they had sent is transcribed and
# stored within the grace period and 20 s; a second signal leaves the rest of a longer session to the next start.
_SERVER_STOP = ((signal.SIGTERM, 50.0), (signal.SIGTERM, 5.0))
# The worker ends within 20 s, after the window of audio in progress.
_WORKER_STOP = ((signal.SIGTERM, 25.0), (signal.SIGTERM, 5.0))
_BRIDGE_STOP = ((signal.SIGTERM, 15.0), (signal.SIGTERM, 5.0))
_UPLOADS_STOP = ((signal.SIGTERM, 15.0), (signal.SIGTERM, 5.0))


def _module(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name)


@dataclass(frozen=True, slots=True)
class Programs:
    """The commands of the parts; tests put substitutes here."""

    weights: Sequence[str] = field(default=_module("server.inference.weights"))
    migrate: Sequence[str] = field(default=_module("persistence.migrate"))
    server: Sequence[str] = field(default=_module("server"))
    bridge: Sequence[str] = field(default=_module("bridge"))
    uploads: Sequence[str] = field(default=_module("uploads"))
    worker: Sequence[str] = field(default=_module("worker"))


def run_once(
    name: str,
    command: Sequence[str],
    home: Home,
    env: Mapping[str, str],
    pause: Pause,
    report: Report | None = None,
    *,
    as_root: bool = False,
) -> None:
    """Runs a command that ends by itself; `report` gets its last line of output.

    Args:
        as_root: if root starts the stack, whether the command stays root: everybody may read what it writes, and no
            other user may change it.

    Raises:
        CannotStart: it failed; the message is its last line.
    """
    identity, umask = (None, PUBLIC) if as_root else (_identity(command, home, env), PRIVATE)
    with running(
        name,
        command,
        log=home.log(name),
        env=_environment(env, home, identity),
        cwd=ROOT,
        identity=identity,
        umask=umask,
    ) as process:

        def pause_and_report(seconds: float) -> None:
            pause(seconds)
            if report is not None:
                for line in process.last_lines(1):
                    report(line)

        if process.finish(pause_and_report) != 0:
            last = process.last_lines(1)
            raise CannotStart(f"{last[0] if last else f'{name} failed'}\n  its log: {process.log}")


def server(command: Sequence[str], home: Home, env: Mapping[str, str]) -> Service:
    """The gRPC server, ready when its health service answers SERVING."""
    path = home.socket("server")
    own = {**_of_models(), "DALSTON_SERVER_HOST": "127.0.0.1", "DALSTON_SERVER_SOCKET": str(path)}
    return Service(
        "server",
        lambda: _part("server", command, home, {**env, **own}, _SERVER_STOP),
        lambda: _serves(path),
        _SERVER_READY_SECONDS,
        needs=("postgres", "seaweedfs"),
    )


def worker(command: Sequence[str], home: Home, env: Mapping[str, str]) -> Service:
    """The worker, ready when its metrics answer. It loads the models with its first job."""
    path = home.socket("worker")
    own = {**_of_models(), "DALSTON_WORKER_METRICS_SOCKET": str(path), "DALSTON_WORKER_DIR": str(home.scratch)}
    return Service(
        "worker",
        lambda: _part("worker", command, home, {**env, **own}, _WORKER_STOP),
        lambda: answers_on_socket(path, "/metrics", timeout=2),
        _WORKER_READY_SECONDS,
        needs=("postgres", "seaweedfs"),
    )


def _of_models() -> dict[str, str]:
    """The environment of a part that loads models."""
    models = _models()
    # The weights were fetched before: a part starts without the hub.
    return {**({"DALSTON_MODELS": json.dumps(models)} if models else {}), "HF_HUB_OFFLINE": "1"}


def bridge(command: Sequence[str], home: Home, env: Mapping[str, str], path: Path | None = None) -> Service:
    """The WebSocket bridge, ready when it answers on the socket `path`; by default on that of the stack."""
    path = path or home.socket("bridge")
    own = {"DALSTON_BRIDGE_HOST": "127.0.0.1", "DALSTON_BRIDGE_SOCKET": str(path)}
    return Service(
        "bridge",
        lambda: _part("bridge", command, home, {**env, **own}, _BRIDGE_STOP),
        lambda: answers_on_socket(path, "/healthz", timeout=2),
        _BRIDGE_READY_SECONDS,
    )


def uploads(command: Sequence[str], home: Home, env: Mapping[str, str]) -> Service:
    """The process that takes files over HTTP, ready when it answers on its socket."""
    path = home.socket("uploads")
    own = {"DALSTON_UPLOADS_HOST": "127.0.0.1", "DALSTON_UPLOADS_SOCKET": str(path)}
    return Service(
        "uploads",
        lambda: _part("uploads", command, home, {**env, **own}, _UPLOADS_STOP),
        lambda: answers_on_socket(path, "/healthz", timeout=2),
        _UPLOADS_READY_SECONDS,
    )


@contextmanager
def _part(
    name: str, command: Sequence[str], home: Home, env: Mapping[str, str], stop: Sequence[tuple[signal.Signals, float]]
) -> Iterator[Process]:
    identity = _identity(command, home, env)
    with running(
        name,
        command,
        log=home.log(name),
        env=_environment(env, home, identity),
        cwd=ROOT,
        identity=identity,
        stop=stop,
    ) as process:
        yield process


def _identity(command: Sequence[str], home: Home, env: Mapping[str, str]) -> Identity | None:
    identity = home.identity
    weights = [Path(env.get("DALSTON_CACHE_DIR", home.path)), *(Path(name) for name in _models().values())]
    files = [file for folder in weights if folder.is_dir() for file in folder.rglob("*")]
    files += [Path(name) for name in _aws_files().values()]
    return identity and identity.reaching(Path(command[0]), ROOT / "alembic.ini", home.spool.parent, *weights, *files)


def _aws_files() -> dict[str, str]:
    """The files with the credentials of an external S3, of the user that starts the stack, if they exist."""
    names = {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials", "AWS_CONFIG_FILE": "~/.aws/config"}
    files = {name: Path(os.environ.get(name) or usual).expanduser() for name, usual in names.items()}
    return {name: str(path) for name, path in files.items() if path.exists()}


def _models() -> dict[str, str]:
    """The weights by model in the environment, with the home folder of the user that starts the stack expanded."""
    try:
        named = json.loads(os.environ.get("DALSTON_MODELS") or "{}")
        return {name: os.path.expanduser(weights) for name, weights in named.items()}  # noqa: PTH111 - or no path at all
    except (ValueError, AttributeError, TypeError):
        return {}  # the server reports the mistake


def _environment(env: Mapping[str, str], home: Home, identity: Identity | None) -> dict[str, str]:
    user = {}
    if identity is not None:
        # Libraries look up the user's name and home folder, and this user has none.
        user = {"HOME": str(home.socket("any").parent), "USER": "dalston", "LOGNAME": "dalston", **_aws_files()}
    return {**os.environ, "PYTHONUNBUFFERED": "1", **user, **env}


def _serves(path: Path) -> bool:
    with grpc.insecure_channel(f"unix:{path}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
