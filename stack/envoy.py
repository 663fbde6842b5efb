"""Envoy from its wheel, with the configuration of `envoy/envoy.yaml`."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from stack.errors import CannotStart
from stack.networks import Network
from stack.process import Pause, Process, running
from stack.wheels import package_folder

_ROOT = Path(__file__).resolve().parent.parent
_TEMPLATE = _ROOT / "envoy" / "envoy.yaml"
_DESCRIPTOR = _ROOT / "envoy" / "dalston.binpb"
_OPENAPI = _ROOT / "envoy" / "openapi.json"
_ADMIN_SOCKET = "admin.sock"
_CERTIFICATE = "certificate.json"
_READY_SECONDS = 30.0
_IDLE_SECONDS = 60
# A load balancer keeps connections for its next request, some for 10 minutes. Where Envoy closes first, the balancer
# answers 502 now and then.
_PROXIED_IDLE_SECONDS = 620
_STOP = ((signal.SIGTERM, 5.0),)

_TYPES = "type.googleapis.com/envoy.extensions.transport_sockets"
_PLAIN = {
    "name": "plain",
    "typed_config": {"@type": f"{_TYPES}.raw_buffer.v3.RawBuffer"},
}
# By way of a file that names the files: only such are read again when they are replaced.
_TLS = {
    "name": "tls",
    "typed_config": {
        "@type": f"{_TYPES}.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "tls_certificate_sds_secret_configs": [
                {"name": "public", "sds_config": {"path_config_source": {"path": f"./{_CERTIFICATE}"}}}
            ],
        },
    },
}


Address = tuple[str, int]
"""A host and a port."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Absolute paths of PEM files."""

    chain: Path
    private_key: Path


@dataclass(frozen=True, slots=True)
class Doors:
    """Where Envoy listens and what stands behind it. All hosts are IP addresses or names, without a port."""

    hosts: Sequence[str]
    """The addresses to listen on, at least one."""
    port: int
    server_port: int
    bridge_port: int
    server_host: str = "127.0.0.1"
    bridge_host: str = "127.0.0.1"
    more_servers: Sequence[Address] = ()
    """Others like the first, that share its Postgres and its bucket."""
    more_bridges: Sequence[Address] = ()
    names: Sequence[str] = ("*",)
    """The Host headers to answer to."""
    origins: Sequence[str] = ()
    """Web pages of other hosts that may read what is answered."""
    proxies: Sequence[Network] = ()
    """Where the proxies in front connect from; they append to `x-forwarded-for` whom they were asked by."""
    connections: int = 5000
    """The most there may be."""
    connections_each: int = 1000
    """Of these, for an eighth of all addresses. Proxies may have all: clients share their address."""
    certificate: Certificate | None = None
    """What the public port shows; None for no TLS."""
    call_seconds: int = 30
    """The longest call of one request and one answer, the time in which its request arrives included."""
    stall_seconds: int = 120
    """How long a download or watch may go without a byte."""


@contextmanager
def envoy(folder: Path, doors: Doors, *, log: Path | None = None, pause: Pause = time.sleep) -> Iterator[Process]:
    """Runs Envoy while the block runs.

    Args:
        folder: for the filled-in configuration and the admin socket; made if it is not there.
        doors: addresses.
        log: Envoy's own messages; requests go to `access.log` beside it. Default: `envoy.log` in `folder`.
        pause: how to wait while it starts.

    Raises:
        StackError: it cannot start; the message says why.
    """
    folder = folder.resolve()
    log = log or folder / "envoy.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        configuration = folder / "envoy.yaml"
        configuration.write_text(render(doors, log.with_name("access.log")))
        (folder / _CERTIFICATE).write_text(_secret(doors.certificate))
        (folder / _ADMIN_SOCKET).unlink(missing_ok=True)
    except OSError as error:
        raise CannotStart(f"Envoy cannot write to {folder}: {error.strerror}") from error
    program = package_folder("envoy") / "_bin" / "envoy"
    # Hot restart uses shared memory under a machine-wide number, so that two Envoys would meet.
    command = [str(program), "-c", str(configuration), "--disable-hot-restart", "--log-level", "warning"]
    # What somebody looks for in the access log is a second old, not ten.
    command += ["--file-flush-interval-msec", "1000"]
    with running("envoy", command, log=log, cwd=folder, stop=_STOP) as process:
        process.wait_until(lambda: _live(folder), _READY_SECONDS, pause)
        yield process


