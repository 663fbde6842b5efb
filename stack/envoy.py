"""Envoy from its wheel, with the configuration of `envoy/envoy.yaml`."""

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from stack.errors import CannotStart
from stack.files import write_private
from stack.identity import Identity, change_owner, make_private, unprivileged
from stack.logs import Pump
from stack.networks import Network
from stack.probe import answers_on_socket
from stack.process import Pause, Process, running
from stack.wheels import package_folder

_ROOT = Path(__file__).resolve().parent.parent
_TEMPLATE = _ROOT / "envoy" / "envoy.yaml"
_DESCRIPTOR = _ROOT / "envoy" / "dalston.binpb"
_OPENAPI = _ROOT / "envoy" / "openapi.json"
_CONSOLE = _ROOT / "console"
_LOG_RATE = _ROOT / "envoy" / "log-rate.json"
_ADMIN_SOCKET = "admin.sock"
_CERTIFICATE = "certificate.json"
_ACCESS_LOG = "access.pipe"
READY_SECONDS = 30.0
_IDLE_SECONDS = 60
# A load balancer keeps connections for its next request, some for 10 minutes. If Envoy closes one first, the balancer
# answers 502 now and then.
_PROXIED_IDLE_SECONDS = 620
_STOP = ((signal.SIGTERM, 5.0),)

_TYPES = "type.googleapis.com/envoy.extensions.transport_sockets"
_PLAIN = {
    "name": "plain",
    "typed_config": {"@type": f"{_TYPES}.raw_buffer.v3.RawBuffer"},
}
# A file that names the files: Envoy reads only such files again when they are replaced.
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
class Endpoints:
    """Where Envoy listens, and its upstreams. All hosts are IP addresses or names, without a port."""

    hosts: Sequence[str]
    """The addresses to listen on, at least one."""
    port: int
    server_port: int
    bridge_port: int
    uploads_port: int = 8082
    server_host: str = "127.0.0.1"
    bridge_host: str = "127.0.0.1"
    uploads_host: str = "127.0.0.1"
    more_servers: Sequence[Address] = ()
    """Further servers that share the Postgres and the bucket of the first."""
    more_bridges: Sequence[Address] = ()
    server_socket: Path | None = None
    """The server's Unix socket, if it has one; its host and port are ignored then."""
    bridge_socket: Path | None = None
    """The bridge's Unix socket, likewise."""
    uploads_socket: Path | None = None
    """The Unix socket of the uploads process, likewise."""
    names: Sequence[str] = ("*",)
    """The Host headers to answer to."""
    origins: Sequence[str] = ()
    """Web pages of other hosts that may read responses and send more than reads."""
    proxies: Sequence[Network] = ()
    """The addresses of the proxies in front; they append the address of their client to `x-forwarded-for`."""
    connections: int = 5000
    """The highest number of connections."""
    connections_each: int = 1000
    """How many of them one bucket, an eighth of all addresses, may use. Proxies may use all: clients share their
    addresses."""
    requests_each: int = 100
    """How many unary calls one address may begin per second; twice as many at once. A fifth of that applies to
    responses without authentication: documents, health, and unknown paths."""
    heap_bytes: int = 512 << 20
    """The most memory that requests may use; the program itself and its configuration use 100 MB besides."""
    console: bool = True
    """Whether the web console is served."""
    certificate: Certificate | None = None
    """The certificate of the public port; None for no TLS."""
    call_seconds: int = 30
    """The longest unary call, including the time in which its request arrives."""
    stall_seconds: int = 120
    """How long a download or watch may be idle."""
    upload_seconds: int = 3660
    """How long a file may take to arrive, and how long its sender may wait for the transcript."""


