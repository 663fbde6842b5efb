"""Attacks a stack as another user of the machine, over the network and on the disk.

python intruder.py UID GID

Started by root, it becomes this user first. It reads its targets from stdin, as JSON: {"tcp": [ports], "unix": [paths],
"folders": [paths], "bucket": name}. It prints its successes, as a JSON list of sentences.
"""

import json
import os
import socket
import ssl
import struct
import sys
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

import grpc

PUBLIC_PATHS = ("/healthz", "/status")
"""Public paths: they report that the part runs, and their responses have no content."""
METHODS = (
    "/grpc.health.v1.Health/Check",
    "/dalston.v1.SessionService/ListSessions",
    "/master_pb.Seaweed/CollectionList",
    "/master_pb.Seaweed/VolumeList",
    "/volume_server_pb.VolumeServer/VolumeServerStatus",
    "/filer_pb.SeaweedFiler/Statistics",
    "/filer_pb.SeaweedFiler/GetFilerConfiguration",
    "/messaging_pb.SeaweedS3IamCache/ListUsers",
)
UNREACHED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.DEADLINE_EXCEEDED}
_INVALID_PASSWORD = b"R\x00\x00\x00\x08\x00\x00\x00\x00"
"""The authentication request of Postgres for users without a password."""


def requests(bucket: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Method, path and headers; those of a page are what a browser sends without a preflight."""
    page = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    for path in ("/", "/healthz", "/metrics", "/status", "/ui/index.html", "/debug/pprof/", "/stats", "/config_dump"):
        yield "GET", path, page
    yield "GET", "/v1/realtime/sessions", {}
    yield "GET", "/v1/audio/transcriptions/stream", {"Connection": "Upgrade", "Upgrade": "websocket"}
    for path in (
        "/dir/status",
        "/dir/assign",
        "/dir/lookup?volumeId=1",
        "/vol/status",
        f"/buckets/{bucket}/",
        f"/buckets/{bucket}/sessions/",
        f"/{bucket}",
        f"/{bucket}?list-type=2",
        "/1,01",
    ):
        yield "GET", path, {"Accept": "application/json"}
    yield "POST", f"/buckets/{bucket}/forged", page
    yield "PUT", f"/{bucket}/forged", page
    yield "POST", f"/{bucket}?delete", page
    yield "DELETE", f"/{bucket}", {}
    yield "DELETE", f"/buckets/{bucket}?recursive=true", {}
    yield "POST", f"/col/delete?collection={bucket}", page
    yield "POST", "/vol/grow?count=1", page


def by_http(port: int, bucket: str) -> Iterator[str]:
    anybody = ssl._create_unverified_context()  # noqa: S323 - an intruder trusts any server
    for method, path, headers in requests(bucket):
        for kind in ("http", "https"):
            connection = HTTPConnection("127.0.0.1", port, timeout=3)
            if kind == "https":
                connection = HTTPSConnection("127.0.0.1", port, timeout=3, context=anybody)
            try:
                connection.request(method, path, b"x" if method in ("POST", "PUT") else None, headers)
                answer = connection.getresponse()
                body = answer.read(200)
            except (OSError, HTTPException):
                continue
            finally:
                connection.close()
            if answer.status < 400 and (body or path not in PUBLIC_PATHS):
                yield f"{kind} port {port}: {method} {path} answered {answer.status}: {body!r}"


def by_grpc(target: str) -> Iterator[str]:
    for method in METHODS:
        with grpc.insecure_channel(target) as channel:
            call = channel.unary_unary(method, lambda data: data, lambda data: data)
            try:
                body = call(b"", timeout=2)
            except grpc.RpcError as error:
                if error.code() not in UNREACHED:
                    yield f"gRPC {target}: {method} was refused by the service itself: {error.code().name}"
            else:
                yield f"gRPC {target}: {method} answered {body[:100]!r}"


def by_postgres(port: int) -> Iterator[str]:
    for user in ("postgres", "dalston"):
        try:
            with socket.create_connection(("127.0.0.1", port), 3) as connection:
                words = f"user\0{user}\0database\0dalston\0\0".encode()
                connection.sendall(struct.pack("!ii", len(words) + 8, 196608) + words)
                body = connection.recv(100)
        except OSError:
            continue
        if body.startswith(_INVALID_PASSWORD):
            yield f"port {port}: Postgres admits {user} without a password"


def by_socket(path: str) -> Iterator[str]:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
        except OSError:
            return
    yield f"{path} can be opened"


def by_disk(folder: str) -> Iterator[str]:
    for path, folders, files in os.walk(folder):
        for name in files:
            whole = Path(path, name)
            if os.access(whole, os.R_OK) or os.access(whole, os.W_OK):
                yield f"{whole} can be read or written"
        for name in folders:
            whole = Path(path, name)
            if os.access(whole, os.R_OK) or os.access(whole, os.W_OK):
                yield f"{whole} can be listed or written"


def main() -> None:
    # After all imports, also lazy ones: the interpreter may be in a folder closed to that user.
    list(by_http(9, "none"))
    list(by_grpc("127.0.0.1:9"))
    uid, gid = map(int, sys.argv[1:])
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    there = json.load(sys.stdin)
    got: list[str] = []
    for port in there["tcp"]:
        got += by_http(port, there["bucket"])
        got += by_grpc(f"127.0.0.1:{port}")
        got += by_postgres(port)
    for path in there["unix"]:
        got += by_socket(path)
    for folder in there["folders"]:
        got += by_disk(folder)
    sys.stdout.write(json.dumps(got))


if __name__ == "__main__":
    main()
