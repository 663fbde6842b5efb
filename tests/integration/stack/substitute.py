"""Programs that take the place of the server, the worker, the bridge and uploads, and the stack's own command on top.

python substitute.py server|worker|bridge|uploads [stubborn|broken|broken_later]
python substitute.py up [server words...]      the command `up` with these substitutes
"""

from __future__ import annotations

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stack.parts import Programs

# A test starts up to five of these processes for each stack. What only one of them needs is imported where it is used.

NOTHING = (sys.executable, "-c", "pass")


def programs(*server_words: str, weights: tuple[str, ...] = NOTHING) -> Programs:
    from stack.parts import Programs

    here = (sys.executable, __file__)
    others = ((*here, name) for name in ("bridge", "uploads", "worker"))
    return Programs(weights, NOTHING, (*here, "server", *server_words), *others)


def serve_grpc() -> None:
    import threading
    from concurrent.futures import ThreadPoolExecutor

    import grpc
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{os.environ['DALSTON_SERVER_SOCKET']}")
    server.start()
    threading.Event().wait()


class UnixServer(UnixStreamServer):
    def get_request(self) -> tuple[Any, Any]:
        return self.socket.accept()[0], ("", 0)


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


def main(words: list[str]) -> int:
    if words[0] == "up":
        from stack.interruption import Interruption

        with Interruption() as interruption:
            from stack.cli import run

            return run(["up"], interruption, programs(*words[1:]))
    if "broken_later" in words and Path(os.environ["STAND_IN_MARK"]).exists():
        sys.exit("the configuration makes no sense any more")
    if "broken" in words:
        sys.exit("the configuration makes no sense")
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in words else signal.SIG_DFL)
    if words[0] == "server":
        serve_grpc()
    else:
        variable = "WORKER_METRICS" if words[0] == "worker" else words[0].upper()
        path = Path(os.environ[f"DALSTON_{variable}_SOCKET"])
        path.unlink(missing_ok=True)
        UnixServer(str(path), Health).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