class Envoy:
    """Envoy's folder with its configuration, which stays the same across restarts."""

    def __init__(
        self, folder: Path, endpoints: Endpoints, identity: Identity | None, *, log: Path | None = None
    ) -> None:
        """
        Args:
            folder: for the rendered configuration and the admin socket; created if it does not exist.
            identity: the user that it runs as and that will own the folder.
            endpoints: addresses.
            log: Envoy's own messages; requests go to `access.log` beside it. Default: `envoy.log` in `folder`.

        Raises:
            StackError: it cannot be started, with the reason.
        """
        self._folder = folder.resolve()
        self._log = log or self._folder / "envoy.log"
        self._access_log = self._log.with_name("access.log")
        self._program = package_folder("envoy") / "_bin" / "envoy"
        certificate = endpoints.certificate
        if identity is not None:
            files = (self._program, self._folder, _DESCRIPTOR, _OPENAPI, _LOG_RATE, *_CONSOLE.rglob("*"))
            identity = identity.reaching(*files).binding(endpoints.port)
        self._identity = identity
        try:
            make_private(self._folder, identity)
            self._log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._copied: _CopiedCertificate | None = None
            if identity and certificate and not identity.reads(certificate.chain, certificate.private_key):
                self._copied = _CopiedCertificate(certificate, self._folder, identity)
                certificate = self._copied.copy
            self._write("envoy.yaml", render(endpoints, self._folder / _ACCESS_LOG), identity)
            self._write(_CERTIFICATE, _secret(certificate), identity)
            pipe = self._folder / _ACCESS_LOG
            pipe.unlink(missing_ok=True)
            os.mkfifo(pipe, 0o600)
            change_owner(pipe, identity)
        except OSError as error:
            raise CannotStart(f"Envoy cannot write to {self._folder}: {error.strerror}") from error

    def _write(self, name: str, text: str, identity: Identity | None) -> None:
        write_private(self._folder / name, text)
        change_owner(self._folder / name, identity)

    @contextmanager
    def launch(self) -> Iterator[Process]:
        """Runs it while the block runs."""
        (self._folder / _ADMIN_SOCKET).unlink(missing_ok=True)
        # Hot restart uses shared memory under a machine-wide number, which two Envoys would share.
        command = [str(self._program), "-c", str(self._folder / "envoy.yaml"), "--disable-hot-restart"]
        # Lines are in the access log after a second, not after ten.
        command += ["--log-level", "warning", "--file-flush-interval-msec", "1000"]
        # Both ends stay open, so that Envoy finds a reader and its restart does not end the pipe.
        pump = Pump(os.open(self._folder / _ACCESS_LOG, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC), self._access_log)
        try:
            with running(
                "envoy", command, log=self._log, cwd=self._folder, identity=self._identity, stop=_STOP
            ) as process:
                yield process
        finally:
            pump.close()

    def is_ready(self) -> bool:
        return answers_on_socket(self._folder / _ADMIN_SOCKET, "/ready", timeout=2)

    def check_certificate(self) -> None:
        """Copies a certificate that was replaced for Envoy, if Envoy may not read the files itself."""
        if self._copied is not None:
            self._copied.refresh()


class _CopiedCertificate:
    """A certificate that root may read and Envoy may not, in files that it may."""

    def __init__(self, certificate: Certificate, folder: Path, identity: Identity) -> None:
        """
        Raises:
            OSError: the files cannot be read or written.
        """
        self._certificate = certificate
        self._identity = identity
        self.copy = Certificate(folder / "certificate.pem", folder / "key.pem")
        self._seen: object = None
        self._write()

    def refresh(self) -> None:
        # One of the two files is missing for a moment: the next check will find both.
        with suppress(OSError):
            if self._fingerprint() != self._seen:
                self._write()

    def _write(self) -> None:
        seen = self._fingerprint()
        pairs = (
            (self._certificate.private_key, self.copy.private_key),
            (self._certificate.chain, self.copy.chain),
        )
        for source, copy in pairs:
            fresh = copy.with_name(f"{copy.name}.given")
            write_private(fresh, source.read_text())
            change_owner(fresh, self._identity)
            fresh.rename(copy)
        self._seen = seen

    def _fingerprint(self) -> object:
        files = [path.stat() for path in (self._certificate.chain, self._certificate.private_key)]
        return [(file.st_ino, file.st_mtime_ns, file.st_size) for file in files]


@contextmanager
def envoy(
    folder: Path, endpoints: Endpoints, *, log: Path | None = None, pause: Pause = time.sleep
) -> Iterator[Process]:
    """Runs Envoy while the block runs; the arguments and errors are those of `Envoy`."""
    proxy = Envoy(folder, endpoints, unprivileged(folder), log=log)
    with proxy.launch() as process:
        process.wait_until(proxy.is_ready, READY_SECONDS, pause)
        yield process


