"""Settings of the local stack, from `DALSTON_*` in the environment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from stack.networks import Network, Networks, split_networks
from telemetry.origins import Origins, split_origins

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: the Makefile, `envoy/`, `migrations/` and `samples/` are there."""


class StackSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="DALSTON_", frozen=True, extra="ignore", env_ignore_empty=True)

    home: Path = ROOT / ".dalston"
    """Folder of all data, caches and logs."""
    host: str = "127.0.0.1"
    """IP address of the public port."""
    port: int = Field(default=8000, ge=1, le=65535)
    """The public port. All others are internal, free ones on loopback, and need a password or a certificate."""
    auth: Literal["none", "keys"] = "none"
    """How callers authenticate."""
    allowed_origins: Origins = ""
    """Web pages that may use the service although another host serves them: origins, separated by commas."""
    tls_cert: Path | None = None
    """A certificate chain in PEM: the public port speaks TLS. Replaced files are used without a restart."""
    tls_key: Path | None = None
    """Its private key in PEM."""
    allow_unauthenticated: bool = False
    """Whether `auth=none` may be served beyond loopback."""
    allow_plaintext: bool = False
    """Whether `auth=keys` may be served beyond loopback without TLS, which is terminated upstream then."""
    trusted_proxies: Networks = ""
    """The addresses of the load balancers in front: addresses or networks, separated by commas. The client address that
    they report is trusted, and that of no other peer."""
    address_requests_per_second: int = Field(default=100, ge=1)
    """How many unary calls one address may begin per second; twice as many at once. Live streams do not count."""
    cache_dir: Path | None = None
    """The folder of converted weights. Default: `cache` in `home`."""
    database_url: str | None = Field(default=None, repr=False)
    """A Postgres to use instead of starting one."""
    s3_endpoint_url: str | None = None
    """An S3 server to use instead of starting one. The server reads this and the other settings of S3 itself."""
    s3_bucket: str | None = None
    """A bucket on AWS to use instead."""
    enhance: bool = True
    """Whether a worker runs, which does batch jobs."""
    console: bool = True
    """Whether the web console is served, at `/console/` of the public port."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of the server's `/metrics` on loopback, for every user of the machine; 0 for none. Default: a Unix socket in
    `home`, for the user that started the stack."""

    @model_validator(mode="after")
    def _has_certificate_and_key_or_none(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("DALSTON_TLS_CERT and DALSTON_TLS_KEY go together")
        return self

    @property
    def origins(self) -> tuple[str, ...]:
        """The allowed origins, one by one."""
        return split_origins(self.allowed_origins)

    @property
    def proxies(self) -> Sequence[Network]:
        """The trusted proxies, one by one."""
        return split_networks(self.trusted_proxies)

    @property
    def external_s3(self) -> bool:
        """Whether an external S3 is configured, so that none is started."""
        return bool(self.s3_endpoint_url or self.s3_bucket)
