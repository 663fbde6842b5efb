"""The bridge's settings: environment variables that begin with `DALSTON_`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from bridge.pages import Pages
from telemetry.logs import LogFormat
from telemetry.origins import Origins, split_origins


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """How long one connection waits for either end, in seconds."""

    configure_seconds: float = 60.0
    """For the client to configure its session, where its protocol does that by a message."""
    begin_seconds: float = 20.0
    """For the server to accept the session."""
    stall_seconds: float = 60.0
    """For the server to take one message of the client."""
    stuck_seconds: float = 30.0
    """For the client to take one message of the server."""
    settle_seconds: float = 10.0
    """For the server to take what a client sent right before it disconnected without an end."""
    finish_seconds: float = 120.0
    """For the server to finish a session whose client sent the end and disconnected."""
    close_seconds: float = 5.0
    """For the client to answer the close."""
    ping_interval_seconds: float = 20.0
    """Between two pings to the client."""
    ping_timeout_seconds: float = 20.0
    """For any frame after a ping."""
    grace_seconds: float = 30.0
    """For running streams to finish when the bridge stops."""


_DEFAULTS = RelayLimits()


class BridgeSettings(BaseSettings):
    """Settings of one bridge process."""

    model_config = SettingsConfigDict(env_prefix="DALSTON_", frozen=True, extra="ignore", env_ignore_empty=True)

    bridge_host: str = "127.0.0.1"
    """The address to listen on."""
    bridge_port: int = Field(default=8081, ge=0, le=65535)
    """The port to listen on; 0 takes a free one and logs it."""
    bridge_socket: Path | None = None
    """A Unix socket to listen on instead: its permissions decide which processes are served."""
    server_target: str = "127.0.0.1:50051"
    """The transcription server as a gRPC target; the addresses of a name are used in turn."""
    auth: Literal["none", "keys"] = "none"
    """How callers authenticate. The server checks it; here it decides where the bridge may listen, and which pages it
    admits."""
    allowed_origins: Origins = ""
    """Pages that may open WebSockets although another host serves them: origins, separated by commas."""
    allow_unauthenticated: bool = False
    """Whether an unauthenticated service may be reached from other machines."""
    bridge_max_connections: int = Field(default=500, ge=1)
    """WebSockets served at once; more are closed with NO_CAPACITY. Each takes one file descriptor."""
    bridge_handshake_seconds: float = Field(default=10.0, gt=0)
    """Longest time a client may take for its HTTP request."""
    shutdown_seconds: float = Field(default=_DEFAULTS.grace_seconds, ge=0)
    """Time for running streams to finish when the process stops. The server has a setting of the same name."""
    bridge_configure_seconds: float = Field(default=_DEFAULTS.configure_seconds, gt=0)
    """Time a client gets to configure its session, where its protocol does that by a message."""
    bridge_begin_seconds: float = Field(default=_DEFAULTS.begin_seconds, gt=0)
    """Time the server gets to accept a session."""
    bridge_stall_seconds: float = Field(default=_DEFAULTS.stall_seconds, gt=0)
    """Time the server gets to take one message."""
    bridge_stuck_seconds: float = Field(default=_DEFAULTS.stuck_seconds, gt=0)
    """Time a client gets to take one message."""
    bridge_settle_seconds: float = Field(default=_DEFAULTS.settle_seconds, gt=0)
    """Time the server gets to take what a client sent before it disconnected. A session that stores something gets
    more."""
    bridge_finish_seconds: float = Field(default=_DEFAULTS.finish_seconds, gt=0)
    """Time a session gets to complete after its client sent the end and disconnected."""
    bridge_close_seconds: float = Field(default=_DEFAULTS.close_seconds, gt=0)
    """Time a client gets to answer the close."""
    bridge_ping_interval_seconds: float = Field(default=_DEFAULTS.ping_interval_seconds, gt=0)
    """Time between two pings to a client."""
    bridge_ping_timeout_seconds: float = Field(default=_DEFAULTS.ping_timeout_seconds, gt=0)
    """Time a client gets to send any frame after a ping."""
    bridge_metrics_port: int = Field(default=0, ge=0, le=65535)
    """Where Prometheus metrics are served, on loopback; 0 means not at all."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severity that is logged."""
    log_format: LogFormat = "auto"
    """`json`, `text`, or `auto`: text at a terminal."""

    @property
    def pages(self) -> Pages:
        """The web pages that are admitted."""
        return Pages(
            allowed=frozenset(split_origins(self.allowed_origins)),
            local_only=self.auth == "none" and not self.allow_unauthenticated,
            by_token=self.auth != "none",
        )

    @property
    def relay_limits(self) -> RelayLimits:
        """The limits of each connection."""
        return RelayLimits(
            configure_seconds=self.bridge_configure_seconds,
            begin_seconds=self.bridge_begin_seconds,
            stall_seconds=self.bridge_stall_seconds,
            stuck_seconds=self.bridge_stuck_seconds,
            settle_seconds=self.bridge_settle_seconds,
            finish_seconds=self.bridge_finish_seconds,
            close_seconds=self.bridge_close_seconds,
            ping_interval_seconds=self.bridge_ping_interval_seconds,
            ping_timeout_seconds=self.bridge_ping_timeout_seconds,
            grace_seconds=self.shutdown_seconds,
        )
