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
    """A process that has chosen ports and listens on none."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def ports_of(process: "subprocess.Popen[str]") -> set[int]:
    assert process.stdout is not None
    return {int(port) for port in process.stdout.readline().split()}


def test_no_port_is_given_twice() -> None:
    ports = [free_port() for _ in range(150)]
    assert len(set(ports)) == 150


def test_a_port_that_a_process_has_chosen_is_given_to_no_other() -> None:
    with start() as one, start() as other:
        chosen = ports_of(one), ports_of(other), {free_port() for _ in range(150)}
        assert len(set.union(*chosen)) == 450
        one.communicate()
        other.communicate()


def test_the_ports_of_a_process_that_is_gone_are_given_again() -> None:
    with start() as process:
        block = min(ports_of(process)) // _BLOCK * _BLOCK
        assert not _take(block)
        process.kill()
        process.wait()
        assert _take(block)


def test_a_port_somebody_listens_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not is_free("127.0.0.1", server.getsockname()[1])