def render(doors: Doors, access_log: Path) -> str:
    """The configuration with its placeholders filled in."""
    more = [{"address": {"socket_address": {"address": host, "port_value": doors.port}}} for host in doors.hosts[1:]]
    return Template(_TEMPLATE.read_text()).substitute(
        PUBLIC_HOST=doors.hosts[0],
        PUBLIC_PORT=doors.port,
        MORE_ADDRESSES=json.dumps(more),
        HOST_NAMES=json.dumps(list(doors.names)),
        SERVERS=json.dumps(_endpoints((doors.server_host, doors.server_port), *doors.more_servers)),
        BRIDGES=json.dumps(_endpoints((doors.bridge_host, doors.bridge_port), *doors.more_bridges)),
        TRANSPORT=json.dumps(_TLS if doors.certificate else _PLAIN),
        ALLOWED_ORIGINS=json.dumps([{"exact": origin} for origin in doors.origins]),
        IS_FIRST=json.dumps(not doors.proxies),
        ADDRESS_DETECTION=json.dumps(_address_detection(doors.proxies)),
        CONNECTIONS=doors.connections,
        CONNECTIONS_EACH=doors.connections if doors.proxies else doors.connections_each,
        IDLE_SECONDS=_PROXIED_IDLE_SECONDS if doors.proxies else _IDLE_SECONDS,
        DESCRIPTOR=_quotable(_DESCRIPTOR),
        OPENAPI=_quotable(_OPENAPI),
        CALL_SECONDS=doors.call_seconds,
        STALL_SECONDS=doors.stall_seconds,
        ACCESS_LOG=_quotable(access_log),
        # Relative to the folder it runs in: the path of a Unix socket may have no more than 107 characters.
        ADMIN_SOCKET=_ADMIN_SOCKET,
    )


def _endpoints(*addresses: Address) -> list[dict[str, Any]]:
    """What Envoy shares calls among."""
    return [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}} for host, port in addresses
    ]


def _address_detection(proxies: Sequence[Network]) -> list[dict[str, Any]]:
    """How Envoy learns where a client is: from the proxies alone, passing over those that stand behind each other."""
    if not proxies:
        return []
    cidrs = [{"address_prefix": str(each.network_address), "prefix_len": each.prefixlen} for each in proxies]
    return [
        {
            "name": "envoy.http.original_ip_detection.xff",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.http.original_ip_detection.xff.v3.XffConfig",
                "xff_trusted_cidrs": {"cidrs": cidrs},
            },
        }
    ]


def _secret(certificate: Certificate | None) -> str:
    """The file by which Envoy finds the certificate."""
    if certificate is None:
        return json.dumps({"resources": []})
    return json.dumps(
        {
            "resources": [
                {
                    "@type": f"{_TYPES}.tls.v3.Secret",
                    "name": "public",
                    "tls_certificate": {
                        "certificate_chain": {"filename": str(certificate.chain)},
                        "private_key": {"filename": str(certificate.private_key)},
                    },
                }
            ]
        }
    )


def _quotable(path: Path) -> str:
    """As it stands between double quotes; in YAML they mean what they mean in JSON."""
    return json.dumps(str(path))[1:-1]


def _live(folder: Path) -> bool:
    # The same limit holds for connecting; an open folder has a short name.
    handle = os.open(folder, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(f"/proc/self/fd/{handle}/{_ADMIN_SOCKET}")
            connection.sendall(b"GET /ready HTTP/1.1\r\nhost: envoy\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False
    finally:
        os.close(handle)
