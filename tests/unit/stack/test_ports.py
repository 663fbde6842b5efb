import socket
import subprocess
import sys

from stack.ports import _BLOCK, _take, free_port, is_free
from stack.settings import ROOT

PROGRAM = """
import sys
from stack.ports import free_port
print(*(free_port() for _ in range(150)), flush=True)
sys.stdin.read()
"""


def start() -> "subprocess.Popen[str]":
    """A process that has reserved ports and listens on none."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def ports_of(process: "subprocess.Popen[str]") -> set[int]:
    assert process.stdout is not None
    return {int(port) for port in process.stdout.readline().split()}


def test_no_port_is_returned_twice() -> None:
    ports = [free_port() for _ in range(150)]
    assert len(set(ports)) == 150


def test_a_port_reserved_by_one_process_is_not_returned_to_another() -> None:
    with start() as one, start() as other:
        chosen = ports_of(one), ports_of(other), {free_port() for _ in range(150)}
        assert len(set.union(*chosen)) == 450
        one.communicate()
        other.communicate()


def test_ports_of_an_ended_process_are_free_again() -> None:
    with start() as process:
        block = min(ports_of(process)) // _BLOCK * _BLOCK
        assert not _take(block)
        process.kill()
        process.wait()
        assert _take(block)


def test_a_port_with_a_listener_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not is_free("127.0.0.1", server.getsockname()[1])
