"""The address of the service and the key for it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_URL = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The public port of a service."""

    host: str
    port: int
    is_secure: bool
    api_key: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    """Certificates to trust instead of the system's."""

    @property
    def address(self) -> str:
        """`host:port`, as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine; then the proxies of the environment do not apply."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def find_endpoint(url: str | None, api_key: str | None, ca_file: str | os.PathLike[str] | None) -> Endpoint:
    """The endpoint for these arguments; `DALSTON_URL` and `DALSTON_API_KEY` replace those that are None.

    Raises:
        ValueError: the URL or the key is malformed.
    """
    url = url or os.environ.get("DALSTON_URL") or DEFAULT_URL
    key = api_key or os.environ.get("DALSTON_API_KEY") or None
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise ValueError("an API key consists of printable ASCII characters without spaces")
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(f"the service's URL must be http://HOST:PORT or https://HOST:PORT, not {url!r}")
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(
            "the service's URL must be http://HOST:PORT or https://HOST:PORT, without path, query or user name"
        )
    is_secure = parts.scheme == "https"
    return Endpoint(
        host=parts.hostname,
        port=port or (443 if is_secure else 80),
        is_secure=is_secure,
        api_key=key,
        ca_file=Path(ca_file) if ca_file is not None else None,
    )
