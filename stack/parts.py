"""The parts that are Python processes of this project: how each is started and when it is ready."""

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stack.errors import CannotStart
from stack.home import Home
from stack.probe import answers
from stack.process import Pause, Process, running
from stack.progress import Tell
from stack.settings import ROOT

_SERVER_READY_SECONDS = 180.0
_BRIDGE_READY_SECONDS = 30.0
# Envoy has stopped before these two, so their clients are gone. What those had sent is transcribed and stored within
# the grace period and 20 s; a second signal leaves the rest of a longer one to the next start.
_SERVER_STOP = ((signal.SIGTERM, 50.0), (signal.SIGTERM, 5.0))
_BRIDGE_STOP = ((signal.SIGTERM, 15.0), (signal.SIGTERM, 5.0))


def _module(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name)


@dataclass(frozen=True, slots=True)
class Programs:
    """What is run; tests put stand-ins here."""

    weights: Sequence[str] = field(default=_module("server.inference.weights"))
    migrate: Sequence[str] = field(default=_module("persistence.migrate"))
    server: Sequence[str] = field(default=_module("server"))
    bridge: Sequence[str] = field(default=_module("bridge"))


def run_once(
    name: str,
    command: Sequence[str],
    home: Home,
    env: Mapping[str, str],
    pause: Pause,
    tell: Tell | None = None,
) -> None:
    """Runs a command that ends by itself; `tell` gets what it says.

    Raises:
        CannotStart: it failed; the message is its last line.
    """
    with running(name, command, log=home.log(name), env=_environment(env), cwd=ROOT) as process:

        def pause_and_tell(seconds: float) -> None:
            pause(seconds)
            if tell is not None:
                for line in process.last_lines(1):
                    tell(line)

        if process.finish(pause_and_tell) != 0:
            last = process.last_lines(1)
            raise CannotStart(f"{last[0] if last else f'{name} failed'}\n  its log: {process.log}")


@contextmanager
def server(command: Sequence[str], home: Home, port: int, env: Mapping[str, str], pause: Pause) -> Iterator[Process]:
    """The gRPC server, ready when its health service says so."""
    own = {"DALSTON_SERVER_HOST": "127.0.0.1", "DALSTON_SERVER_PORT": str(port)}
    with (
        _part("server", command, home, {**env, **own}, _SERVER_STOP) as process,
        grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.max_reconnect_backoff_ms", 200)]) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        process.wait_until(lambda: _serves(health), _SERVER_READY_SECONDS, pause)
        yield process


@contextmanager
def bridge(command: Sequence[str], home: Home, port: int, env: Mapping[str, str], pause: Pause) -> Iterator[Process]:
    """The WebSocket bridge, ready when it answers."""
    own = {"DALSTON_BRIDGE_HOST": "127.0.0.1", "DALSTON_BRIDGE_PORT": str(port)}
    with _part("bridge", command, home, {**env, **own}, _BRIDGE_STOP) as process:
        process.wait_until(lambda: answers(port, "/healthz", timeout=2), _BRIDGE_READY_SECONDS, pause)
        yield process


@contextmanager
def _part(
    name: str, command: Sequence[str], home: Home, env: Mapping[str, str], stop: Sequence[tuple[signal.Signals, float]]
) -> Iterator[Process]:
    with running(name, command, log=home.log(name), env=_environment(env), cwd=ROOT, stop=stop) as process:
        yield process


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1", **env}


def _serves(health: health_pb2_grpc.HealthStub) -> bool:
    try:
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=1)
    except grpc.RpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
