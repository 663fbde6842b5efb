"""Rules that keep an unauthenticated service, and keys in plain text, off the network."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a socket bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refusal_to_expose(host: str, auth: str, allowed: bool) -> str | None:
    """Why a process must not listen on `host`, or None if it may.

    Without authentication anyone who reaches the port reads and deletes every session, so only loopback is served
    unless the operator allows it.
    """
    if auth != "none" or allowed or is_loopback(host):
        return None
    return (
        f"refusing to listen on {host} with DALSTON_AUTH=none: anyone who reaches it could read and delete every "
        "session. Listen on 127.0.0.1, or set DALSTON_ALLOW_UNAUTHENTICATED=true if the network in front is trusted."
    )


def refusal_of_plaintext(host: str, auth: str, encrypted: bool, allowed: bool) -> str | None:
    """Why the public port must not be on `host`, or None if it may.

    Anyone in between can read keys and audio that are sent in plain text, so beyond loopback they need TLS: here, or
    terminated upstream if the operator states it.
    """
    if auth == "none" or encrypted or allowed or is_loopback(host):
        return None
    return (
        f"refusing to take keys on {host} without TLS: anyone in between could read them. Set DALSTON_TLS_CERT and "
        "DALSTON_TLS_KEY, or DALSTON_ALLOW_PLAINTEXT=true if TLS is terminated upstream."
    )