def render(endpoints: Endpoints, access_log: Path) -> str:
    """The configuration with its placeholders filled in."""
    more = [
        {"address": {"socket_address": {"address": host, "port_value": endpoints.port}}} for host in endpoints.hosts[1:]
    ]
    return Template(_TEMPLATE.read_text()).substitute(
        PUBLIC_HOST=endpoints.hosts[0],
        PUBLIC_PORT=endpoints.port,
        MORE_ADDRESSES=json.dumps(more),
        HOST_NAMES=json.dumps(list(endpoints.names)),
        SERVERS_TYPE=_discovery(endpoints.server_socket),
        BRIDGES_TYPE=_discovery(endpoints.bridge_socket),
        UPLOADS_TYPE=_discovery(endpoints.uploads_socket),
        UPLOADS=json.dumps(_endpoints(endpoints.uploads_socket or (endpoints.uploads_host, endpoints.uploads_port))),
        SERVERS=json.dumps(
            _endpoints(
                endpoints.server_socket or (endpoints.server_host, endpoints.server_port), *endpoints.more_servers
            )
        ),
        BRIDGES=json.dumps(
            _endpoints(
                endpoints.bridge_socket or (endpoints.bridge_host, endpoints.bridge_port), *endpoints.more_bridges
            )
        ),
        TRANSPORT=json.dumps(_TLS if endpoints.certificate else _PLAIN),
        ALLOWED_ORIGINS=json.dumps([{"exact": origin} for origin in endpoints.origins]),
        LISTED_ORIGINS=" ".join(endpoints.origins),
        IS_FIRST=json.dumps(not endpoints.proxies),
        ADDRESS_DETECTION=json.dumps(_address_detection(endpoints.proxies)),
        CONNECTIONS=endpoints.connections,
        CONNECTIONS_EACH=endpoints.connections if endpoints.proxies else endpoints.connections_each,
        REQUESTS_EACH=endpoints.requests_each,
        REQUESTS_EACH_BURST=2 * endpoints.requests_each,
        ANSWERS_EACH=max(1, endpoints.requests_each // 5),
        ANSWERS_EACH_BURST=max(2, 2 * endpoints.requests_each // 5),
        HEAP_BYTES=endpoints.heap_bytes,
        IDLE_SECONDS=_PROXIED_IDLE_SECONDS if endpoints.proxies else _IDLE_SECONDS,
        DESCRIPTOR=_quotable(_DESCRIPTOR),
        OPENAPI=_quotable(_OPENAPI),
        CONSOLE=_quotable(_CONSOLE),
        CONSOLE_PERCENT=100 if endpoints.console else 0,
        CALL_SECONDS=endpoints.call_seconds,
        STALL_SECONDS=endpoints.stall_seconds,
        UPLOAD_SECONDS=endpoints.upload_seconds,
        ACCESS_LOG=_quotable(access_log),
        LOG_RATE=_quotable(_LOG_RATE),
        # Relative to the folder it runs in: the path of a Unix socket may have no more than 107 characters.
        ADMIN_SOCKET=_ADMIN_SOCKET,
    )


def _endpoints(*addresses: Address | Path) -> list[dict[str, Any]]:
    """The endpoints among which Envoy balances calls."""
    return [{"endpoint": {"address": _address(each)}} for each in addresses]


def _address(address: Address | Path) -> dict[str, Any]:
    if isinstance(address, Path):
        return {"pipe": {"path": str(address)}}
    host, port = address
    return {"socket_address": {"address": host, "port_value": port}}


def _discovery(socket: Path | None) -> str:
    """A Unix socket has no name to look up."""
    return "STRICT_DNS" if socket is None else "STATIC"


def _address_detection(proxies: Sequence[Network]) -> list[dict[str, Any]]:
    """How Envoy determines the client's address: from trusted proxies only, skipping proxies behind proxies."""
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
    """The file that names the files of the certificate."""
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
    """The path for use between double quotes, which have the same rules in YAML and JSON."""
    return json.dumps(str(path))[1:-1]
