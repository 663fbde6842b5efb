"""Settings of the server process, from `DALSTON_*` in the environment."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServerSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="DALSTON_", frozen=True, extra="ignore", env_ignore_empty=True)

    server_host: str = "127.0.0.1"
    """Address to serve gRPC on."""
    server_port: int = Field(default=50051, ge=0, le=65535)
    """Port to serve gRPC on."""
    server_socket: Path | None = None
    """A Unix socket to serve gRPC on instead: only who may open it calls, and its `x-forwarded-for` is believed."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port of `/metrics`, on `server_host`; 0 for none."""
    metrics_socket: Path | None = None
    """A Unix socket to serve `/metrics` on instead."""
    auth: Literal["none", "keys"] = "none"
    """How callers prove who they are: not at all, or by API keys and the tokens made with them."""
    allow_unauthenticated: bool = False
    """Whether `auth=none` may be served beyond loopback."""
    max_sessions: int = Field(default=64, ge=1)
    """Streams served at a time; one more is refused with NO_CAPACITY."""
    max_queue_delay_seconds: float = Field(default=3, gt=0)
    """How long an utterance may wait for those of other sessions before further sessions are refused with NO_CAPACITY.
    The time that the model takes for itself comes on top."""
    max_session_seconds: float = Field(default=4 * 3600, gt=0)
    """Longest session."""
    idle_timeout_seconds: float = Field(default=60, gt=0)
    """Longest time without a message from the client. For this and the one before, a tenant's own limit comes first."""
    tenant_max_sessions: int = Field(default=100, ge=0)
    """With `auth=keys`: sessions of one tenant that run at a time on all servers, where it has no limit of its own."""
    tenant_requests_per_second: float = Field(default=50, gt=0)
    """With `auth=keys`: calls of one tenant on each server, where it has no limit of its own; twice as many at once."""
    tenant_max_storage_bytes: int | None = Field(default=None, ge=0)
    """With `auth=keys`: the stored audio of one tenant from which on none of its sessions may begin to store, where it
    has no limit of its own. None: there is no limit."""
    tenant_share: float = Field(default=0.75, gt=0, le=1)
    """With `auth=keys`: the share of `max_sessions` that one tenant may have on this server."""
    tenant_max_watches: int = Field(default=100, ge=1)
    """Streams of changes (`sessions:watch`) of one tenant at a time on each server."""
    tenant_max_downloads: int = Field(default=8, ge=1)
    """Downloads of one tenant that this server has in progress at a time; each holds 1 MiB of memory."""
    shutdown_seconds: float = Field(default=30, ge=0)
    """How long running streams may go on after SIGTERM; what is left of them is transcribed and stored then, and 20 s
    later at the latest the process is gone."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "json", "text"] = "auto"
    """`auto`: text at a terminal, JSON elsewhere."""
