"""The public address, checked before anything is started."""

import errno
import ipaddress
import socket
import ssl
from collections.abc import Sequence

from stack.envoy import Certificate
from stack.errors import CannotStart
from stack.settings import StackSettings
from telemetry.exposure import is_loopback, refusal_of_plaintext, refusal_to_expose

_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


def addresses(settings: StackSettings) -> list[str]:
    """The IP addresses to listen on.

    By default both of `localhost`: some clients, older Node.js among them, try the IPv6 one alone.

    Raises:
        CannotStart: the address is not of this machine, may not be served, or its port is taken.
    """
    if refusal := refusal_to_expose(settings.host, settings.auth, settings.allow_unauthenticated):
        raise CannotStart(refusal)
    encrypted = settings.tls_cert is not None
    if refusal := refusal_of_plaintext(settings.host, settings.auth, encrypted, settings.allow_plaintext):
        raise CannotStart(refusal)
    host = "127.0.0.1" if settings.host == "localhost" else settings.host
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise CannotStart(f"DALSTON_HOST must be an IP address, and {host} is none") from None
    if problem := _problem(host, settings.port):
        raise CannotStart(_explain(problem, host, settings.port))
    if host != "127.0.0.1":
        return [host]
    second = _problem("::1", settings.port)
    if second is None:
        return [host, "::1"]
    if second == errno.EADDRINUSE:
        raise CannotStart(_explain(second, "::1", settings.port))
    return [host]


def certificate(settings: StackSettings) -> Certificate | None:
    """The certificate of the public port; None without TLS.

    Raises:
        CannotStart: a file cannot be read, or Envoy could not use it.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    for variable, path in (("DALSTON_TLS_CERT", settings.tls_cert), ("DALSTON_TLS_KEY", settings.tls_key)):
        try:
            path.expanduser().read_bytes()
        except OSError as error:
            raise CannotStart(f"{variable}: cannot read {path}: {error.strerror}") from error
    # Envoy starts with any files, and then aborts every connection.
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.tls_cert.expanduser(), settings.tls_key.expanduser(), password=""
        )
    except (ssl.SSLError, ValueError) as error:
        raise CannotStart(
            f"DALSTON_TLS_CERT and DALSTON_TLS_KEY: {settings.tls_cert} and {settings.tls_key} "
            "are not a certificate and its key, in PEM and without a password"
        ) from error
    return Certificate(settings.tls_cert.expanduser().absolute(), settings.tls_key.expanduser().absolute())


def names(settings: StackSettings) -> Sequence[str]:
    """The Host headers to answer to.

    A web page can make its own host name resolve to 127.0.0.1 and then read what is served there without a key (DNS
    rebinding). Its Host header reveals it.
    """
    if settings.auth == "none" and is_loopback(settings.host) and not settings.allow_unauthenticated:
        return _LOCAL_NAMES
    return ("*",)


def _problem(host: str, port: int) -> int | None:
    """The errno of listening there, or None if it works."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if ":" in host:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        return error.errno
    return None


def _explain(problem: int, host: str, port: int) -> str:
    match problem:
        case errno.EADDRINUSE:
            return (
                f"port {port} on {host} is in use by another program. Stop that, or choose another port with "
                f"DALSTON_PORT={port + 1 if port < 65535 else 8000}."
            )
        case errno.EACCES:
            return f"this user may not listen on port {port}. Choose one above 1023 with DALSTON_PORT."
        case errno.EADDRNOTAVAIL:
            return f"DALSTON_HOST={host} is no address of this machine"
        case _:
            return f"cannot listen on port {port} of {host}: errno {problem}"
